"""Loads what compile.py printed with the same Python, from the file that the first argument names."""

import marshal
import sys

with open(sys.argv.pop(1), "rb") as file:
    if file.readline() != ascii(sys.version).encode() + b"\n":
        sys.exit(
            "the supervisor was compiled by another Python: delete the folder vivarium-compiled in your cache folder"
        )
    modules = marshal.loads(file.read())
del file
