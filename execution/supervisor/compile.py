"""Prints the supervisor's compiled modules. start.py loads them in a sandbox, which then does not compile them itself.
The arguments are the name, the file name and the source of each module, in load order."""

import marshal
import sys

with open(1, "wb") as stdout:
    modules = zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3])
    marshal.dump([(name, compile(source, file, "exec")) for name, file, source in modules], stdout)
