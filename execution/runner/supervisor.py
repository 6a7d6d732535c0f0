"""The supervisor: PID 1 of a sandbox. It runs programs that nobody has read and reports how they went.

The server passes this file on the command line (see main for the arguments, and bootstrap.py for how it is compiled),
so any image with Python 3.9 or newer will do; it imports little, because every sandbox waits for it. It talks to the
server over its own stdin and stdout in frames: one byte of kind, four bytes of big-endian length, the payload.
frames.go beside this file documents every kind.

With ISOLATION=container it forks the process that runs the one program, and ends with it. With ISOLATION=run it serves
many, each in a fresh inner sandbox, by way of a second process, the zygote:

    supervisor   PID 1; talks to the server, stages and collects files, keeps the time; never forks again
    zygote       makes a pid and an ipc namespace for each run and forks the program's process into them; it never
                 sees a byte of any program's, so none can find another's in the memory that it is a copy of

What must hold, whatever the program does:
  * Nobody but this process reads or writes fds 0 and 1: it is not dumpable, and the program's process closes
    what it inherited before it makes itself dumpable again.
  * A run ends when its main process ends, never at the end of its pipes. Then everything else is killed.
  * Nothing of a run is left when the next begins; where that is in doubt, this process exits.
  * When the server falls silent, or no longer reads, this process exits and the kernel ends the sandbox with it.
  * This process answers the server's pings within a second, and shows that it is alive (Channel.breathe) in whatever
    takes longer: the server destroys a sandbox that shows no sign of life for two.
"""

import sys

PLAIN_MODULES = frozenset(sys.modules)  # those that every interpreter has imported when a program begins

import _ast
import _socket
import atexit
import ctypes
import gc
import io
import os
import resource
import select
import stat
import struct
import time

from errno import EBUSY, EINVAL, ELOOP, ENOSPC, ENOSYS, EPERM

# typing, signal and json would add 25 ms to the start of every sandbox (their own imports are large), so the types
# are for mypy's eyes only, the signals come from the C module, and the protocol is no JSON.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable, Iterator
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType, TracebackType
    from typing import Any, NoReturn, Optional
else:
    import _signal

PROTOCOL = 3
PYTHON = ".".join(map(str, sys.version_info[:3]))
MAIN_FILE = "__main__.py"  # reserved in the workspace: the program itself
SKELETON = "/opt/vivarium/home"  # what an image wants linked into every program's home
PRELOAD = "/opt/vivarium/preload"  # a file that names the modules that an image wants imported ahead
PLACES = ("/tmp", "/dev/shm")  # where programs can write, beside the workspace
MAX_FRAME = 1 << 20  # bytes of payload that the server may send in one frame
CHUNK = 1 << 16  # bytes read at a time
PIPE = 1 << 18  # bytes that may be under way to the server, and from it
MAX_DEPTH = 31  # folders below the workspace that are searched for files
MAX_PATH = 1024  # bytes of a path that is returned; the server takes no longer or deeper ones (execution.PathFault)
MAX_ENTRIES = 20_000  # directory entries that are looked at
SHARED_SLACK = 1 << 20  # bytes by which the kernel's count of shared memory may be off
# Of each process of a program; the zygote may have more (see Zygote.serve). Taken out of the environment, as is
# VIVARIUM_WATCH_MEMORY: programs have no business with it.
OPEN_FILES = int(os.environ.pop("VIVARIUM_OPEN_FILES", "1024"))
LEAST_OPEN_FILES = 128  # that a process must be able to have for its part of the supervisor to work
PTYS = int(os.environ.pop("VIVARIUM_PTYS", "0"))  # pseudo-terminals that programs may have open
SHARED_NETWORK = "VIVARIUM_SHARED_NETWORK" in os.environ  # not all sockets here are this sandbox's
os.environ.pop("VIVARIUM_SHARED_NETWORK", None)
# What the kernel keeps for programs outside of the memory cgroup; see KernelWatch.
MAX_SOCKETS = 512
FEW_SOCKETS = 16  # which are not looked at closer
MAX_UNREAD = 32 << 20  # bytes in the queues of IP and netlink sockets
SOCKET_BYTES = 212_992  # that a Unix socket may have sent and nobody has read (net.core.wmem_default)
PENDING_BYTES = 4096  # of a connection that nobody has accepted, beside its data
MAX_LOCKS = 10_000
LOCKS_SECONDS = 0.25  # how often locks are counted
RULES_FD = 62  # the rules of Landlock, on their way into a program's process
DONE_FD = 63  # where a program's process says that it is over; see Farewell
WATCH_SECONDS = 0.05  # how often memory is looked at that no cgroup bounds
CLOSER_SECONDS = 0.25  # how long it may take to find out what of it is shared
SMALL = 1 << 20  # bytes of memory of a process that need not be killed for it
LOOKS = 5  # at most, at once, where those who were to be killed have gone
THREAD_LOOKS = 5  # for a thread of a process that is still there
STARTING_SECONDS = 0.2  # for which a new process may be about to become another program
BREATH_SECONDS = 0.4  # of saying nothing, after which long work shows that this process is alive
REAP_SECONDS = 0.25  # how often orphans of a running program are buried
MAX_PEAK_KB = 1 << 32  # that a program may claim to have used
LINGER_SECONDS = 0.001  # between looks at killed processes that take their time to go
BURY_SECONDS = 2  # that killed processes may take to go
FREE_SECONDS = 1  # that the kernel may take to free their memory
MAX_POSTED = 1 << 18  # bytes of output that wait to be sent together
MAX_DRAIN = 1 << 21  # bytes that a pipe may still hold: twice what a program can ask for (pipe-max-size)
MAX_LEFTOVERS = 2000  # what a run may leave for us to delete; beyond it the sandbox is given up
MAX_LEFT_DEPTH = 64
CLOCK_REALTIME_COARSE = 5  # the time module has no name for it
REHEARSE_SECONDS = 0.03  # how long a program's process waits for its code before it rehearses
FUTURE_FLAGS = 0x1FE0000  # CO_FUTURE_*: what "from __future__ import" sets in a code object
COROUTINE_FLAG = 0x80  # CO_COROUTINE: set in a code object that awaits


# --- System calls that Python has no name for -----------------------------------------------------------------

# prctl(2)
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

# clone(2), unshare(2), setns(2)
CLONE_VM = 0x100
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
# Why the kernel refuses namespaces, as the server knows it (execution.Cause).
UNSHARE_CAUSES = {EPERM: "namespaces_denied", ENOSPC: "namespaces_exhausted", ENOSYS: "namespaces_missing"}

CAPABILITY_VERSION_3 = 0x20080522  # capset(2)

F_SETPIPE_SZ = 1031  # fcntl(2)

# landlock(7); the numbers of the system calls are the same on all machines
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_ACCESS_FS_WRITE_FILE = 1 << 1
LANDLOCK_ACCESS_FS_REFER = 1 << 13

FS_IOC_GETFLAGS = 0x80086601  # ioctl_iflags(2)
FS_IOC_SETFLAGS = 0x40086602

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


def make_rules() -> int:
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


def obey(rules: int) -> None:
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


# --- The connection to the server -----------------------------------------------------------------------------


class Gone(Exception):
    """The server is gone or stopped reading: there is nobody to work for. Or this sandbox is of no more use."""


class Unable(Exception):
    """This sandbox cannot be what it was asked to be. The cause is a code of execution.Cause, or ""."""

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause


def widen(pipe: int) -> None:
    """Lets more bytes wait in a pipe than it holds at first (64 KB). On their way to the server and back they change
    hands several times, and each waits for the other side of a full pipe: files take half as long. The kernel refuses
    where this user's pipes are many, or where it is none; then it goes as it went."""
    libc.fcntl(pipe, F_SETPIPE_SZ, PIPE)


class Channel:
    """The framed connection to the server."""

    def __init__(self, receive_fd: int, send_fd: int, silence: float) -> None:
        self.receive_fd = receive_fd
        self.send_fd = send_fd
        self.silence = silence  # seconds after which a quiet server counts as gone
        self.heard = self.said = time.monotonic()
        self.buffer = bytearray()
        self.posted = bytearray()
        self.listening = select.poll()
        self.listening.register(receive_fd, select.POLLIN)
        self.both = select.poll()
        self.both.register(receive_fd, select.POLLIN)
        self.both.register(send_fd, select.POLLOUT)
        os.set_blocking(send_fd, False)

    def post(self, kind: bytes, payload: bytes = b"") -> None:
        """Puts one frame behind those that the next send or flush sends: each write wakes four processes up to the
        server's."""
        self.posted += kind + struct.pack(">I", len(payload)) + payload

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Sends one frame and those before it. Raises Gone when the server is."""
        self.post(kind, payload)
        self.flush()

    def flush(self) -> None:
        """Sends what was posted. The server may take its time (it stores files while they come) as long as it is heard
        of. Raises Gone when it is not."""
        while self.posted:
            try:
                self.push()
            except BlockingIOError:
                for ready, _ in self.both.poll(self.silence_left() * 1000 + 1):
                    if ready == self.receive_fd:
                        self.read_available()
            except OSError as error:
                raise Gone(str(error)) from error

    def push(self) -> None:
        """Sends as much of what was posted as there is room for. Raises OSError, BlockingIOError where there is none."""
        del self.posted[: os.write(self.send_fd, self.posted)]
        self.said = time.monotonic()

    def pong(self) -> None:
        """Shows the server that this process is alive. Waits for nothing and raises nothing: where there is no room, the
        server has something to read, and a server that is gone shows elsewhere."""
        if not self.posted:  # else that will do
            self.post(b"P")
        try:
            self.push()
        except OSError:
            pass

    def breathe(self) -> None:
        """The same, if nothing was said for a while. Call it now and again in whatever may take long."""
        if time.monotonic() - self.said >= BREATH_SECONDS:
            self.pong()

    def breathing(self, things: "Iterable[Found]") -> "Iterator[Found]":
        """Breathes while things are gone through."""
        for thing in things:
            self.breathe()
            yield thing

    def begin_job(self) -> None:
        """Counts a job's beginning as something said: a short run is to say nothing but its report."""
        self.said = time.monotonic()

    def tear(self, reason: str) -> None:
        """Deals with a file that cannot be sent to its end, though nobody can write it any more. Raises Gone."""
        raise Gone(reason)

    def read_available(self) -> None:
        """Takes what the server has sent; call it when the descriptor is readable. Raises Gone at the end."""
        data = os.read(self.receive_fd, CHUNK)
        if not data:
            raise Gone("the server closed the connection")
        self.heard = time.monotonic()
        self.buffer += data

    def silence_left(self) -> float:
        """Seconds until the server counts as gone, unless it has said something by now. Raises Gone when it does."""
        left = self.heard + self.silence - time.monotonic()
        if left <= 0 and not self.listening.poll(0):
            raise Gone("the server fell silent")
        return max(left, 0)

    def next_buffered(self) -> "Optional[tuple[bytes, bytes]]":
        """The next complete frame (kind, payload) of what has arrived, or None."""
        if len(self.buffer) < 5:
            return None
        (size,) = struct.unpack_from(">I", self.buffer, 1)
        if size > MAX_FRAME:
            raise Gone(f"a frame of {size} bytes")
        if len(self.buffer) < 5 + size:
            return None
        kind, payload = bytes(self.buffer[:1]), bytes(self.buffer[5 : 5 + size])
        del self.buffer[: 5 + size]
        return kind, payload

    def wait(self, fd: int, patience: float = 3600) -> bool:
        """Waits until the server has said something, or fd is readable: then it returns True. Gives up after seconds of
        patience. Raises Gone when the server is."""
        readable = select.poll()
        readable.register(self.receive_fd, select.POLLIN)
        readable.register(fd, select.POLLIN)
        for ready, _ in readable.poll(min(self.silence_left(), patience) * 1000 + 1):
            if ready == fd:
                return True
            self.read_available()
        return False

    def receive(self, program_end: int) -> "tuple[bytes, bytes]":
        """Waits for the next frame that is not a ping, and answers those that are. Raises Gone when the server is, or the
        program's process."""
        while True:
            frame = self.next_buffered()
            if frame is None:
                if self.buffer:
                    self.breathe()  # a large frame may come slowly
                if self.wait(program_end):
                    raise Gone("the program's process ended before its code came")
            elif frame[0] == b"P":
                self.pong()
            else:
                return frame


