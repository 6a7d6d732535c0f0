"""Prints the supervisor's compiled modules. start.py loads them in a sandbox, which then does not compile them itself.
The arguments are those of bootstrap.py up to "--"."""

import marshal
import sys

with open(1, "wb") as stdout:
    later = sys.argv[1].split()
    modules = zip(sys.argv[2::3], sys.argv[3::3], sys.argv[4::3])
    marshal.dump([(n, (f, s) if n in later else compile(s, f, "exec")) for n, f, s in modules], stdout)
