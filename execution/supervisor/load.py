# Executes the supervisor's modules, which bootstrap.py or start.py above has loaded, and starts it. The modules are
# removed from sys.modules first, so that programs cannot import them.
for name, code in modules:
    sys.modules[name] = module = type(sys)(name)
    exec(code, module.__dict__)
serve, main = module.serve, sys.modules["main"].main
for name, _ in modules:
    del sys.modules[name]
# From Python 3.13 on, tracebacks would show this text as the source of every program.
getattr(sys.modules.get("linecache"), "_interactive_cache", {}).clear()
del modules, module, name, code, _
main(serve)
