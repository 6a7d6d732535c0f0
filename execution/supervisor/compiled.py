"""Compiles the supervisor's modules, for bootstrap.py and compile.py."""


def compiled(arguments):
    """Returns the name of each module, and its code, or for later its file name and source. The arguments are the names of
    the modules that load.py leaves for later, and the name, the file name and the source of each module, in load order.
    """
    later = arguments[0].split()
    modules = zip(arguments[1::3], arguments[2::3], arguments[3::3])
    return [(name, (file, text) if name in later else compile(text, file, "exec")) for name, file, text in modules]
