"""System calls that Python does not wrap, and what a process does to itself: signals, limits, privileges.

Every process of a sandbox uses this module, so it is loaded first."""

import sys

PLAIN_MODULES = frozenset(sys.modules) - {__name__}  # the modules that every interpreter has imported at its start

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

CHUNK = 1 << 16  # bytes per read

# prctl(2)
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

CAPABILITY_VERSION_3 = 0x20080522  # capset(2)
CAP_CHECKPOINT_RESTORE = 40  # capabilities(7), from Linux 5.9 on

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
libc.capset.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
# The arguments of capset(2) that drop everything, and those that keep what it takes to number processes: 32 effective, 32
# permitted and 32 inheritable ones, then the higher ones. To make them takes 0.1 ms, which each program's process would pay.
CAPABILITY_HEADER = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
NO_CAPABILITIES = (ctypes.c_uint32 * 6)()
TO_NUMBER = (ctypes.c_uint32 * 6)(0, 0, 0, *[1 << (CAP_CHECKPOINT_RESTORE - 32)] * 2, 0)


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
    """Sets whether processes of the same user may trace this one and open its /proc entries (prctl(2))."""
    prctl(PR_SET_DUMPABLE, int(on))


def drop_bounding_set() -> None:
    """Ensures that no descendant of this process can gain a capability by executing a file. Raises OSError."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == EINVAL:
                return  # the kernel knows no more capabilities
            raise


def drop_capabilities(kept: "ctypes.Array[ctypes.c_uint32]" = NO_CAPABILITIES) -> None:
    """Drops every capability that is not kept, permanently. Raises OSError."""
    system("capset", CAPABILITY_HEADER, kept)


def hide_arguments() -> None:
    """Erases all but the interpreter's name from this process's command line. Programs can read that of PID 1, and it
    contains the supervisor's source. If the last byte is not zero, the kernel shows the text up to the first zero."""
    with open("/proc/self/stat", "rb") as file:
        fields_behind_name = file.read().rpartition(b")")[2].split()
    start, end = (int(field) for field in fields_behind_name[45:47])  # arg_start and arg_end, proc_pid_stat(5)
    name = ctypes.string_at(start) if start else b""
    if start + len(name) + 1 < end:
        ctypes.memset(start + len(name), 0, end - start - len(name))
        ctypes.memset(end - 1, 1, 1)


def make_landlock_rules() -> int:
    """Creates Landlock rules that deny writing to /proc, where a process could lower its oom_score_adj, for example.
    Returns their descriptor. Returns -1 where the kernel has no Landlock, or one that forbids moving files between
    folders (before Linux 5.19)."""
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
                continue  # it is a file, which programs cannot write
            allowed = struct.pack("=Qi", allowed_access, place)
            system("syscall", LANDLOCK_ADD_RULE, rules, LANDLOCK_RULE_PATH_BENEATH, allowed, 0)
            os.close(place)
    return rules


def restrict_self(rules: int) -> None:
    """Applies Landlock rules to this process and its descendants, and closes the descriptor. Does nothing for -1."""
    if rules >= 0:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        system("syscall", LANDLOCK_RESTRICT_SELF, rules, 0)
        os.close(rules)


class FilterPart:
    """A seccomp filter, ready to be installed. An empty one installs nothing."""

    def __init__(self, encoded: str) -> None:
        self.instructions = ctypes.create_string_buffer(bytes.fromhex(encoded))
        count = len(encoded) // 16  # an instruction has 8 bytes, or 16 digits
        address = ctypes.addressof(self.instructions)
        self.program = ctypes.create_string_buffer(struct.pack("HP", count, address)) if count else None

    def install(self) -> None:
        """Applies the filter to this process and its descendants. Raises OSError."""
        if self.program is not None:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(self.program))


class Filter:
    """The seccomp filter of programs, in two parts. A process that forks many programs installs the first, larger one once:
    for each program it would take 0.1 ms."""

    def __init__(self, first: str, second: str) -> None:
        self.first = FilterPart(first)
        self.second = FilterPart(second)
        self.confined = False  # this process, or one that it was forked from, has installed the first part

    def confine(self) -> None:
        """Applies the first part to this process and its descendants, once. Raises OSError."""
        if not self.confined:
            self.first.install()
            self.confined = True

    def install(self) -> None:
        """Applies the filter to this process and its descendants. Raises OSError."""
        self.confine()
        self.second.install()


def set_signals(action: "_signal.Handlers", excluded: "tuple[int, ...]") -> None:
    """Sets the action of every signal, except those excluded and those that the kernel or the C library reserves."""
    for number in range(1, _signal.NSIG):
        if number not in excluded:
            try:
                _signal.signal(number, action)
            except (OSError, ValueError):
                pass


def ignore_signals() -> None:
    """Ignores every signal that can be ignored. SIGCHLD keeps its default: ignoring it would lose exit statuses."""
    set_signals(_signal.SIG_IGN, (_signal.SIGCHLD,))


def default_signals(*excluded: int) -> None:
    """Undoes ignore_signals in a child, except for the excluded signals and those that Python itself ignores. No signal
    may have a handler yet."""
    set_signals(_signal.SIG_DFL, (_signal.SIGPIPE, _signal.SIGXFSZ, *excluded))


def write_all(fd: int, data: "bytes | bytearray") -> None:
    """Writes all of data, in as many calls as that takes. The descriptor must block. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def return_memory() -> None:
    """Returns free pages of the heap to the kernel, where the C library can. Every fork would copy their entries."""
    if trim := getattr(libc, "malloc_trim", None):
        trim(0)


COLLAPSE = 25  # madvise(2), since Linux 6.1


def use_huge_pages() -> None:
    """Moves this process's memory to transparent huge pages, where the kernel can. A fork then copies one entry for 2 MB,
    instead of 512."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            area, access, *_, inode = line.split()[:5]
            if access == "rw-p" and inode == "0":
                start, end = (int(address, 16) for address in area.split("-"))
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), COLLAPSE)


def close_all(fds: "Iterable[int]") -> None:
    """Closes descriptors."""
    for fd in fds:
        os.close(fd)


def read_to_end(fd: int) -> bytes:
    """Reads a pipe until all writers have closed it, then closes it. Returns what it read."""
    parts = []
    while part := os.read(fd, CHUNK):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)


def be_first_victim() -> None:
    """Makes the kernel kill this process before the supervisor when memory runs out. The process can lower its score
    again only to what the backend set for the sandbox, and not at all after restrict_self."""
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(score, b"1000")
    os.close(score)


def limit(kind: int, soft: int, hard: int) -> None:
    """Sets a limit of this process. A lower limit that is already set stays: a process here cannot raise it."""
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(kind, (soft, hard))
