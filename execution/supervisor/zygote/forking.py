"""Gives processes the same numbers in their own pid namespace as in the sandbox's, which /proc shows.

os.getpid() then names the process's own folder in /proc. The first process gets its number by clone3(2). From then on both
namespaces give numbers in sequence, and while a program runs, no other process of the sandbox forks. So it is enough to
make the namespace's sequence go on where the sandbox's is."""

import _thread
import ctypes
import os

from handover import NUMBER_FD
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
ROBUST_LIST_CALLS = {"x86_64": (273, 274), "aarch64": (99, 100)}  # set_robust_list(2) and get_robust_list(2)
# The last number that the pid namespace of the reading or writing process gave. Kernels may be built without it.
LAST_NUMBER = "/proc/sys/kernel/ns_last_pid"
OPENED = int(os.environ.pop("VIVARIUM_LAST_NUMBER", "-1"))  # its descriptor, from a backend that makes it read-only

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
    info = os.open(f"/proc/self/fdinfo/{handle}", os.O_RDONLY)
    try:
        return int(os.read(info, 4096).partition(b"\nPid:")[2].split(None, 1)[0])
    finally:
        os.close(info)


class Forker:
    """Forks like os.fork, and chooses the number that the child gets in its pid namespace. The C library keeps a thread's
    number in memory; as in its own fork, the kernel writes the new one there. Handlers of pthread_atfork(3) do not run: the
    zygote has one thread, so there is no lock that they would have to hold."""

    def __init__(self) -> None:
        """Prepares the arguments once: what is made for each fork are pages that each child has to copy."""
        self.numbers = (ctypes.c_int32 * 1)()
        address = ctypes.c_ulong()
        known = libc.prctl(PR_GET_TID_ADDRESS, ctypes.addressof(address), 0, 0, 0) == 0 and address.value
        # musl has the address of a lock there. To write a number to it would block the program's first thread.
        self.works = bool(known) and ctypes.c_int.from_address(address.value).value == _thread.get_native_id()
        self.set_robust_list, get_robust_list = ROBUST_LIST_CALLS.get(os.uname().machine, (0, 0))
        self.robust = ctypes.c_void_p(), ctypes.c_size_t()  # the address and the size of this thread's list
        if not get_robust_list or libc.syscall(get_robust_list, 0, *map(ctypes.byref, self.robust)) != 0:
            self.works = False
        self.arguments = CloneArguments(
            flags=CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID,
            child_tid=address.value,
            exit_signal=_signal.SIGCHLD,
            set_tid=ctypes.addressof(self.numbers),
            set_tid_size=1,
        )

    def fork(self, number: int) -> int:
        """Forks. The child gets the number if the kernel allows that and it is free."""
        if not self.works:
            return os.fork()
        self.numbers[0] = number
        python.PyOS_BeforeFork()
        pid: int = python.syscall(CLONE3, ctypes.byref(self.arguments), ctypes.sizeof(self.arguments))
        if pid == 0:
            libc.syscall(self.set_robust_list, *self.robust)  # as the C library's own fork does
            python.PyOS_AfterFork_Child()
        else:
            python.PyOS_AfterFork_Parent()
        return os.fork() if pid < 0 else pid


def open_last_number() -> int:
    """Opens the file that holds a namespace's last number. Returns -1 where it cannot be written, as in containers behind
    AppArmor: children then have other numbers than /proc shows. To write it takes a capability that no program has."""
    if OPENED >= 0:
        return OPENED
    try:
        return os.open(LAST_NUMBER, os.O_WRONLY)
    except OSError:
        return -1


def number_from(last_number: int) -> None:
    """Has this process's namespace give its next processes the numbers that /proc will show, given the last number of the
    sandbox's namespace. From then on no other process of the sandbox may start one."""
    try:
        os.pwrite(NUMBER_FD, b"%d" % last_number, 0)  # all programs' processes share the offset; others are ignored
    except OSError:
        pass  # there is no such file, or the kernel refuses. The numbers of children then differ
