"""Compiles the supervisor's modules, and loads them.

The arguments are the name of the last module, those of compiled.py above, "--", and the supervisor's own.

A sandbox that serves many runs compiles in a child process. What compiling leaves in the heap would be copied, mapped and
unmapped again with each run's process: without it a run is a tenth cheaper. The child takes 8 ms, which other sandboxes
save."""

import marshal
import os
import sys

if sys.version_info < (3, 9):
    sys.exit("Python %d.%d is too old: it must be 3.9 or newer" % sys.version_info[:2])
try:
    import _ctypes
    import zlib
except ImportError as error:
    sys.exit(
        f"this Python lacks the module {error.name.strip('_')}: on Debian and Ubuntu install python3, not python3-minimal alone"
    )
end = sys.argv.index("--")


def compiled_by_child(arguments):
    """Returns what compiled does, as a child process returns it."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open(into, "wb") as pipe:
            marshal.dump(compiled(arguments), pipe)
        os._exit(0)
    os.close(into)
    with open(out, "rb") as pipe:
        modules = marshal.loads(pipe.read())
    os.waitpid(pid, 0)
    return modules


# Where there is a stem (link.py), the programs' processes are copies of that.
copied = sys.argv[1] == "serve_many" and "stem" not in globals()
modules = (compiled_by_child if copied else compiled)(sys.argv[2:end])
del sys.argv[1 : end + 1], end, copied, compiled, compiled_by_child, _ctypes, zlib
getattr(sys, "orig_argv", []).clear()  # or programs would find the modules there
