"""Quickly checks the limits that no cgroup enforces. The doctor runs this in a sandbox and prints its findings. A line
is "holds" or "fails", a tab, and the limit."""

import ctypes
import errno
import os
import socket

libc = ctypes.CDLL(None, use_errno=True)
# Numbers of system calls that not every C library wraps. Other machines are not checked.
CALLS = {
    "x86_64": {"mq_open": 240, "add_key": 248, "io_setup": 206, "membarrier": 324},
    "aarch64": {"mq_open": 180, "add_key": 217, "io_setup": 0, "membarrier": 283},
}.get(os.uname().machine, {})
PTYS = os.path.exists("/dev/ptmx")


def refused(action):
    """Reports whether the kernel refuses an action."""
    try:
        action()
    except OSError:
        return True
    return False


def denied(name, *arguments):
    """Reports whether a function of the C library fails because the call is denied or missing."""
    return getattr(libc, name)(*arguments) == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)


def has_none_of(name, *arguments):
    """Reports whether a system call is denied or missing. A call whose number is not known counts as missing."""
    return name not in CALLS or denied("syscall", CALLS[name], *arguments)


def keeps_its_buffer():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        before = s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        return s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == before


def tries_access_list():
    with open("/tmp/vivarium-limits", "w"):
        os.setxattr("/tmp/vivarium-limits", "user.x", b"x")


CHECKS = {
    "netlink answers for addresses and routes alone": lambda: all(
        refused(lambda n=n: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, n)) for n in (4, 9, 15, 16)
    ),
    "no protocols but TCP and UDP": lambda: all(
        refused(lambda p=p: socket.socket(socket.AF_INET, p[0], p[1])) for p in ((2, 1), (1, 262), (1, 132), (3, 255))
    ),
    "sockets keep no more than the kernel's default": keeps_its_buffer,
    "no access control lists or attributes of files": lambda: refused(tries_access_list),
    "no inotify, message queues, keys or aio": lambda: denied("inotify_init1", 0)
    and has_none_of("mq_open", b"x", os.O_CREAT | os.O_RDWR, 0o600, None)
    and has_none_of("add_key", b"user", b"x", b"y", 1, -2)
    and has_none_of("io_setup", 1, ctypes.byref(ctypes.c_ulong(0))),
    "no huge pages": lambda: denied("memfd_create", b"x", 4),
    "terminals are those of PTY_LIMIT" if PTYS else "no terminals": lambda: PTYS or refused(os.openpty),
    "nothing writes out the host's disks": lambda: libc.fsync(-1) == 0 and libc.syncfs(-1) == 0,
    "no global memory barriers": lambda: has_none_of("membarrier", 1, 0, 0),
    "the rank when memory runs out cannot be lowered": lambda: refused(
        lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"999")
    ),
    "signals and timers are limited": lambda: 0
    <= next(int(line.split()[3]) for line in open("/proc/self/limits") if line.startswith("Max pending signals"))
    <= 1024,
}

for name, holds in CHECKS.items():
    try:
        print("holds" if holds() else "fails", name, sep="\t")
    except Exception as error:
        print("fails", f"{name} ({type(error).__name__}: {error})", sep="\t")
