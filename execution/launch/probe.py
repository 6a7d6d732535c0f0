"""Checks what a program must find, and must not find, in an inner sandbox. The server runs this twice in one container
before the container may serve many runs. The first run leaves traces everywhere."""

import ctypes
import os
import sys
import time

PLACES = ("/workspace", "/tmp", "/dev/shm")
CLONE_NEWUSER = 0x10000000
libc = ctypes.CDLL(None, use_errno=True)


def marks():
    return [path for path in (place + "/vivarium-probe" for place in PLACES) if os.path.lexists(path)]


def refused(action):
    try:
        action()
    except OSError:
        return True
    return False


def status(*names):
    with open("/proc/self/status") as lines:
        return [line.split()[1] for line in lines if line.startswith(names)]


def make_queue():
    """Creates a message queue, in a folder that no supervisor empties."""
    os.close(os.open("/dev/mqueue/vivarium-probe", os.O_CREAT | os.O_WRONLY, 0o600))


def leave_traces():
    for place in PLACES:
        try:
            open(place + "/vivarium-probe", "w").close()
        except OSError:
            pass
    sys.vivarium_probe = os.environ["VIVARIUM_PROBE"] = "left"
    if os.fork() == 0:
        os.setsid()
        while True:
            time.sleep(60)


def others():
    """Returns the processes that another run left behind. The files of the supervisor's processes cannot be listed."""
    pids = (pid for pid in os.listdir("/proc") if pid.isdigit() and pid != os.readlink("/proc/self"))
    return [pid for pid in pids if not refused(lambda: os.listdir(f"/proc/{pid}/fd"))]


CHECKS = {
    "a process namespace of its own": lambda: os.getppid() == 0 and os.getpid() > 1,
    "no capabilities": lambda: set(status("Cap")) == {"0" * 16},
    "no new privileges, and a filter of system calls": lambda: status("NoNewPrivs:", "Seccomp:") == ["1", "2"],
    "no further namespaces": lambda: libc.unshare(CLONE_NEWUSER) == -1,
    "the supervisor's memory is closed": lambda: refused(lambda: open("/proc/1/mem", "rb").close()),
    "the supervisor's files are closed": lambda: refused(lambda: os.listdir("/proc/1/fd")),
    "no message queues": lambda: refused(make_queue),
    "no files of another run": lambda: not marks(),
    "no processes of another run": lambda: not others(),
    "no state of another run": lambda: not hasattr(sys, "vivarium_probe") and "VIVARIUM_PROBE" not in os.environ,
}

for name, holds in CHECKS.items():
    try:
        print("holds" if holds() else "fails", name, sep="\t")
    except Exception as error:
        print("fails", f"{name} ({type(error).__name__}: {error})", sep="\t")
leave_traces()