def fields(**values: object) -> bytes:
    """Writes `name=value` lines."""
    return "".join(f"{name}={value}\n" for name, value in values.items()).encode()


def parse_fields(payload: bytes) -> "dict[str, int]":
    """Reads `name=number` lines, the form of a job's limits."""
    return {name: int(value) for name, _, value in (line.partition("=") for line in payload.decode().splitlines())}


# --- The program's own process -------------------------------------------------------------------------------


def set_signals(action: "_signal.Handlers", spared: "tuple[int, ...]") -> None:
    """Gives every signal an action, but for those that are spared, or that the kernel or the C library reserve."""
    for number in range(1, _signal.NSIG):
        if number not in spared:
            try:
                _signal.signal(number, action)
            except (OSError, ValueError):
                pass


def ignore_signals() -> None:
    """Ignores every signal that can be ignored. SIGCHLD keeps its default: ignored, it would hide exit statuses."""
    set_signals(_signal.SIG_IGN, (_signal.SIGCHLD,))


def default_signals(*spared: int) -> None:
    """Undoes ignore_signals, but for what Python itself ignores and what is spared: this process ignores every signal,
    its child must not. Nothing is handled yet."""
    set_signals(_signal.SIG_DFL, (_signal.SIGPIPE, _signal.SIGXFSZ, *spared))


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


def compile_program(source: bytes, path: str, interactive: bool) -> "list[CodeType]":
    """Compiles the program; when interactive and its last statement is an expression, that one as a REPL would. Code
    that awaits outside of functions becomes a coroutine's."""
    flags: int = _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(source, path, "exec", _ast.PyCF_ONLY_AST | flags, dont_inherit=True)
    last = tree.body[-1] if interactive and tree.body else None
    if not isinstance(last, _ast.Expr):
        return [compile(tree, path, "exec", flags, dont_inherit=True)]
    tree.body.pop()
    body: "CodeType" = compile(tree, path, "exec", flags, dont_inherit=True)
    flags |= body.co_flags & FUTURE_FLAGS
    return [body, compile(_ast.Interactive([last]), path, "single", flags, dont_inherit=True)]


def make_main(path: str) -> "ModuleType":
    """Makes the `__main__` that the program runs in, as `python3 FILE` would."""
    main = type(sys)("__main__")
    main.__dict__.update(__builtins__=sys.modules["builtins"], __file__=path, __cached__=None)
    sys.modules["__main__"] = main
    sys.argv[:] = [path]
    sys.path.insert(0, os.path.dirname(path))
    sys.dont_write_bytecode = True  # a staged module must not leave a __pycache__ among the results
    return main


def unbuffered(fd: int, errors: str) -> io.TextIOWrapper:
    """A text stream as `python3 -u` has it: a program that is killed has printed what it printed."""
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, newline="\n", write_through=True)


def exit_status_of(stop: SystemExit) -> int:
    """The exit status that sys.exit(x) asks for; a message is printed, as the interpreter does."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF if -(1 << 31) <= stop.code < 1 << 31 else 0xFF
    print(stop.code, file=sys.stderr)
    return 1


OURS = [globals()]  # of the modules whose frames no traceback shows


def is_ours(trace: "TracebackType") -> bool:
    """Whether a traceback begins with a frame of the supervisor's."""
    return any(trace.tb_frame.f_globals is ours for ours in OURS)


def without_ours(trace: "Optional[TracebackType]") -> "Optional[TracebackType]":
    """A traceback without the supervisor's frames: those around the program, and those that it has called."""
    while trace is not None and is_ours(trace):
        trace = trace.tb_next
    here = trace
    while here is not None:
        while here.tb_next is not None and is_ours(here.tb_next):
            here.tb_next = here.tb_next.tb_next
        here = here.tb_next
    return trace


def report(error: BaseException) -> None:
    """Prints a traceback as the interpreter does, without the frames of this file."""
    error.__traceback__ = trace = without_ours(error.__traceback__)
    try:
        sys.excepthook(type(error), error, trace)
    except BaseException as hook_error:
        print("Error in sys.excepthook:", file=sys.stderr)
        sys.__excepthook__(type(hook_error), hook_error, hook_error.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, trace)


async def run_coroutines(codes: "list[CodeType]", namespace: "dict[str, object]") -> "Optional[BaseException]":
    """Runs code of which some awaits, and returns what it raised: from here the event loop's frames, which are not the
    program's, are not in the traceback. A cancellation is for the loop to judge."""
    try:
        for code in codes:
            coroutine = eval(code, namespace)
            if code.co_flags & COROUTINE_FLAG:
                await coroutine
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return error
    return None


def run_codes(codes: "list[CodeType]", namespace: "dict[str, object]") -> None:
    """Runs code, all of it in one event loop if any of it awaits."""
    if any(code.co_flags & COROUTINE_FLAG for code in codes):
        import asyncio  # takes 30 ms, and only these programs need it

        if error := asyncio.run(run_coroutines(codes, namespace)):
            raise error
        return
    for code in codes:
        exec(code, namespace)


def execute(source: bytes, path: str, interactive: bool) -> int:
    """Runs the program in a fresh `__main__` and returns its exit status."""
    namespace = make_main(path).__dict__
    try:
        run_codes(compile_program(source, path, interactive), namespace)
    except SystemExit as stop:
        return exit_status_of(stop)
    except KeyboardInterrupt as interrupt:
        report(interrupt)
        return -_signal.SIGINT
    except BaseException as error:
        report(error)
        return 1
    return 0


# --- What programs show --------------------------------------------------------------------------------------

PYPLOT = "matplotlib.pyplot"


def rendered(value: object, method: str, kind: "type[bytes] | type[str]") -> "Optional[bytes | str]":
    """What a notebook would get from one of a value's methods for it, or None. The value may be anything, and its
    method may fail: there is still its text."""
    if not hasattr(type(value), method):
        return None
    try:
        data = getattr(value, method)()
    except Exception:
        return None
    if isinstance(data, tuple) and data:
        data = data[0]  # the rest is metadata
    return data if isinstance(data, kind) else None


def is_a(value: object, module: str, name: str) -> bool:
    """Whether a value is of a class of a module, if that is imported. A module of that name may be the program's own,
    and have something else under the class's."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and issubclass(type(value), kind)


class Shows:
    """What programs show besides text: as a notebook would, but saved in the workspace."""

    def __init__(self) -> None:
        self.workspace = ""
        self.numbers: "dict[str, int]" = {}  # the last of each kind of file

    def install(self, workspace: str) -> None:
        """Gives this process and its forks `display`, and a plt.show that saves."""
        self.workspace = workspace
        sys.modules["builtins"].__dict__["display"] = self.display
        sys.displayhook = self.display_last
        sys.meta_path.insert(0, PyplotHook(self))

    def save(self, data: "bytes | bytearray", kind: str, ending: str) -> None:
        """Saves a file under the next number that is free. Raises OSError."""
        while True:
            self.numbers[kind] = number = self.numbers.get(kind, 0) + 1
            try:
                with open(f"{self.workspace}/{kind}-{number}.{ending}", "xb") as file:
                    file.write(data)
                return
            except FileExistsError:
                pass

    def save_figure(self, figure: "Any") -> None:
        """Saves a figure of Matplotlib's. Raises whatever drawing it may."""
        image = io.BytesIO()
        figure.savefig(image, format="png")
        figure.stale = False  # not all of Matplotlib's artists see to that: a later change is to show
        self.save(image.getvalue(), "figure", "png")
        figure.__dict__["_displayed"] = True

    def save_picture_of(self, value: object) -> None:
        """Saves what a value looks like, if it looks like more than its text. Raises OSError."""
        if is_a(value, "matplotlib.figure", "Figure"):
            try:
                self.save_figure(value)
            except OSError:
                raise
            except Exception:
                pass  # it cannot be drawn
        elif is_a(value, "pandas", "DataFrame"):
            pass  # readers of text are better off with it as text
        elif (picture := rendered(value, "_repr_png_", bytes)) is not None:
            self.save(picture, "figure", "png")  # type: ignore[arg-type]
        elif (page := rendered(value, "_repr_html_", str)) is not None:
            self.save(page.encode("utf-8", "replace"), "output", "html")  # type: ignore[union-attr]

    def display(self, *values: object) -> None:
        """Shows values: prints each as a REPL does, and saves what is a picture or HTML in the workspace."""
        for value in values:
            self.save_picture_of(value)
            print(repr(value))

    def display_last(self, value: object) -> None:
        """Shows the value of the program's last statement: sys.displayhook."""
        if value is not None:
            self.save_picture_of(value)
        sys.__displayhook__(value)

    def show_figures(self) -> None:
        """Saves all open figures and closes them."""
        pyplot = sys.modules[PYPLOT]
        for number in pyplot.get_fignums():
            self.save_figure(pyplot.figure(number))
            pyplot.close(number)

    def save_open_figures(self) -> None:
        """Saves the figures that the program has left open, but for those that it has displayed as they are."""
        pyplot = sys.modules.get(PYPLOT)
        if pyplot is None:
            return
        try:
            for number in pyplot.get_fignums():
                figure = pyplot.figure(number)
                if figure.stale or not hasattr(figure, "_displayed"):
                    self.save_figure(figure)
        except Exception as error:
            print(f"an open figure could not be saved: {type(error).__name__}: {error}", file=sys.stderr)


