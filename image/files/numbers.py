"""Refuses to import psutil where it would be wrong: it looks for a process in /proc by the number that the process has in its
own namespace. Where a sandbox cannot make both numbers equal, only the first process has the number that /proc shows. Libraries that use
psutil if they can, such as joblib in its workers, then do without."""

import os

if os.readlink("/proc/self") != str(os.getpid()):
    raise ImportError("psutil cannot be used in this process: /proc knows it by another number")
