"""Prints the supervisor's modules compiled: start.py loads them in a sandbox that then need not compile them. The
arguments are the name and the source of each, in the order in which they are loaded."""

import marshal
import sys

with open(1, "wb") as stdout:
    sources = zip(sys.argv[1::2], sys.argv[2::2])
    marshal.dump([(name, compile(source, name + ".py", "exec")) for name, source in sources], stdout)