class PyplotHook:
    """Replaces plt.show when pyplot is imported, whoever imports it. A Matplotlib backend of our own would do so too,
    but the Pythons that a program starts would be told of it by MPLBACKEND and not find it."""

    def __init__(self, shows: Shows) -> None:
        self.shows = shows

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Optional[ModuleSpec]":
        """Finds pyplot as the other finders do, and nothing else."""
        if name != PYPLOT:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)):
                self.watch(spec.loader)
                return spec
        return None

    def watch(self, loader: "Any") -> None:
        """Has a loader, which is this import's alone, replace `show` when it is done."""
        load = loader.exec_module

        def exec_module(module: "Any") -> None:
            load(module)
            module.show = show  # a function and not a method: Matplotlib sets attributes of it

        def show(*_: object, **__: object) -> None:
            """Saves all open figures as figure-N.png in the workspace and closes them."""
            self.shows.show_figures()

        loader.exec_module = exec_module


shows = Shows()

# --- The program's end ---------------------------------------------------------------------------------------


def drop_variables(namespace: "dict[str, object]") -> None:
    """Drops a module's variables, the newest first: what is freed by it may still use what it was built on."""
    for name in reversed(list(namespace)):
        if not name.startswith("__"):
            namespace.pop(name, None)


def flush_files() -> None:
    """Writes what open files still hold. The collector alone would lose what hangs in a cycle of references, where it
    may close a file before its buffer."""
    for thing in gc.get_objects():
        if issubclass(type(thing), (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)):
            try:
                thing.flush()
            except Exception:
                pass  # closed, or not writable any more: nobody could write it


def wind_down(workspace: str, inherited: str) -> bool:
    """Does what the interpreter's end does for a program whose only thread is this one: runs its atexit functions and
    drops its variables, so that files left open are written. The rest of the interpreter's end is left out: it takes
    2 to 4 ms to free what the kernel frees anyway. Returns whether all output could be written. `inherited` is the
    last module that was imported before the program began: those up to it are left alone, or looking at each would
    cost a copy of the page that it lies in."""
    try:
        atexit._run_exitfuncs()
    except BaseException:
        pass  # Python 3.9 has printed it, and raises it again
    flush_files()
    prefix = workspace + "/"
    for name in ["__main__", *iter(reversed(sys.modules).__next__, inherited)]:
        module = sys.modules.get(name)
        namespace = module.__dict__ if isinstance(module, type(sys)) else {}
        if name == "__main__" or str(namespace.get("__file__")).startswith(prefix):
            drop_variables(namespace)
    gc.collect()
    libc.fflush(None)  # what C code has printed
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            written = False
    return written


DONE = struct.Struct("BQQ")  # a farewell: a status, microseconds of CPU, kilobytes


class Farewell:
    """The way to say that the program is over and needs no more than to be killed. The supervisor then need not wait
    until the kernel has torn this process down, which takes 1 ms of a small program's 4. It is the program's own word:
    it can forge its own exit status with it, which it chooses anyway."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.pipe = os.fstat(DONE_FD).st_ino

    def say(self, status: int) -> None:
        """Says it, unless this is a fork of the program's process, or the program has closed or replaced the pipe."""
        if os.getpid() != self.process:
            return
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        try:
            if os.fstat(DONE_FD).st_ino == self.pipe:
                os.write(DONE_FD, DONE.pack(status, int(cpu * 1e6), max(own.ru_maxrss, children.ru_maxrss)))
        except OSError:
            pass


def end_program(status: int, workspace: str, inherited: str, farewell: "Optional[Farewell]") -> "NoReturn":
    """Ends the program's process. A negative status is a signal that it dies of."""
    if threading := sys.modules.get("threading"):
        threading._shutdown()
    shows.save_open_figures()
    if len(sys._current_frames()) > 1:  # daemon threads: only the interpreter's real end keeps them quiet
        ctypes.pythonapi.Py_Exit(128 - status if status < 0 else status)
    if not wind_down(workspace, inherited) and status == 0:
        status = 120  # what the interpreter says when stdout cannot be flushed
    if status < 0:
        _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    if farewell is not None:
        farewell.say(status)
    os._exit(status)


def rehearse() -> None:
    """Runs a tiny program that fails, and throws its output away. The process then has the pages and modules that most
    programs need; what is left of a run is a third (measured: see docs/performance.md)."""
    streams = sys.stdout, sys.stderr
    with open(os.devnull, "w") as null:
        sys.stdout = sys.stderr = null
        try:
            for code in compile_program(b"class A: pass\nprint(6 * 7, A())\n1 / 0", "", True):
                exec(code, {"__name__": "__main__"})
        except ZeroDivisionError as error:
            report(error)  # imports traceback, which takes 10 ms
        finally:
            sys.stdout, sys.stderr = streams
    gc.freeze()  # or the collection at the program's end looks at it all


def make_streams() -> None:
    """Makes what print and input use. Pipes must stand at 0, 1 and 2: the objects remember what they found there."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout, sys.stderr = unbuffered(1, "surrogateescape"), unbuffered(2, "backslashreplace")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def take_over(pipes: "Pipes", rules: int = -1) -> None:
    """Makes the program's pipes the fds 0 to 3 and DONE_FD of this process, and rules RULES_FD. It then has no others."""
    fds = pipes.theirs if rules < 0 else (*pipes.theirs, rules)
    clear = max(DONE_FD, *fds) + 1  # of where they are, and of where they are moved to
    high = [os.dup2(fd, clear + i) for i, fd in enumerate(fds)]
    for fd, target in zip(high, (0, 1, 2, 3, DONE_FD, RULES_FD)):
        os.dup2(fd, target, inheritable=target < 3)
    os.closerange(4, DONE_FD if rules < 0 else RULES_FD)
    os.closerange(DONE_FD + 1, 1 << 20)


def be_first_victim() -> None:
    """Has the kernel, when it runs out of memory, take this process before the supervisor. It cannot go back below what
    the backend gave the whole sandbox, nor at all where obey follows."""
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(score, b"1000")
    os.close(score)


def reseed() -> None:
    """Gives this fork random numbers of its own. The random module sees to that itself."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()


def forget_shadowed(workspace: str) -> None:
    """Forgets modules that were imported ahead and that have the name of one in the workspace: that comes first on the
    program's path, so it must be what the program imports."""
    ours = set()
    for name in os.listdir(workspace):
        if name.endswith(".py"):
            ours.add(name[:-3])
        elif os.path.isfile(f"{workspace}/{name}/__init__.py"):  # a folder of data has no such claim
            ours.add(name)
    for module in list(sys.modules):
        if module.partition(".")[0] in ours and module not in PLAIN_MODULES and module != "__main__":
            del sys.modules[module]


RELEASE = struct.Struct(">??I")  # before the code: interactive, whether files were staged, seconds of CPU time


def limit(kind: int, soft: int, hard: int) -> None:
    """Sets a limit of this process's, or leaves a lower one that stands already, and that nobody here may raise."""
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(kind, (soft, hard))


def await_and_run(workspace: str, farewell: "Optional[Farewell]" = None) -> "NoReturn":
    """Waits for the code on the control pipe, runs it, exits."""
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    waiting = select.poll()
    waiting.register(3, select.POLLIN)
    if not waiting.poll(REHEARSE_SECONDS * 1000):  # under load there is no time for it
        rehearse()
    job = read_to_end(3)
    if not job:
        os._exit(0)  # the supervisor is gone
    interactive, has_files, cpu_seconds = RELEASE.unpack_from(job)
    limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
    if has_files:
        forget_shadowed(workspace)
    inherited = next(reversed(sys.modules))
    source = job[RELEASE.size :]
    end_program(execute(source, f"{workspace}/{MAIN_FILE}", interactive), workspace, inherited, farewell)


class Pipes:
    """The pipes of a program: three for its standard streams, one for its code, one for its farewell."""

    def __init__(self) -> None:
        stdin, self.stdin = os.pipe()
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        control, self.control = os.pipe()
        self.done, done = os.pipe()
        self.theirs = stdin, stdout, stderr, control, done
        self.ours = self.stdin, self.stdout, self.stderr, self.control, self.done


class Ending:
    """How a program's main process ended."""

    def __init__(self, status: int = 0, cpu: float = 0.0, peak_kb: int = 0, at: float = 0.0) -> None:
        self.status = status  # as waitpid gives it
        self.cpu = cpu  # seconds, of all processes that were waited for
        self.peak_kb = peak_kb  # resident memory of the largest of them
        self.at = at  # on the monotonic clock


