# Executes the supervisor's modules, which bootstrap.py or start.py above has found, and starts it. Programs have no
# business with them, so they are no longer to be imported by then.
for name, code in modules:
    sys.modules[name] = module = type(sys)(name)
    exec(code, module.__dict__)
serve, main = module.serve, sys.modules["main"].main
for name, _ in modules:
    del sys.modules[name]
# From Python 3.13 on this text would be shown in tracebacks, as the source of whatever a program executes.
getattr(sys.modules.get("linecache"), "_interactive_cache", {}).clear()
del modules, module, name, code, _
main(serve)
