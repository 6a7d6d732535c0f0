"""Compiles the supervisor, the first argument, in a process that then ends, and runs it. What compiling leaves in the
heap would be copied, mapped and unmapped again with each run's process: without it a run costs a tenth less."""

import marshal
import os
import sys

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
del source, out, into, pid, parts, part
exec(marshal.loads(compiled))