class Program:
    """A forked interpreter that waits for code, and our ends of its pipes."""

    def __init__(self, pipes: "tuple[int, ...]", end_fd: int) -> None:
        self.stdin, self.stdout, self.stderr, self.control, self.done = pipes
        self.end_fd = end_fd  # readable when its main process has ended
        for fd in (self.stdin, self.stdout, self.stderr, self.done):
            os.set_blocking(fd, False)  # the program can read from its own pipes, and so take what poll has seen

    def release(self, job: "Job") -> None:
        """Hands over the code: from here on the program runs."""
        limits = job.limits
        head = RELEASE.pack(bool(limits["interactive"]), job.has_files, limits["cpu_seconds"])
        try:
            write_all(self.control, head + job.code)
        except BrokenPipeError:
            pass  # it died while waiting; its status tells
        os.close(self.control)

    def ended(self, ready: "list[int]") -> bool:
        """Whether the program is over; ready are the fds that can be read. Call it now and again."""
        raise NotImplementedError

    def interrupt(self) -> float:
        """Asks the program to end, its time being up, and returns the seconds that it gets for it: 0 is none."""
        return 0.0

    def kill(self, channel: Channel) -> Ending:
        """Kills whatever is left of the program, and says how its main process ended."""
        raise NotImplementedError

    def bury(self, channel: Channel) -> None:
        """Waits until nothing of the program is left. Raises Gone when that takes too long."""


# --- A sandbox that serves one run (ISOLATION=container) -------------------------------------------------------


class OnlyProgram(Program):
    """The one program of a sandbox, a child of this process. Nothing else than it is in the sandbox."""

    def __init__(self, workspace: str, wall: Filter) -> None:
        pipes = Pipes()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                take_over(pipes)
                default_signals()
                set_dumpable(True)
                be_first_victim()
                obey(make_rules())
                os.chdir(workspace)
                make_streams()
                wall.install()
                shows.install(workspace)
                await_and_run(workspace)
            finally:
                os._exit(70)  # reached only when setting the process up failed
        close_all(pipes.theirs)
        self.ending: "Optional[Ending]" = None
        self.cpu = 0.0
        self.peak_kb = 0
        super().__init__(pipes.ours, os.pidfd_open(self.pid))

    def ended(self, ready: "list[int]") -> bool:
        self.reap()
        return self.ending is not None

    def reap(self) -> bool:
        """Buries all processes that have ended. Returns whether any are left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.cpu += usage.ru_utime + usage.ru_stime
            self.peak_kb = max(self.peak_kb, usage.ru_maxrss)
            if pid == self.pid:
                self.ending = Ending(status, at=time.monotonic())

    def kill(self, channel: Channel) -> Ending:
        """Kills every other process of the sandbox, again and again until none is left."""
        while True:
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                break
            if self.reap():
                channel.breathe()
                time.sleep(LINGER_SECONDS)
        self.reap()
        ending = self.ending or Ending(at=time.monotonic())
        ending.cpu, ending.peak_kb = self.cpu, self.peak_kb
        return ending


# --- The zygote: a fresh inner sandbox for each run (ISOLATION=run) --------------------------------------------

HANDED = struct.Struct("7i")  # the supervisor's ends of the pipes, and handles of the init and the program
ENDED = struct.Struct("iQQd")  # what the zygote says of an end: status, microseconds of CPU, kilobytes, when


def unshare(flags: int) -> None:
    """Moves this process, or its children, into new namespaces. Raises Unable."""
    try:
        system("unshare", flags)
    except OSError as error:
        raise Unable(f"OSError: {error}", UNSHARE_CAUSES.get(error.errno or 0, "")) from None


def enter_namespaces() -> None:
    """Puts the children of this process into a pid namespace that they own, where they may make others."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | CLONE_NEWPID)
    set_dumpable(True)  # or the files below belong to root; nobody else is here yet
    maps = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1", "projid_map": "0 0 1"}
    for name, text in maps.items():  # the last, which nobody needs, or a program could write it, for others to read
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    set_dumpable(False)
    drop_bounding_set()


def unshare_ipc() -> None:
    """Gives this process an ipc namespace of its own. Kernels before 6.3 free old ones slowly, one for each RCU grace
    period: where there are too many, it waits for them."""
    patience = time.monotonic() + 5
    while True:
        try:
            system("unshare", CLONE_NEWIPC)
            return
        except OSError as error:
            if error.errno != ENOSPC or time.monotonic() > patience:
                raise
            time.sleep(0.05)


def preload(names: "list[str]") -> "tuple[list[str], list[str]]":
    """Imports modules, so that programs find them imported. Returns those that it could, and why not the others."""
    done, failed = [], []
    for name in names:
        try:
            __import__(name)
            done.append(name)
        except BaseException as error:
            failed.append(f"{name}: {type(error).__name__}: {error}".replace("\n", " "))
    if len(os.listdir("/proc/self/task")) > 1:
        failed.append("one of them started threads, which no program will have")
    return done, failed


def preload_names(asked: str) -> "list[str]":
    """Which modules to import: those asked for, or with "auto" those that the image names."""
    if asked == "auto":
        try:
            with open(PRELOAD) as file:
                asked = file.read()
        except OSError:
            asked = ""
    return [name for name in asked.replace(",", " ").split() if name != "none"]


def start_init(stack: "ctypes.Array[ctypes.c_char]") -> int:
    """Starts the first process of a new pid namespace, which does nothing but be there: when it dies, the kernel kills
    all others in the namespace. It shares this process's memory and sleeps in pause(2), so it costs neither a copy of
    the interpreter nor an executable: 0.1 ms, where spawning /usr/bin/sleep takes 0.35."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # which it inherits: the kernel then buries the orphans
    try:
        top = (ctypes.addressof(stack) + len(stack)) & ~0xF
        return system("clone", ctypes.cast(libc.pause, ctypes.c_void_p), top, CLONE_VM | _signal.SIGCHLD, None)
    finally:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)


class Zygote:
    """The process that all programs are forked from. Everything here runs in it; it reads nothing but its own link's
    end, and says through the link what it has made."""

    def __init__(self, link: "_socket.socket", workspace: str, wall: Filter) -> None:
        self.link = link
        self.workspace = workspace
        self.wall = wall
        self.stack = ctypes.create_string_buffer(1 << 14)
        self.rules = make_rules()
        self.pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)

    def serve(self) -> "NoReturn":
        """Prepares one program after the other. The next is made when all of the last is gone."""
        while True:
            unshare(CLONE_NEWPID)  # for children only
            init = start_init(self.stack)
            pipes = Pipes()
            program = os.fork()
            if program == 0:
                self.be_program(pipes)
            system("setns", self.pid_namespace, CLONE_NEWPID)
            close_all(pipes.theirs)
            handed = (*pipes.ours, os.pidfd_open(init), os.pidfd_open(program))
            # The kernel counts the descriptors that are under way like this for each user, all containers together,
            # and refuses the next to whoever may open fewer files. A program cannot get the count beyond its own
            # OPEN_FILES; the zygote's limit is higher.
            self.link.sendmsg([b"P"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, HANDED.pack(*handed))])
            close_all(handed)
            self.link.send(b"E" + self.await_end(program, init))

    def await_end(self, program: int, init: int) -> bytes:
        """Waits until the program has ended, kills all that it has left, and waits until that is gone."""
        ended = b""
        while True:
            # Whoever it is: one that is not buried would keep the init from ending.
            pid, status, usage = os.wait4(-1, 0)
            if pid == program:
                cpu = int((usage.ru_utime + usage.ru_stime) * 1e6)
                ended = ENDED.pack(status, cpu, usage.ru_maxrss, time.monotonic())
                os.kill(init, _signal.SIGKILL)
            elif pid == init:
                return ended  # not empty: the init ends when all others in its namespace have been buried

    def be_program(self, pipes: Pipes) -> "NoReturn":
        """Turns a fresh fork into a program's process. The order matters: first every inherited descriptor goes, then
        every power; only then may the process be traced again."""
        try:
            os.setsid()
            take_over(pipes, self.rules)
            unshare_ipc()
            drop_capabilities()
            set_dumpable(True)
            be_first_victim()
            obey(RULES_FD if self.rules >= 0 else -1)
            self.wall.install()
            reseed()
        except BaseException as error:
            os.write(2, f"the program's process could not be set up: {error}\n".encode())
            os._exit(70)
        try:
            await_and_run(self.workspace, Farewell())
        finally:
            os._exit(70)  # the program has broken what its end needs


def be_zygote(link: "_socket.socket", workspace: str, wall: Filter, modules: "list[str]") -> "NoReturn":
    """Turns a fresh fork of the supervisor into the zygote."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1):  # the server's
            os.dup2(null, fd)
        enter_namespaces()
        if os.fork() != 0:
            os._exit(0)  # the zygote is the first process of its namespace, and becomes a child of PID 1
        # For its children, which cannot reach it. No signal may have a handler here: a namespace's init has the same
        # ones, can be reached, and shares this memory. Without a handler the kernel ignores whatever is sent to it.
        default_signals()
        os.chdir(workspace)
        shows.install(workspace)
        done, failed = preload(modules)
        libc.fflush(None)  # what C code has printed would be printed by each program
        pipes = Pipes()
        for target, fd in enumerate((pipes.theirs[0], pipes.stdin, pipes.stdin)):
            os.dup2(fd, target)
        make_streams()
        rehearse()
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        close_all((*pipes.ours, *pipes.theirs, null))
        link.send(b"R" + fields(preloaded=",".join(done), preload_failed="; ".join(failed))[:60_000])
        gc.collect()
        gc.freeze()  # a collection in a program then leaves these pages shared
        Zygote(link, workspace, wall).serve()
    except Unable as error:
        link.send(f"!{error.cause}\n{error}".encode())
    except BaseException as error:
        link.send(f"!\n{type(error).__name__}: {error}".encode())
    finally:
        os._exit(71)


def cpu_clock(handle: int) -> int:
    """The clock that counts the CPU time of a process, given its pidfd (clock_getcpuclockid(3))."""
    with open(f"/proc/self/fdinfo/{handle}") as lines:
        pid = next(int(line[4:]) for line in lines if line.startswith("Pid:"))
    return ~pid << 3 | 2


