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
# The modules' own code stays in memory. If it were freed, new objects would go to the gaps that it leaves, in pages that
# the zygote and the programs share: each run would copy 27 pages more, of 530 (measured with Python 3.11).
del module, name, code, _
main(serve)
