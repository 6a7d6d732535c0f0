"""System calls that Python has no name for, and what processes do to themselves: signals, limits, powers.

Every process of a sandbox uses this module, so it is the first that is loaded."""

import sys

PLAIN_MODULES = frozenset(sys.modules)  # those that every interpreter has imported when a program begins

import ctypes
import os
import resource
import struct

from errno import EINVAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable
else:
    import _signal

CHUNK = 1 << 16  # bytes read at a time

# prctl(2)
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

CAPABILITY_VERSION_3 = 0x20080522  # capset(2)

# landlock(7); the numbers of the system calls are the same on all machines
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_ACCESS_FS_WRITE_FILE = 1 << 1
LANDLOCK_ACCESS_FS_REFER = 1 << 13

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]


def system(name: str, *arguments: object) -> int:
    """Calls a function of the C library that returns -1 and sets errno when it fails. Raises OSError then."""
    result: int = getattr(libc, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def prctl(option: int, argument: int = 0, second: int = 0) -> None:
    """Changes an attribute of this process. Raises OSError."""
    system("prctl", option, argument, second, 0, 0)


def set_dumpable(on: bool) -> None:
    """Says whether processes of the same user may trace this one and open its /proc entries (prctl(2))."""
    prctl(PR_SET_DUMPABLE, int(on))


def drop_bounding_set() -> None:
    """Sees to it that no process after this one can gain a capability by executing a file."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == EINVAL:
                return  # the kernel has no more of them
            raise


def drop_capabilities() -> None:
    """Gives up every capability for good."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    system("capset", header, (ctypes.c_uint32 * 6)())


def hide_arguments() -> None:
    """Takes all but the interpreter's name out of this process's command line: programs can read that of PID 1, and the
    supervisor's source stands there. Where the last byte is not zero, the kernel shows the text up to the first zero.
    """
    with open("/proc/self/stat", "rb") as file:
        fields_behind_name = file.read().rpartition(b")")[2].split()
    start, end = (int(field) for field in fields_behind_name[45:47])  # arg_start and arg_end, proc_pid_stat(5)
    name = ctypes.string_at(start) if start else b""
    if start + len(name) + 1 < end:
        ctypes.memset(start + len(name), 0, end - start - len(name))
        ctypes.memset(end - 1, 1, 1)


def make_landlock_rules() -> int:
    """Makes rules for Landlock by which nothing in /proc can be written, where a process could lower its rank among the
    victims of the kernel, say. Returns their descriptor, or -1 where the kernel has no Landlock, or one that would not
    let files be moved from folder to folder (before Linux 5.19)."""
    allowed_access = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REFER
    attributes = struct.pack("Q", allowed_access)
    rules: int = libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        return -1
    for name in os.listdir("/"):
        if name != "proc":
            try:
                place = os.open("/" + name, os.O_PATH | os.O_DIRECTORY)
            except OSError:
                continue  # it is a file, which nobody can write
            allowed = struct.pack("=Qi", allowed_access, place)
            system("syscall", LANDLOCK_ADD_RULE, rules, LANDLOCK_RULE_PATH_BENEATH, allowed, 0)
            os.close(place)
    return rules


def restrict_self(rules: int) -> None:
    """Puts this process and all that it starts behind rules of Landlock, and closes them."""
    if rules >= 0:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        system("syscall", LANDLOCK_RESTRICT_SELF, rules, 0)
        os.close(rules)


class Filter:
    """A seccomp filter, ready to be installed. Empty, it installs nothing."""

    def __init__(self, encoded: str) -> None:
        self.instructions = ctypes.create_string_buffer(bytes.fromhex(encoded))
        count = len(encoded) // 16  # of 8 bytes, two digits each
        address = ctypes.addressof(self.instructions)
        self.program = ctypes.create_string_buffer(struct.pack("HP", count, address)) if count else None

    def install(self) -> None:
        """Puts this process and all that it starts behind the filter."""
        if self.program is not None:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(self.program))


def set_signals(action: "_signal.Handlers", excluded: "tuple[int, ...]") -> None:
    """Gives every signal an action, but for those that are excluded, or that the kernel or the C library reserve."""
    for number in range(1, _signal.NSIG):
        if number not in excluded:
            try:
                _signal.signal(number, action)
            except (OSError, ValueError):
                pass


def ignore_signals() -> None:
    """Ignores every signal that can be ignored. SIGCHLD keeps its default: ignored, it would hide exit statuses."""
    set_signals(_signal.SIG_IGN, (_signal.SIGCHLD,))


def default_signals(*excluded: int) -> None:
    """Undoes ignore_signals, but for what Python itself ignores and what is excluded: this process ignores every signal,
    its child must not. Nothing is handled yet."""
    set_signals(_signal.SIG_DFL, (_signal.SIGPIPE, _signal.SIGXFSZ, *excluded))


def write_all(fd: int, data: "bytes | bytearray") -> None:
    """Writes all of it, however many calls that takes. The descriptor must block. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def close_all(fds: "Iterable[int]") -> None:
    """Closes descriptors."""
    for fd in fds:
        os.close(fd)


def read_to_end(fd: int) -> bytes:
    """Reads a pipe until its writers have closed it, then closes it too."""
    parts = []
    while part := os.read(fd, CHUNK):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)


def be_first_victim() -> None:
    """Has the kernel, when it runs out of memory, take this process before the supervisor. It cannot go back below what
    the backend gave the whole sandbox, nor at all where restrict_self follows."""
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(score, b"1000")
    os.close(score)


def limit(kind: int, soft: int, hard: int) -> None:
    """Sets a limit of this process's, or leaves a lower one that stands already, and that nobody here may raise."""
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(kind, (soft, hard))
