"""Forks a process that has the same number in its own pid namespace as in the sandbox's, which /proc shows.

os.getpid() then names the process's own folder in /proc. Its children keep step: both namespaces give numbers in sequence,
and while a program runs, no other process of the sandbox forks."""

import ctypes
import os

from kernel import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

CLONE3 = 435  # the number of the system call, on all machines
CLONE_CHILD_CLEARTID = 0x00200000
CLONE_CHILD_SETTID = 0x01000000
PR_GET_TID_ADDRESS = 40  # prctl(2)

python = ctypes.PyDLL(None)  # its functions keep the interpreter's lock, as fork needs it
python.syscall.restype = ctypes.c_long


class CloneArguments(ctypes.Structure):
    """The arguments of clone3(2)."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in "flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size".split()
    ]


def number_of(handle: int) -> int:
    """Returns the number of a process in the namespace that /proc shows, given its pidfd. Raises OSError."""
    with open(f"/proc/self/fdinfo/{handle}") as lines:
        return next(int(line[4:]) for line in lines if line.startswith("Pid:"))


def fork_as(number: int) -> int:
    """Forks like os.fork. The child gets a number in its pid namespace, if the kernel allows that and it is free. The C
    library keeps a thread's number in memory; as in its own fork, the kernel writes the new one there."""
    address = ctypes.c_ulong()
    if libc.prctl(PR_GET_TID_ADDRESS, ctypes.addressof(address), 0, 0, 0) != 0:
        return os.fork()
    numbers = (ctypes.c_int32 * 1)(number)
    arguments = CloneArguments(
        flags=CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID,
        child_tid=address.value,
        exit_signal=_signal.SIGCHLD,
        set_tid=ctypes.addressof(numbers),
        set_tid_size=1,
    )
    python.PyOS_BeforeFork()
    pid: int = python.syscall(CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return os.fork() if pid < 0 else pid
