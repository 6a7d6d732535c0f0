"""Loads what compile.py printed with the same Python, from the open file that the environment names."""

import marshal
import os
import sys

with open(int(os.environ.pop("VIVARIUM_COMPILED")), "rb") as file:
    if file.readline() != ascii(sys.version).encode() + b"\n":
        sys.exit(
            "the supervisor was compiled by another Python: delete the folder vivarium-compiled in your cache folder"
        )
    modules = marshal.loads(file.read())
del file
