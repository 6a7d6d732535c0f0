"""Refuses to import psutil where it would be wrong: it looks for a process in /proc by the number that the process has in its
own namespace. Where a sandbox cannot make both numbers equal, only a program's first process has its own. Libraries that use
psutil if they can, such as joblib in its workers, then do without."""

import os

if os.readlink("/proc/self") != str(os.getpid()):
    raise ImportError("psutil cannot be used in this process: /proc knows it by another number")