class Cell(Program):
    """A program in an inner sandbox of its own, which the zygote has made."""

    def __init__(self, fds: "tuple[int, ...]", zygote: "ZygoteLink") -> None:
        *pipes, self.init, handle = fds
        super().__init__(tuple(pipes), zygote.link.fileno())
        self.clock = cpu_clock(handle)
        self.made = time.monotonic()
        os.close(handle)
        self.zygote = zygote
        self.word: "Optional[Ending]" = None  # the program's own
        self.ending: "Optional[Ending]" = None

    def ended(self, ready: "list[int]") -> bool:
        if self.end_fd in ready:
            self.take_end()
        elif self.done in ready:
            self.take_word()
        return self.ending is not None or self.word is not None

    def take_end(self) -> None:
        """Reads from the zygote, which says nothing else while a program runs, how that has ended."""
        status, cpu, peak_kb, at = ENDED.unpack(self.zygote.receive(b"E")[0])
        self.ending = Ending(status, cpu / 1e6, peak_kb, at)

    def take_word(self) -> None:
        """Reads the program's farewell. What is none leaves everything as it is: its end will show."""
        try:
            status, cpu, peak_kb = DONE.unpack(os.read(self.done, DONE.size))
            own_cpu = time.clock_gettime(self.clock)  # it cannot hide its own process's time
        except (OSError, struct.error):
            return  # it took its word back, broke it, or has gone meanwhile
        now = time.monotonic()
        if cpu / 1e6 <= (now - self.made + 1) * (os.cpu_count() or 1) and peak_kb < MAX_PEAK_KB:
            self.word = Ending(status << 8, max(cpu / 1e6, own_cpu), peak_kb, now)

    def kill(self, channel: Channel) -> Ending:
        try:
            _signal.pidfd_send_signal(self.init, _signal.SIGKILL)
        except ProcessLookupError:
            pass  # the zygote was faster
        os.close(self.init)
        if self.word is None:
            self.bury(channel)
        ending = self.word or self.ending
        assert ending is not None
        return ending

    def bury(self, channel: Channel) -> None:
        patience = time.monotonic() + BURY_SECONDS
        while self.ending is None:
            if time.monotonic() > patience:
                raise Gone("what a program has left does not die")
            if channel.wait(self.end_fd, BURY_SECONDS):
                self.take_end()
            else:
                channel.breathe()


class ZygoteLink:
    """The supervisor's end of the link to the zygote."""

    def __init__(self, channel: Channel, workspace: str, wall: Filter, modules: "list[str]") -> None:
        self.channel = channel
        self.link, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            self.link.close()
            be_zygote(theirs, workspace, wall, modules)
        theirs.close()
        self.report = self.await_message(b"R")[0]  # what could be preloaded
        os.waitpid(pid, 0)

    def receive(self, kind: bytes) -> "tuple[bytes, tuple[int, ...]]":
        """Reads the message that the zygote has sent, which must be of a kind."""
        data, rights, _, _ = self.link.recvmsg(1 << 16, _socket.CMSG_SPACE(HANDED.size))
        if data[:1] == b"!":
            cause, _, message = data[1:].decode().partition("\n")
            raise Unable(message, cause)
        if data[:1] != kind:
            raise Unable(f"the zygote ended or says {data[:1]!r}, not {kind!r}", "zygote_ended")
        return data[1:], HANDED.unpack(rights[0][2]) if rights else ()

    def await_message(self, kind: bytes) -> "tuple[bytes, tuple[int, ...]]":
        """Waits for a message."""
        while not self.channel.wait(self.link.fileno()):
            self.channel.breathe()
        return self.receive(kind)

    def next(self) -> Cell:
        """Waits for the next program's process."""
        return Cell(self.await_message(b"P")[1], self)


# --- The workspace -------------------------------------------------------------------------------------------


class Found:
    """A regular file in the workspace, or an entry that is not returned and why."""

    def __init__(self, path: str, reason: str, stamp: "tuple[int, int, int]" = (0, 0, 0)) -> None:
        self.path = path
        self.reason = reason  # empty: a regular file
        self.stamp = stamp  # of stamp_of: differs when the file was made or changed
        self.size = stamp[2]


UNSEARCHED = (0, 0, -1)  # the stamp of what may well have changed


def stamp_of(status: os.stat_result) -> "tuple[int, int, int]":
    """What is kept of a file to see whether it changes. A program can set the modification time, but not the change
    time."""
    return status.st_ino, status.st_ctime_ns, status.st_size


def name_fault(name: str) -> str:
    """Why a name cannot be handed to a client, or ''. Names come from the program: any bytes but '/' and NUL."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    if "\\" in name or any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in name):
        return "its name has a backslash or a control character"
    return ""


def walk(folder: int, prefix: str = "", depth: int = 0, budget: "Optional[list[int]]" = None) -> "Iterator[Found]":
    """Lists a folder that is open as a descriptor, and those below it, in order of name, following no link."""
    left = budget if budget is not None else [MAX_ENTRIES]
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry, _ in zip(entries, range(left[0] + 1))), key=lambda entry: entry.name)
    for entry in listed:
        path = prefix + entry.name
        if left[0] <= 0:
            reason = f"the workspace has more than {MAX_ENTRIES} entries; this and later ones were not searched"
            yield Found(path, reason, UNSEARCHED)
            return
        left[0] -= 1
        if fault := name_fault(entry.name):
            yield Found(path, fault)
        elif len(path.encode()) > MAX_PATH:
            yield Found(path[:100] + "...", f"its path has more than {MAX_PATH} bytes")
        elif entry.is_dir(follow_symlinks=False):
            yield from walk_folder(folder, entry.name, path, depth + 1, left)
        elif entry.is_file(follow_symlinks=False):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield Found(path, "", stamp_of(status))
        else:
            yield Found(path, "it is a link" if entry.is_symlink() else "it is not a regular file")


def enter(folder: int, name: str) -> int:
    """Opens a folder in an open one, only to look further from it. A link is none: without O_PATH gVisor follows it, for
    want of heed to O_NOFOLLOW where O_DIRECTORY is set."""
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)


def walk_folder(parent: int, name: str, path: str, depth: int, budget: "list[int]") -> "Iterator[Found]":
    """Lists the folder `name` of an open folder."""
    if depth > MAX_DEPTH:
        yield Found(path, f"it lies more than {MAX_DEPTH} folders deep")
        return
    try:
        place = enter(parent, name)
        try:
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
        finally:
            os.close(place)
    except OSError as error:
        yield Found(path, os.strerror(error.errno).lower())
        return
    try:
        yield from walk(folder, path + "/", depth, budget)
    except OSError as error:
        yield Found(path, os.strerror(error.errno).lower())
    finally:
        os.close(folder)


def open_beneath(root: int, path: str) -> int:
    """Opens a file below an open folder for reading, following no link on the way."""
    folder = os.dup(root)
    try:
        *parents, name = path.split("/")
        for parent in parents:
            below = enter(folder, parent)
            os.close(folder)
            folder = below
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        # Somebody who still runs may have put something else there, and to open a pipe can take for ever.
        if not stat.S_ISREG(kind := os.fstat(place).st_mode):
            number = ELOOP if stat.S_ISLNK(kind) else EINVAL
            raise OSError(number, "a link" if number == ELOOP else "not a regular file")
        # A lease (fcntl(2)) would have this sleep for lease-break-time, 45 s, for each file.
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK)
    except BlockingIOError:
        raise OSError(EBUSY, "in use") from None
    finally:
        os.close(place)


def stage(workspace: str, path: str) -> int:
    """Creates a file for an input, with its folders, and returns it open for writing. The server checked the path."""
    full = f"{workspace}/{path}"
    os.makedirs(os.path.dirname(full), exist_ok=True)
    return os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)


def await_tick(stamps: "Iterable[tuple[int, int, int]]") -> None:
    """Waits until a change of a file would give it another change time: kernels older than 6.13 take that from a clock
    that ticks every 1 to 10 ms, and a program may change an input sooner after its staging."""
    newest = max((changed for _, changed, _ in stamps), default=0)
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= newest < time.time_ns():
        time.sleep(0.0005)


def empty(folder: int, left: "list[int]", depth: int = 0) -> None:
    """Deletes all that is in an open folder. Nobody else may be there. Raises OSError where that fails, or where there
    is more than `left` allows."""
    with os.scandir(folder) as entries:
        for entry in list(entries):
            left[0] -= 1
            if left[0] < 0 or depth > MAX_LEFT_DEPTH:
                raise OSError("the run left too much behind")
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=folder)
                continue
            os.chmod(entry.name, 0o700, dir_fd=folder)
            below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                empty(below, left, depth + 1)
            finally:
                os.close(below)
            os.rmdir(entry.name, dir_fd=folder)


def clear_flags(folder: int) -> None:
    """Clears a folder's attributes (ioctl_iflags(2)). File systems that have none refuse."""
    flags = ctypes.c_long(0)
    if libc.ioctl(folder, ctypes.c_ulong(FS_IOC_GETFLAGS), ctypes.byref(flags)) == 0 and flags.value & 0xFFFFFFFF:
        flags.value = 0
        system("ioctl", folder, ctypes.c_ulong(FS_IOC_SETFLAGS), ctypes.byref(flags))


def unexpected_places(known: "Iterable[str]") -> "list[str]":
    """Folders that programs may be able to write and that nobody would empty, such as an image's volumes. What is
    below /dev, /proc and /sys is the engine's, and no program's but for those that are known."""
    found = []
    with open("/proc/self/mountinfo") as mounts:
        for mount in mounts:
            point, options = mount.split(" ")[4:6]
            engines = f"{point}/".startswith(("/dev/", "/proc/", "/sys/"))
            if "rw" in options.split(",") and not engines and point not in known and os.path.isdir(point):
                found.append(point)
    return found


def is_full(folder: str) -> bool:
    """Whether a file system has no room left for data or for files."""
    status = os.statvfs(folder)
    return status.f_bavail == 0 or (status.f_files > 0 and status.f_favail == 0)


# --- A run ---------------------------------------------------------------------------------------------------


