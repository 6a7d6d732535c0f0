"""Loads what compile.py printed with the same Python, from the file that the first argument names."""

import marshal
import sys

with open(sys.argv.pop(1), "rb") as file:
    modules = marshal.loads(file.read())
del file
