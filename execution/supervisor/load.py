# Executes the supervisor's modules, which bootstrap.py or start.py above has loaded, and starts it. The modules are
# removed from sys.modules first, so that programs cannot import them.


class Later(type(sys)):
    """A module that is compiled and executed when something of it is used. Most programs use nothing of it, and its
    compilation would take a part of each start."""

    def __getattr__(self, name):
        if "_text" not in self.__dict__:
            raise AttributeError(name)
        file, source = self._text
        namespace = {"__name__": self.__name__}  # of its own: an interrupt must leave no half a module
        replaced = {name: sys.modules[name] for name in ours if name in sys.modules}
        sys.modules.update(ours)
        try:
            exec(compile(source, file, "exec", dont_inherit=True), namespace)
        finally:
            sys.modules.update(replaced)  # in their places: ending.py needs the order
            for one in ours.keys() - replaced.keys():
                del sys.modules[one]
        self.__dict__.update(namespace)
        self.__dict__.pop("_text", None)
        return getattr(self, name)


ours = {}
for name, code in modules:
    sys.modules[name] = ours[name] = module = (Later if isinstance(code, tuple) else type(sys))(name)
    if isinstance(code, tuple):
        module._text = code
    else:
        exec(code, module.__dict__)
serve, main = module.serve, sys.modules["main"].main
for name in ours:
    del sys.modules[name]
# From Python 3.13 on, tracebacks would show this text as the source of every program.
getattr(sys.modules.get("linecache"), "_interactive_cache", {}).clear()
# The modules' own code stays in memory. If it were freed, new objects would go to the gaps that it leaves, in pages that
# the zygote and the programs share: each run would copy 27 pages more, of 530 (measured with Python 3.11).
del module, name, code
main(serve)
