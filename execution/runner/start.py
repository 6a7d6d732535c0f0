"""Runs the supervisor as compile.py has printed it into the file that the first argument names, with the same Python."""

import marshal
import sys

with open(sys.argv.pop(1), "rb") as file:
    code = marshal.load(file)
# From Python 3.13 on this text would be shown in tracebacks, as the source of whatever a program executes.
getattr(sys.modules.get("linecache"), "_interactive_cache", {}).clear()
del file
exec(code)
