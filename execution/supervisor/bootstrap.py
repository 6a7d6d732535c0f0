"""Compiles the supervisor's modules in a child process, and loads them.

The arguments are the names of the modules that load.py leaves for later; the name, the file name and the source of each
module, in load order; "--"; and the supervisor's own arguments.
The child process matters: what compiling leaves in the heap would be copied, mapped and unmapped again with each run's
process. Without it a run is a tenth cheaper."""

import marshal
import os
import sys

if sys.version_info < (3, 9):
    sys.exit("Python %d.%d is too old: it must be 3.9 or newer" % sys.version_info[:2])
try:
    import _ctypes
except ImportError:
    sys.exit("this Python lacks the module ctypes: on Debian and Ubuntu install python3, not python3-minimal alone")
end = sys.argv.index("--")
out, into = os.pipe()
pid = os.fork()
if pid == 0:
    with open(into, "wb") as pipe:
        later = sys.argv[1].split()
        modules = zip(sys.argv[2:end:3], sys.argv[3:end:3], sys.argv[4:end:3])
        marshal.dump([(n, (f, s) if n in later else compile(s, f, "exec")) for n, f, s in modules], pipe)
    os._exit(0)
os.close(into)
with open(out, "rb") as pipe:
    modules = marshal.loads(pipe.read())
os.waitpid(pid, 0)
del sys.argv[1 : end + 1], end, out, into, pid, pipe, _ctypes
