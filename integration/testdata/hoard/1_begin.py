"""Has the kernel keep memory in every way that is known. Each way holds what it can in a process of its own; then the
host's memory is compared with what the cgroup counts. Prints a line a way: a verdict, the way, megabytes that the host
lacks, megabytes that are counted, and what stopped it.

Constants that come before this text: ONLY, names of ways with spaces between, or "" for all that no watch ends; ENDED,
names of ways that a watch ends on this host alone; SLACK, megabytes by which a way may differ; COUNTED, whether a cgroup
counts memory; LIMIT, megabytes of the sandbox; SECONDS, how long a way may go on.
"""

import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
MOST = 256 << 20  # bytes of the host's memory at which a way has shown enough
ENOUGH = LIMIT << 19  # half of the sandbox's memory: what is counted need not come to the limit


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def host():
    """Bytes of the host's memory that are not available."""
    with open("/proc/meminfo") as lines:
        found = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    return found["MemTotal"] - found["MemAvailable"]


def counted():
    """Bytes that the cgroup counts; with version 1 those of sockets have a count of their own."""
    total = 0
    for name in ("memory.current", "memory/memory.usage_in_bytes", "memory/memory.kmem.tcp.usage_in_bytes"):
        try:
            with open("/sys/fs/cgroup/" + name) as file:
                total += int(file.read())
        except OSError:
            pass
    return total


class Hold:
    """What a way keeps, and when it has shown enough."""

    def __init__(self):
        self.kept = []
        self.began = time.monotonic()
        self.before = host(), counted()
        self.n = 0

    def more(self):
        self.n += 1
        if self.n % 8 == 1 and (host() - self.before[0] > MOST or counted() - self.before[1] > ENOUGH):
            return False
        return time.monotonic() - self.began < SECONDS


WAYS, WATCHED = {}, {}


def way(action):
    WAYS[action.__name__] = action


def watched(action):
    """Marks a way that the supervisor ends, and all else of the run with it."""
    WATCHED[action.__name__] = action


def fill(sender, data, most=1 << 30):
    sender.setblocking(False)
    sent = 0
    try:
        while sent < most:
            sent += sender.send(data)
    except OSError:
        pass
    return sent


def wide(s):
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        s.setsockopt(socket.SOL_SOCKET, option, 1 << 30)
    return s
