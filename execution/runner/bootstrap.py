"""Compiles the supervisor, the first argument, in a process that then ends, and runs it. What compiling leaves in the
heap would be copied, mapped and unmapped again with each run's process: without it a run costs a tenth less."""

import marshal
import os
import sys

if sys.version_info < (3, 9):
    sys.exit("Python %d.%d is too old: it must be 3.9 or newer" % sys.version_info[:2])
try:
    import _ctypes
except ImportError:
    sys.exit("this Python lacks the module ctypes: on Debian and Ubuntu install python3, not python3-minimal alone")
source = sys.argv.pop(1)
out, into = os.pipe()
pid = os.fork()
if pid == 0:
    rest = marshal.dumps(compile(source, "supervisor.py", "exec"))
    while rest:
        rest = rest[os.write(into, rest) :]
    os._exit(0)
os.close(into)
parts = []
while part := os.read(out, 1 << 16):
    parts.append(part)
os.close(out)
os.waitpid(pid, 0)
compiled = b"".join(parts)
# From Python 3.13 on this text would be shown in tracebacks, as the source of whatever a program executes.
getattr(sys.modules.get("linecache"), "_interactive_cache", {}).clear()
del source, out, into, pid, parts, part, _ctypes
exec(marshal.loads(compiled))
