"""Prints what this interpreter is, in JSON. The server runs it outside of any sandbox, so it imports nothing that is not
Python's own."""

import importlib.util
import json
import os
import sys

WORTHWHILE = {"numpy": "numpy", "pandas": "pandas", "matplotlib": "matplotlib.pyplot"}  # as the images' PRELOAD

paths = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
paths |= {os.path.realpath(path) for path in paths}
print(
    json.dumps(
        {
            "Version": sys.version_info[:3],
            "Executable": sys.executable,
            "Prefixes": sorted(paths),
            "Preload": [module for name, module in WORTHWHILE.items() if importlib.util.find_spec(name)],
            "Ctypes": importlib.util.find_spec("_ctypes") is not None,
        }
    )
)
