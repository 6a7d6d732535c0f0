"""Prints the supervisor's compiled modules. start.py loads them in a sandbox, which then does not compile them itself.
The arguments are the name and the source of each module, in load order."""

import marshal
import sys

with open(1, "wb") as stdout:
    sources = zip(sys.argv[1::2], sys.argv[2::2])
    marshal.dump([(name, compile(source, f"<supervisor {name}>", "exec")) for name, source in sources], stdout)
