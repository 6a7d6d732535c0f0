# Executes the supervisor's modules, which bootstrap.py or start.py above has loaded. Then they are removed from
# sys.modules, so that programs cannot import them. What follows uses main, of the module of that name, and the last module.
import builtins
import sys


class Later(type(sys)):
    """A module that is compiled and executed when something of it is used. Most programs use nothing of it, and its
    compilation would take a part of each start."""

    def __getattr__(self, name):
        text = self.__dict__.get("_text")
        if text is not None:
            file, source = text
            # Of its own: neither an interrupt nor another thread must find half a module.
            namespace = {"__name__": self.__name__, "__builtins__": {**builtins.__dict__, "__import__": import_ours}}
            exec(compile(source, file, "exec", dont_inherit=True), namespace)
            if "_text" in self.__dict__:  # else another thread was faster
                self.__dict__.update(namespace)
                self.__dict__.pop("_text", None)
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(name) from None


def import_ours(name, *arguments, **options):
    """Imports one of our modules, which are not in sys.modules, or any other."""
    return ours[name] if name in ours else __import__(name, *arguments, **options)


ours = {}
for name, code in modules:
    sys.modules[name] = ours[name] = module = (Later if isinstance(code, tuple) else type(sys))(name)
    if isinstance(code, tuple):
        module._text = code
    else:
        exec(code, module.__dict__)
last, main = module, sys.modules["main"].main
for name in ours:
    del sys.modules[name]
# From Python 3.13 on, tracebacks would show this text as the source of every program.
getattr(sys.modules.get("linecache"), "_interactive_cache", {}).clear()
# The modules' own code stays in memory. If it were freed, new objects would go to the gaps that it leaves, in pages that
# the zygote and the programs share: each run would copy 27 pages more, of 530 (measured with Python 3.11).
del module, name, code