class Counter:
    """A number that the kernel keeps in a cgroup's file."""

    def __init__(self, paths: "tuple[str, ...]", name: str) -> None:
        self.fd = -1  # none of the files exists
        self.name = name.encode()
        for path in paths:
            try:
                self.fd = os.open(path, os.O_RDONLY)
                break
            except OSError:
                continue

    def read(self) -> int:
        """Reads the line `name N`; 0 where there is none."""
        data = os.pread(self.fd, 4096, 0) if self.fd >= 0 else b""
        for line in data.splitlines():
            key, _, value = line.partition(b" ")
            if key == self.name:
                return int(value)
        return 0


def pids() -> "list[int]":
    """All processes that this one can see, but for itself."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def parent_of(pid: int) -> int:
    """The parent of a process, 0 where it has none here or has gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as lines:
            return next((int(line[5:]) for line in lines if line.startswith(b"PPid:")), 0)
    except OSError:
        return 0


def fields_of(path: str, names: "tuple[bytes, ...]") -> "dict[bytes, int]":
    """The fields of a file of /proc that count kilobytes, in bytes. Raises OSError."""
    with open(path, "rb") as lines:
        return {line.split(b":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(names)}


def memory_of(pid: int) -> int:
    """The bytes of memory that a process has, of which others may have a part too: what it shares by forks counts for
    each. Page tables are among them. 0 where it has gone."""
    names = (b"RssAnon", b"RssShmem", b"VmPTE")
    try:
        found = fields_of(f"/proc/{pid}/status", names)
        if not found:
            found = fields_of_threads(pid, names)  # its first thread has ended, others go on
    except (OSError, ValueError, IndexError):
        return 0
    return sum(found.values())


def fields_of_threads(pid: int, names: "tuple[bytes, ...]") -> "dict[bytes, int]":
    """The fields of the first thread that has them. Where threads end meanwhile, others may begin, which are looked for."""
    for _ in range(THREAD_LOOKS):
        ended = False
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                found = fields_of(f"/proc/{pid}/task/{thread}/status", names)
            except OSError:
                ended = True
                continue
            if found:
                return found
        if not ended:
            break
    return {}


def share_of(pid: int, most: int) -> int:
    """The same, but of what is shared its part alone, where the kernel tells: most where it does not, or where the
    process does not let itself be looked at."""
    try:
        found = fields_of(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon", b"Pss_Shmem"))
        tables = fields_of(f"/proc/{pid}/status", (b"VmPTE",))
    except (OSError, ValueError, IndexError):
        return most
    return min(most, sum(found.values()) + sum(tables.values())) if found else most


class MemoryWatch:
    """Stands in for a cgroup where there is none to bound memory: it looks at what all processes have, now and again,
    and kills the largest ones where that is too much, as the kernel would."""

    def __init__(
        self, limit: int, places: "Iterable[str]", network: "Network", breathe: "Callable[[], None]" = lambda: None
    ) -> None:
        self.limit = limit  # bytes; 0: a cgroup bounds them
        self.network = network
        self.breathe = breathe  # between looks
        self.places = tuple(places)
        self.own: "dict[int, int]" = {}  # what the zygote has between runs, by its number
        self.since: "dict[int, float]" = {}  # when processes were seen first
        self.next = 0.0  # when to look again
        self.kills = 0

    def settle(self) -> None:
        """Takes the zygote, the only child of this process, for one that is not killed, and what it has for nobody's."""
        if self.limit:
            self.own = {pid: memory_of(pid) for pid in pids() if parent_of(pid) == os.getpid()}

    def look(self) -> None:
        """Looks, if it is time, and kills where that must be."""
        if not self.limit or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + WATCH_SECONDS / 2
        # Who hands its memory on and ends before it is killed is looked for again, under its new number; and then there
        # is an end of it.
        for _ in range(LOOKS):
            if self.bound():
                return
            self.breathe()
        for pid in pids():
            if pid not in self.own and memory_of(pid) > SMALL:
                self.kills += kill_quietly(pid)

    def bound(self) -> bool:
        """Kills where there is too much. Returns False where that is so and nobody was there to be killed."""
        now = time.monotonic()
        used = {pid: memory_of(pid) - self.own.get(pid, 0) for pid in pids()}
        self.since = {pid: self.since.get(pid, now) for pid in used}
        files = sum(status.f_frsize * (status.f_blocks - status.f_bfree) for status in map(os.statvfs, self.places))
        files += max(0, self.network.sockets() - FEW_SOCKETS) * SOCKET_BYTES  # the kernel does not tell what is in them
        if sum(used.values()) + files <= self.limit:
            return True
        used.update(dict.fromkeys(self.starting(used, now), 0))
        # What is shared by forks has counted for each. To look closer takes longer the more a process maps: this is done
        # for a moment, no longer.
        until = now + CLOSER_SECONDS
        for pid in sorted(used, key=lambda pid: -used[pid]):
            if sum(used.values()) + files <= self.limit or used[pid] > self.limit or time.monotonic() > until:
                break
            used[pid] = min(used[pid], share_of(pid, used[pid] + self.own.get(pid, 0)) - self.own.get(pid, 0))
        return self.relieve(used, files)

    def starting(self, used: "dict[int, int]", now: float) -> "list[int]":
        """The processes that may be about to become other programs. Until then they have the memory of whoever makes them,
        who waits for it (vfork), and it is there but once. Each that has made one may have one, if it is none itself.
        """
        found: "dict[int, int]" = {}  # by who has made it
        for pid in sorted(used):
            if now - self.since[pid] < STARTING_SECONDS:
                maker = parent_of(pid)
                alike = abs(used.get(maker, 0) - used[pid]) <= used[pid] // 16
                if alike and maker not in found and maker not in found.values():
                    found[maker] = pid
        return list(found.values())

    def relieve(self, used: "dict[int, int]", files: int) -> bool:
        """Kills the largest processes until the others are within the limit. Returns whether that was done, or nothing was
        to be done."""
        left, before = sum(used.values()) + files, self.kills
        if left <= self.limit:
            return True
        for pid in sorted(used, key=lambda pid: -used[pid]):
            if left > self.limit and pid not in self.own:
                left -= used[pid]
                self.kills += kill_quietly(pid)
        return self.kills > before


def kill_quietly(pid: int) -> bool:
    """Kills a process. Returns whether it was there."""
    try:
        os.kill(pid, _signal.SIGKILL)
    except OSError:
        return False
    return True


class KernelWatch:
    """Bounds what the kernel keeps for programs and counts in no cgroup (measured on Linux 6.18): unread messages of
    netlink, connections that nobody has accepted, datagrams that wait for their end, and locks on files. It looks now
    and again, and kills all programs where there is more than they may have."""

    def __init__(self, network: "Network") -> None:
        self.network = network
        self.spared: "set[int]" = set()  # processes of the supervisor's
        self.next = self.next_locks = 0.0  # when to look again
        self.kills = 0
        self.excess = ""  # what there was too much of since the last run: a word for the server

    def settle(self) -> None:
        """Takes the zygote, the only child of this process, for one that is not killed."""
        self.spared = {pid for pid in pids() if parent_of(pid) == os.getpid()}

    def look(self) -> None:
        """Looks, if it is time, and kills where that must be."""
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + WATCH_SECONDS / 2
        if excess := self.find_excess(now):
            self.excess = excess
            self.kills += sum(kill_quietly(pid) for pid in pids() if pid not in self.spared)

    def begin(self, now: float) -> None:
        """Puts the next look off: a program begins, and no other runs. Short runs then need none."""
        self.next, self.next_locks = now + WATCH_SECONDS / 2, now + LOCKS_SECONDS

    def find_excess(self, now: float) -> str:
        """What there is too much of: "sockets", "unread", "locks", "ptys" or nothing."""
        sockets = self.network.sockets()
        if sockets > MAX_SOCKETS:
            return "sockets"
        if sockets > FEW_SOCKETS and self.network.unread() > MAX_UNREAD:
            return "unread"
        if now >= self.next_locks:
            self.next_locks = now + LOCKS_SECONDS
            if count_locks() > MAX_LOCKS:
                return "locks"
            # Where the engine makes the terminals, it does not bound them.
            if PTYS and len(os.listdir("/dev/pts")) > PTYS + 1:  # ptmx is there too
                return "ptys"
        return ""

    def take_excess(self) -> str:
        """What there was too much of since the last call."""
        excess, self.excess = self.excess, ""
        return excess


def count_locks() -> int:
    """How many locks on files the programs of this sandbox have (fcntl(2)), up to a few more than they may."""
    found = 0
    try:
        with open("/proc/locks", "rb", 0) as file:
            while found <= MAX_LOCKS and (part := file.read(CHUNK)):
                found += part.count(b" POSIX ")
    except OSError:
        pass  # the kernel does not tell
    return found


class Pressure:
    """What the kernel has refused this container since the last look (cgroup v2, then v1)."""

    def __init__(self, watch: MemoryWatch, kernel: KernelWatch) -> None:
        self.watch = watch
        self.kernel = kernel
        self.counters = (
            Counter(("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"), "oom_kill"),
            Counter(("/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events"), "max"),
        )
        self.known = self.read()

    def read(self) -> "list[int]":
        """How many processes were killed for memory, and how many were refused, ever."""
        kills, refused = (counter.read() for counter in self.counters)
        return [kills + self.watch.kills + self.kernel.kills, refused]

    def look(self) -> "list[int]":
        """How many processes were killed for memory, and how many were refused, since the last look."""
        before, self.known = self.known, self.read()
        return [now - then for now, then in zip(self.known, before)]


class Job:
    """What the server asks for: limits, code, stdin. Files go straight into the workspace."""

    def __init__(self, limits: "dict[str, int]") -> None:
        self.limits = limits
        self.code = bytearray()
        self.stdin = bytearray()
        self.has_files = False


def receive_job(channel: Channel, program: Program, workspace: str) -> Job:
    """Collects a job and stages its files. Raises OSError when they do not fit, Gone when the server is."""
    job = Job({})
    file = -1
    while True:
        kind, payload = channel.receive(program.end_fd)
        if kind == b"J":
            channel.begin_job()
            job = Job(parse_fields(payload))
        elif kind == b"C":
            job.code += payload
        elif kind == b"I":
            job.stdin += payload
        elif kind == b"F":
            if file >= 0:
                os.close(file)
            file = stage(workspace, payload.decode())
            job.has_files = True
        elif kind == b"D":
            write_all(file, payload)
        elif kind == b"G":
            if file >= 0:
                os.close(file)
            return job
        else:
            raise Gone(f"an unknown frame {kind!r}")
        channel.breathe()


def views(*parts: "bytes | bytearray") -> "list[memoryview]":
    """Views of the parts that are not empty."""
    return [memoryview(part) for part in parts if part]


class Run:
    """One program from its release to its end."""

    def __init__(self, channel: Channel, program: Program, job: Job, watches: "Watches") -> None:
        self.channel = channel
        self.program = program
        self.watches = watches
        self.stdin = views(job.stdin)  # what the program is still to read, of which there is one copy: it may be large
        self.refused = False  # it closed its stdin: the rest is not wanted
        self.room = {program.stdout: job.limits["output_bytes"], program.stderr: job.limits["output_bytes"]}
        self.cut: "set[int]" = set()  # those of which something was left out
        self.kinds = {program.stdout: b"O", program.stderr: b"E"}
        self.timeout = job.limits["timeout_ms"] / 1000
        self.ending = Ending()
        self.timed_out = False
        self.started = self.gone = 0.0  # when the program was let go, and when nothing was left of it
        self.deadline = 0.0
        self.poll = select.poll()

    def watch(self) -> None:
        """Forwards output and feeds stdin until the main process has ended or its time is up, then kills the rest."""
        self.deadline = self.started + self.timeout
        self.open()
        self.await_end()
        self.ending = self.program.kill(self.channel)
        self.gone = time.monotonic()
        self.drain()
        self.close()

    def open(self) -> None:
        """Begins to listen to the program."""
        program = self.program
        for fd in (self.channel.receive_fd, program.end_fd, program.stdout, program.stderr, program.done):
            self.poll.register(fd, select.POLLIN)
        if self.stdin:
            self.poll.register(program.stdin, select.POLLOUT)
        else:
            os.close(program.stdin)

    def close(self) -> None:
        """Closes the program's pipes."""
        close_all((self.program.stdout, self.program.stderr, self.program.done))
        if self.stdin:
            os.close(self.program.stdin)

    def await_end(self) -> None:
        """Forwards and feeds until the main process has ended or its time is up."""
        ended = False
        while not ended:
            left = self.deadline - time.monotonic()
            if left <= 0:
                self.timed_out = True
                more = self.program.interrupt()
                if not more:
                    return
                self.deadline = time.monotonic() + more
                continue
            wait = min(left, WATCH_SECONDS, self.channel.silence_left())
            ready = [fd for fd, _ in self.poll.poll(wait * 1000 + 1)]
            for fd in ready:
                self.handle(fd)
            self.listen()
            self.watches.look()
            ended = self.program.ended(ready)
            if not ended:  # else it goes out with what is said of the end
                self.channel.flush()

    def handle(self, fd: int) -> None:
        """Acts on one descriptor that is ready."""
        if fd == self.channel.receive_fd:
            self.channel.read_available()
        elif fd == self.program.stdin:
            self.feed()
        elif fd == self.program.done or fd in self.kinds and not self.forward(fd):
            self.poll.unregister(fd)

    def listen(self) -> None:
        """Acts on what the server has said, some of it perhaps while it was spoken to."""
        while frame := self.channel.next_buffered():
            self.hear(frame[0])

    def hear(self, kind: bytes) -> None:
        """Acts on a frame of the server's. Raises Gone for what it has no business to send during a run."""
        if kind != b"P":
            raise Gone(f"an unexpected frame {kind!r}")
        self.channel.pong()

    def feed(self) -> None:
        """Writes some of stdin to the program."""
        try:
            self.stdin[0] = self.stdin[0][os.write(self.program.stdin, self.stdin[0][:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            self.stdin.clear()
            self.refused = True
        if self.stdin and not self.stdin[0]:
            del self.stdin[0]
        if not self.stdin:
            self.poll.unregister(self.program.stdin)
            self.fed()

    def fed(self) -> None:
        """Ends the program's stdin: it has all of it."""
        os.close(self.program.stdin)

    def forward(self, fd: int) -> int:
        """Reads some output and says it. Returns the number of bytes read, 0 at the end, -1 when there is nothing now."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return -1
        self.say(fd, data)
        return len(data)

    def say(self, fd: int, data: bytes) -> None:
        """Posts what is within the limit of a pipe's output; what is beyond it becomes one empty frame."""
        part = data[: self.room[fd]]
        self.room[fd] -= len(part)
        for start in range(0, len(part), CHUNK):  # more than one frame may hold has come between a session's cells
            self.channel.post(self.kinds[fd], part[start : start + CHUNK])
        if len(part) < len(data) and fd not in self.cut:
            self.cut.add(fd)
            self.channel.post(self.kinds[fd])
        if len(self.channel.posted) > MAX_POSTED:
            self.channel.flush()

    def drain(self) -> None:
        """Forwards what is still in the pipes, which is bounded: whoever else wrote has been killed."""
        for fd in self.kinds:
            left = MAX_DRAIN
            while left > 0 and (count := self.forward(fd)) > 0:
                left -= count


def changes(
    channel: Channel, workspace: int, before: "dict[str, tuple[int, int, int]]", spared: str = ""
) -> "Iterator[Found]":
    """Lists what was made or changed in the workspace, but for a path that is spared, and what cannot be returned.
    Raises OSError."""
    os.fchmod(workspace, 0o700)  # the program may have changed it
    for found in channel.breathing(walk(workspace)):
        if found.path != spared and (before.get(found.path) != found.stamp or found.stamp == UNSEARCHED):
            yield found


def any_change(channel: Channel, workspace: int, before: "dict[str, tuple[int, int, int]]", spared: str) -> bool:
    """Whether changes would list anything, or cannot tell: somebody may still be at work."""
    try:
        return any(True for _ in changes(channel, workspace, before, spared))
    except OSError:
        return True


def send_files(channel: Channel, workspace: int, changed: "Iterable[Found]", limits: "dict[str, int]") -> None:
    """Sends what the run made or changed, within the limits, and names what is not sent and why."""
    files, total = limits["files"], limits["total_bytes"]
    skipped = 0
    for found in changed:
        reason = found.reason
        if not reason and files <= 0:
            reason = f"the run made more than {limits['files']} files"
        elif not reason and found.size > limits["file_bytes"]:
            reason = f"it has {found.size} bytes, more than {limits['file_bytes']}"
        elif not reason and found.size > total:
            reason = f"the run's files have more than {limits['total_bytes']} bytes together"
        if not reason:
            reason = send_file(channel, workspace, found)
        if not reason:
            files -= 1
            total -= found.size
        elif skipped < limits["files"]:
            skipped += 1
            channel.post(b"S", found.path.encode("utf-8", "backslashreplace") + b"\0" + reason.encode())
        else:
            channel.post(b"S", b"\0and more; the list was cut here")
            return


def send_file(channel: Channel, workspace: int, found: Found) -> str:
    """Sends one file; returns why it could not be, or ''. Where that shows only when some of it has been sent, the
    channel sees to it that the server does not take it for whole."""
    try:
        fd = open_beneath(workspace, found.path)
    except OSError as error:
        return str(error.strerror).lower()
    try:
        if stamp_of(os.fstat(fd)) != found.stamp:
            return "it was changed before it was read"
        channel.post(b"F", found.path.encode())
        left = found.size
        while left > 0 and (data := os.read(fd, min(CHUNK, left))):
            channel.send(b"D", data)
            left -= len(data)
        if left > 0 or stamp_of(os.fstat(fd)) != found.stamp:
            channel.tear("it was changed while it was read")
    except OSError as error:
        channel.tear(f"it cannot be read: {os.strerror(error.errno).lower()}")
    finally:
        os.close(fd)
    return ""


class Place:
    """A folder that programs can write. Where it is the programs' own, they can leave marks on itself too."""

    def __init__(self, path: str) -> None:
        self.folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        status = os.fstat(self.folder)
        self.owned = status.st_uid == os.getuid()
        self.mode = status.st_mode & 0o7777
        self.times = status.st_atime_ns, status.st_mtime_ns

    def clean(self, left: "list[int]") -> None:
        """Makes the folder what it was at the start. Raises OSError where it cannot."""
        if self.owned:
            os.fchmod(self.folder, self.mode | 0o700)
        empty(self.folder, left)
        if self.owned:
            for name in os.listxattr(self.folder):  # access control lists are among them
                os.removexattr(self.folder, name)
            clear_flags(self.folder)
            os.fchmod(self.folder, self.mode)
            os.utime(self.folder, ns=self.times)


class Watches:
    """Looks now and again at what no cgroup bounds."""

    def __init__(self, memory: MemoryWatch, kernel: KernelWatch) -> None:
        self.memory = memory
        self.kernel = kernel

    def look(self) -> None:
        """Looks, if it is time, and kills where that must be."""
        self.memory.look()
        self.kernel.look()

    def settle(self) -> None:
        """Takes what there is now, with a zygote and no run yet, for the supervisor's own."""
        self.memory.settle()
        self.kernel.settle()


class Network:
    """The sockets of the container, which all of its runs share. What a dead program leaves (a closed connection waits
    for a minute, a socket in flight for the collector) keeps its address from the next."""

    def __init__(self) -> None:
        paths = ("/proc/self/net/sockstat", "/proc/self/net/sockstat6")  # the second with IPv6 alone
        self.files = [os.open(path, os.O_RDONLY) for path in paths if os.path.exists(path)]
        self.unused = self.read()

    def read(self) -> "list[int]":
        """The kernel's counts of sockets by kind and state: "used" are all, "inuse" those of a protocol, "tw" wait for
        their time. The others count for the whole machine or lag behind."""
        words = b"".join(os.pread(file, 4096, 0) for file in self.files).split()
        return [int(count) for name, count in zip(words, words[1:]) if name in (b"used", b"inuse", b"tw")]

    def sockets(self) -> int:
        """How many sockets there are, connections that nobody has accepted included. 0 where the kernel does not tell, or
        where the network is not the sandbox's own."""
        if SHARED_NETWORK or not self.files:
            return 0
        return int(os.pread(self.files[0], 64, 0).split()[2])  # "sockets: used N"

    def unread(self) -> int:
        """How many bytes wait in the queues of IP and netlink sockets, either way."""
        total = 0
        for fields_of_socket in table_of("netlink"):
            total += int(fields_of_socket[4])
        for name in ("tcp", "tcp6", "udp", "udp6"):
            for fields_of_socket in table_of(name):
                state, queues, inode = fields_of_socket[3], fields_of_socket[4], fields_of_socket[9]
                if state != b"0A":  # of one that listens they are numbers of connections
                    total += sum(int(queue, 16) for queue in queues.split(b":"))
                if inode == b"0":
                    total += PENDING_BYTES
        return total

    def in_use(self) -> bool:
        """Whether there are more than there were ever left."""
        now = self.read()
        more = any(count > before for count, before in zip(now, self.unused))
        self.unused = [min(pair) for pair in zip(now, self.unused)]
        return more


def table_of(name: str) -> "Iterator[list[bytes]]":
    """The sockets of a kind, as the kernel's columns. None where it has no such table."""
    try:
        with open(f"/proc/self/net/{name}", "rb") as lines:
            next(lines)
            for line in lines:
                yield line.split()
    except (OSError, StopIteration):
        return


class Sandbox:
    """All that stands still while runs come and go."""

    def __init__(self, channel: Channel, workspace: str) -> None:
        self.channel = channel
        self.workspace = workspace
        self.root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY)
        self.places = [Place(place) for place in (workspace, *PLACES) if os.access(place, os.W_OK)]
        self.network = Network()
        # Bytes in files of memory and in shared memory, whoever holds them; 0 where the kernel does not tell.
        self.shared_memory = Counter(("/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat"), "shmem")
        self.free = 0  # of them, how many are in use between runs
        self.home = Home(SKELETON, os.environ.get("HOME", "/tmp"))
        self.home.make()
        limit = int(os.environ.pop("VIVARIUM_WATCH_MEMORY", "0"))
        memory = MemoryWatch(limit, (workspace, "/tmp", "/dev/shm"), self.network, channel.breathe)
        self.watches = Watches(memory, KernelWatch(self.network))
        self.pressure = Pressure(memory, self.watches.kernel)

    def serve_run(self, program: Program) -> None:
        """Takes one job, runs it, reports it."""
        channel = self.channel
        try:
            job = receive_job(channel, program, self.workspace)
            # Tracebacks and inspect read the source from here.
            with open(f"{self.workspace}/{MAIN_FILE}", "wb") as main:
                main.write(job.code)
        except OSError as error:
            channel.send(b"!", fields(full=int(error.errno == ENOSPC), message=str(error).replace("\n", " ")))
            raise Gone("a job could not be staged") from None
        staged = self.stamps() if job.has_files else {}
        run = Run(channel, program, job, self.watches)
        await_tick(staged.values())
        channel.send(b"A")
        run.started = time.monotonic()
        self.watches.kernel.begin(run.started)
        program.release(job)
        run.watch()
        channel.post(b"X", self.facts(run))
        try:
            # Files are read when nobody writes them any more; to see that there are none, nobody need be waited for.
            if any_change(channel, self.root, staged, MAIN_FILE):
                channel.flush()
                program.bury(channel)
                send_files(channel, self.root, changes(channel, self.root, staged, MAIN_FILE), job.limits)
        except OSError as error:
            channel.post(b"S", b".\0" + os.strerror(error.errno).lower().encode())
        channel.send(b"Z")

    def stamps(self) -> "dict[str, tuple[int, int, int]]":
        """What lies in the workspace now: the stamp of each path."""
        return {found.path: found.stamp for found in self.channel.breathing(walk(self.root))}

    def facts(self, run: Run) -> bytes:
        """What is known of a run that has ended."""
        status = run.ending.status
        memory_kills, refused_processes = self.pressure.look()
        return fields(
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status),
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            timed_out=int(run.timed_out),
            wall_us=max(0, int((run.ending.at - run.started) * 1e6)),
            kill_us=max(0, int((run.gone - run.ending.at) * 1e6)),
            cpu_us=int(run.ending.cpu * 1e6),
            peak_kb=run.ending.peak_kb,
            memory_kills=memory_kills,
            refused_processes=refused_processes,
            excess=self.watches.kernel.take_excess(),
            # Looked up only if the program failed: it takes a while.
            full=0 if status == 0 else int(is_full(self.workspace)) + 2 * int(is_full("/tmp")),
        )

    def settle(self) -> None:
        """Takes what is in use now, with a zygote and no run yet, for what is in use between runs. Raises Gone."""
        self.empty()  # of what the imports have written
        self.watches.settle()
        self.check_pressure()
        self.network.unused = self.network.read()
        self.free = self.shared_memory.read() + SHARED_SLACK

    def clean(self) -> None:
        """Takes away what a run has left, of which nothing runs any more. Raises Gone where that is in doubt."""
        self.empty()
        patience = time.monotonic() + FREE_SECONDS
        while self.shared_memory.read() > self.free:  # some of it the kernel frees a little later
            if time.monotonic() > patience:
                raise Gone("memory of the run is not freed")
            self.channel.breathe()
            time.sleep(0.005)
        self.check_pressure()
        if self.network.in_use():
            raise Gone("the run has left connections, which the kernel keeps for a while")

    def check_pressure(self) -> None:
        """Raises Gone where the kernel has refused something since the last look."""
        if any(self.pressure.look()):
            raise Gone("the run came near its limits while it was killed")

    def empty(self) -> None:
        """Makes the places where programs write what they were at the start. Raises Gone."""
        left = [MAX_LEFTOVERS]
        try:
            for place in self.places:
                self.channel.breathe()
                place.clean(left)
            self.home.make()
        except OSError as error:
            raise Gone(f"cleaning failed: {error}") from None


class Home:
    """What the image prepared (Matplotlib's font index, say), linked into the program's home, which starts empty."""

    def __init__(self, skeleton: str, home: str) -> None:
        self.folders: "list[str]" = []
        self.links: "list[tuple[str, str]]" = []
        for folder, _, files in os.walk(skeleton):
            target = home + folder[len(skeleton) :]
            if target != home:
                self.folders.append(target)
            self.links += [(f"{folder}/{name}", f"{target}/{name}") for name in files]

    def make(self) -> None:
        """Makes the folders and links. Raises OSError."""
        for folder in self.folders:
            os.mkdir(folder)
        for source, target in self.links:
            os.symlink(source, target)


def serve_one(channel: Channel, workspace: str, wall: Filter) -> None:
    """Serves the sandbox's only run."""
    sandbox = Sandbox(channel, workspace)
    gc.freeze()  # a collection in the program then leaves these pages shared
    program = OnlyProgram(workspace, wall)
    channel.send(b"R", fields(protocol=PROTOCOL, python=PYTHON, isolation="container"))
    sandbox.serve_run(program)


def serve_many(channel: Channel, workspace: str, wall: Filter, modules: "list[str]") -> None:
    """Serves one run after the other until the server has enough of it. Raises Unable where the kernel or the engine
    refuses what that takes."""
    if places := unexpected_places((workspace, *PLACES)):
        where = ", ".join(places)
        raise Unable(
            f"programs could leave files for others at {where}, which the image or engine mounts", "foreign_mount"
        )
    sandbox = Sandbox(channel, workspace)
    if not sandbox.network.files:
        raise Unable("the kernel does not tell how many sockets are in use")
    zygote = ZygoteLink(channel, workspace, wall, modules)
    program = zygote.next()
    sandbox.settle()
    channel.send(b"R", fields(protocol=PROTOCOL, python=PYTHON, isolation="run") + zygote.report)
    while True:
        sandbox.serve_run(program)
        began = time.monotonic()
        program.bury(channel)
        sandbox.clean()
        cleaned = time.monotonic()
        program = zygote.next()
        prepared = time.monotonic()
        channel.send(b"R", fields(clean_us=int((cleaned - began) * 1e6), prepare_us=int((prepared - cleaned) * 1e6)))


def load_session(source: str) -> "Any":
    """Loads session.py, which needs this module under its own name."""
    sys.modules["supervisor"] = sys.modules["__main__"]
    module = type(sys)("session")
    exec(compile(source, "session.py", "exec", dont_inherit=True), module.__dict__)
    del sys.modules["supervisor"]  # programs have no business with it
    return module


def main() -> None:
    """Sets the sandbox up, says ready, serves. The arguments are the workspace, the seconds of silence after which the
    server counts as gone, the isolation ("run", "container" or "session"), the modules to import ahead ("auto": those
    that the image names), the machine that the seccomp filter is for, and the filter's instructions in hexadecimal
    digits. For a session two more follow: when it ends, in milliseconds since 1970, and the source of session.py."""
    if os.getpid() != 1:
        sys.exit("the supervisor kills every process it can see: it must be PID 1 of a sandbox")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files != resource.RLIM_INFINITY and files < LEAST_OPEN_FILES:
        sys.exit(f"a process may have {files} files open, and it takes {LEAST_OPEN_FILES}: raise the limit (ulimit -n)")
    workspace, silence, isolation, modules, machine, instructions, *rest = sys.argv[1:]
    hide_arguments()
    ignore_signals()
    set_dumpable(False)
    widen(0)
    widen(1)
    channel = Channel(0, 1, float(silence))
    channel.pong()  # Python has started: from here on this process shows that it is alive
    ours = machine == os.uname().machine
    wall = Filter(instructions if ours else "")  # the engine's own profile stands in any case
    try:
        if isolation == "session":
            expires, source = rest
            load_session(source).serve(workspace, wall, float(silence), int(expires) / 1000)
        elif isolation != "run":
            serve_one(channel, workspace, wall)
        elif ours:
            serve_many(channel, workspace, wall, preload_names(modules))
        else:
            here = os.uname().machine
            raise Unable(f"the server's seccomp filter is for {machine}, and this is {here}", "other_machine")
    except Gone as error:
        os.write(2, f"{error}\n".encode())
        os._exit(0)
    except (Unable, OSError) as error:
        cause = error.cause if isinstance(error, Unable) else ""
        os.write(2, (f"cause={cause}\n" if cause else "").encode() + f"{error}\n".encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
