"""Prints the supervisor's compiled modules. start.py loads them in a sandbox, which then does not compile them itself.
The arguments are those of compiled.py above."""

import marshal
import sys

with open(1, "wb") as stdout:
    stdout.write(ascii(sys.version).encode() + b"\n")
    marshal.dump(compiled(sys.argv[1:]), stdout)
