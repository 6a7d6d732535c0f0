"""Loads what compile.py has printed into the file that the first argument names, with the same Python."""

import marshal
import sys

with open(sys.argv.pop(1), "rb") as file:
    modules = marshal.loads(file.read())
del file
