"""The supervisor: PID 1 of a sandbox. It runs one program that nobody has read and reports how it went.

The server passes this file on the command line (python3 -I -c SOURCE WORKSPACE SILENCE_SECONDS), so any image
with Python 3.9 or newer will do; it imports little, because every sandbox waits for it. It talks to the server
over its own stdin and stdout in frames: one byte of kind, four bytes of big-endian length, the payload.
frames.go beside this file documents every kind.

What must hold, whatever the program does:
  * Nobody but this process reads or writes fds 0 and 1: it is not dumpable, and the program's process closes
    what it inherited before it makes itself dumpable again.
  * A run ends when its main process ends, never at the end of its pipes. Then everything else is killed.
  * When the server falls silent, or no longer reads, this process exits and the kernel ends the sandbox with it.
"""

import _ast
import atexit
import ctypes
import gc
import io
import os
import resource
import select
import struct
import sys
import time

from errno import ENOSPC

# typing, signal and json would add 25 ms to the start of every sandbox (their own imports are large), so the types
# are for mypy's eyes only, the signals come from the C module, and the protocol is no JSON.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable, Iterator
    from types import CodeType, ModuleType, TracebackType
    from typing import NoReturn, Optional
else:
    import _signal

PROTOCOL = 1
MAIN_FILE = "__main__.py"  # reserved in the workspace: the program itself
SKELETON = "/opt/vivarium/home"  # what an image wants linked into every program's home
MAX_FRAME = 1 << 20  # bytes of payload that the server may send in one frame
CHUNK = 1 << 16  # bytes read at a time
MAX_DEPTH = 31  # folders below the workspace that are searched for files
MAX_PATH = 1024  # bytes of a path that is returned; the server takes no longer or deeper ones (execution.PathFault)
MAX_ENTRIES = 20_000  # directory entries that are looked at
REAP_SECONDS = 0.25  # how often orphans of a running program are buried
PR_SET_DUMPABLE = 4
CLOCK_REALTIME_COARSE = 5  # the time module has no name for it
REHEARSE_SECONDS = 0.03  # how long a program's process waits for its code before it rehearses
FUTURE_FLAGS = 0x1FE0000  # CO_FUTURE_*: what "from __future__ import" sets in a code object


def set_dumpable(on: bool) -> None:
    """Says whether processes of the same user may trace this one and open its /proc entries (prctl(2))."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, int(on), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


class Gone(Exception):
    """The server is gone or stopped reading: there is nobody to work for."""


class Channel:
    """The framed connection to the server."""

    def __init__(self, receive_fd: int, send_fd: int, silence: float) -> None:
        self.receive_fd = receive_fd
        self.send_fd = send_fd
        self.silence = silence  # seconds after which a quiet server counts as gone
        self.heard = time.monotonic()
        self.buffer = bytearray()
        self.posted = bytearray()
        self.writable = select.poll()
        self.writable.register(send_fd, select.POLLOUT)
        os.set_blocking(send_fd, False)

    def post(self, kind: bytes, payload: bytes = b"") -> None:
        """Puts one frame behind those that the next send sends: each write wakes four processes up to the server's."""
        self.posted += kind + struct.pack(">I", len(payload)) + payload

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Sends one frame and those before it. Raises Gone when the other side does not take it."""
        self.post(kind, payload)
        rest = memoryview(bytes(self.posted))
        self.posted.clear()
        while rest:
            try:
                rest = rest[os.write(self.send_fd, rest) :]
            except BlockingIOError:
                if not self.writable.poll(self.silence * 1000):
                    raise Gone("the server does not read") from None
            except OSError as error:
                raise Gone(str(error)) from error

    def read_available(self) -> None:
        """Takes what the server has sent; call it when the descriptor is readable. Raises Gone at the end."""
        data = os.read(self.receive_fd, CHUNK)
        if not data:
            raise Gone("the server closed the connection")
        self.heard = time.monotonic()
        self.buffer += data

    def silence_left(self) -> float:
        """Seconds until the server counts as gone. Raises Gone when it does."""
        left = self.heard + self.silence - time.monotonic()
        if left <= 0:
            raise Gone("the server fell silent")
        return left

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

    def receive(self) -> "tuple[bytes, bytes]":
        """Waits for the next frame that is not a ping. Raises Gone when the server is."""
        readable = select.poll()
        readable.register(self.receive_fd, select.POLLIN)
        while True:
            frame = self.next_buffered()
            if frame is None:
                if readable.poll(self.silence_left() * 1000):
                    self.read_available()
            elif frame[0] != b"P":
                return frame


def fields(**values: object) -> bytes:
    """Writes `name=value` lines."""
    return "".join(f"{name}={value}\n" for name, value in values.items()).encode()


def parse_fields(payload: bytes) -> "dict[str, int]":
    """Reads `name=number` lines, the form of a job's limits."""
    return {name: int(value) for name, _, value in (line.partition("=") for line in payload.decode().splitlines())}


# --- The program's own process -------------------------------------------------------------------------------


def default_signals() -> None:
    """Restores what an ordinary Python program starts with: this process ignores every signal, its child must not."""
    for number in range(1, _signal.NSIG):
        if number not in (_signal.SIGKILL, _signal.SIGSTOP):
            try:
                _signal.signal(number, _signal.SIG_DFL)
            except (OSError, ValueError):
                pass  # reserved by the C library
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_IGN)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def read_to_end(fd: int) -> bytes:
    """Reads a pipe until its writers have closed it, then closes it too."""
    parts = []
    while part := os.read(fd, CHUNK):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)


def compile_program(source: bytes, path: str, interactive: bool) -> "list[CodeType]":
    """Compiles the program; when interactive and its last statement is an expression, that one as a REPL would."""
    tree = compile(source, path, "exec", _ast.PyCF_ONLY_AST, dont_inherit=True)
    last = tree.body[-1] if interactive and tree.body else None
    if not isinstance(last, _ast.Expr):
        return [compile(source, path, "exec", dont_inherit=True)]
    del tree.body[-1]
    body: "CodeType" = compile(tree, path, "exec", dont_inherit=True)
    flags = body.co_flags & FUTURE_FLAGS
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


def report(error: BaseException) -> None:
    """Prints a traceback as the interpreter does, without the frames of this file."""
    trace: "Optional[TracebackType]" = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals is globals():
        trace = trace.tb_next
    error.__traceback__ = trace
    try:
        sys.excepthook(type(error), error, trace)
    except BaseException as hook_error:
        print("Error in sys.excepthook:", file=sys.stderr)
        sys.__excepthook__(type(hook_error), hook_error, hook_error.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, trace)


def execute(source: bytes, path: str, interactive: bool) -> int:
    """Runs the program in a fresh `__main__` and returns its exit status."""
    namespace = make_main(path).__dict__
    try:
        for code in compile_program(source, path, interactive):
            exec(code, namespace)
    except SystemExit as stop:
        return exit_status_of(stop)
    except KeyboardInterrupt as interrupt:
        report(interrupt)
        return -_signal.SIGINT
    except BaseException as error:
        report(error)
        return 1
    return 0


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


def wind_down(workspace: str) -> bool:
    """Does what the interpreter's end does for a program whose only thread is this one: runs its atexit functions and
    drops its variables, so that files left open are written. The rest of the interpreter's end is left out: it takes
    2 to 4 ms to free what the kernel frees anyway. Returns whether all output could be written."""
    atexit._run_exitfuncs()
    flush_files()
    main, prefix = sys.modules.get("__main__"), workspace + "/"
    for module in list(sys.modules.values()):
        namespace = module.__dict__ if isinstance(module, type(sys)) else {}
        if module is main or str(namespace.get("__file__")).startswith(prefix):
            drop_variables(namespace)
    gc.collect()
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            written = False
    return written


def end_program(status: int, workspace: str) -> "NoReturn":
    """Ends the program's process. A negative status is a signal that it dies of."""
    if threading := sys.modules.get("threading"):
        threading._shutdown()
    if len(sys._current_frames()) > 1:  # daemon threads: only the interpreter's real end keeps them quiet
        ctypes.pythonapi.Py_Exit(128 - status if status < 0 else status)
    if not wind_down(workspace) and status == 0:
        status = 120  # what the interpreter says when stdout cannot be flushed
    if status < 0:
        _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def rehearse() -> None:
    """Runs a tiny program that fails, and throws its output away. The process then has the pages and modules that most
    programs need; what is left of a run is a third (measured: see docs/performance.md)."""
    streams = sys.stdout, sys.stderr
    with open(os.devnull, "w") as null:
        sys.stdout = sys.stderr = null
        try:
            exec(compile("class A: pass\nprint(6 * 7, A())\n1 / 0", "", "exec"), {"__name__": "__main__"})
        except ZeroDivisionError as error:
            report(error)  # imports traceback, which takes 10 ms
        finally:
            sys.stdout, sys.stderr = streams
    gc.freeze()  # or the collection at the program's end looks at it all


def be_program(stdin: int, stdout: int, stderr: int, control: int, workspace: str) -> "NoReturn":
    """Turns a fresh fork into the program's process: waits for the code on the control pipe, runs it, exits.

    The order matters: first every inherited descriptor goes, only then may the process be traced again.
    """
    os.setsid()
    control = os.dup2(control, 3) if control != 3 else control
    for target, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, target)
    os.closerange(4, 1 << 20)
    default_signals()
    set_dumpable(True)
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # the kernel takes the program before the supervisor
    os.chdir(workspace)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout, sys.stderr = unbuffered(1, "surrogateescape"), unbuffered(2, "backslashreplace")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    if not waiting.poll(REHEARSE_SECONDS * 1000):  # under load there is no time for it
        rehearse()
    job = read_to_end(control)
    if not job:
        os._exit(0)  # the supervisor is gone
    interactive, cpu_seconds = struct.unpack_from(">?I", job)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    end_program(execute(job[5:], f"{workspace}/{MAIN_FILE}", interactive), workspace)


class Program:
    """A forked interpreter that waits for code: its process and our ends of its pipes."""

    def __init__(self, workspace: str) -> None:
        stdin, self.stdin = os.pipe()
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        control, self.control = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                # Keep the four numbers clear of the places they are moved to.
                fds = [os.dup2(fd, 40 + i) for i, fd in enumerate((stdin, stdout, stderr, control))]
                be_program(fds[0], fds[1], fds[2], fds[3], workspace)
            finally:
                os._exit(70)  # reached only when setting the process up failed
        for fd in (stdin, stdout, stderr, control):
            os.close(fd)
        self.pidfd = os.pidfd_open(self.pid)
        for fd in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(fd, False)  # the program can read from its own pipes, and so take what poll has seen

    def release(self, source: bytes, interactive: bool, cpu_seconds: int) -> None:
        """Hands over the code: from here on the program runs."""
        job = memoryview(struct.pack(">?I", interactive, cpu_seconds) + source)
        try:
            while job:
                job = job[os.write(self.control, job) :]
        except BrokenPipeError:
            pass  # it died while waiting; its status tells
        os.close(self.control)


# --- The workspace -------------------------------------------------------------------------------------------


class Found:
    """A regular file in the workspace, or an entry that is not returned and why."""

    def __init__(self, path: str, reason: str, stamp: "tuple[int, int, int]" = (0, 0, 0)) -> None:
        self.path = path
        self.reason = reason  # empty: a regular file
        self.stamp = stamp  # inode, change time, size: differs when the file was made or changed
        self.size = stamp[2]


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
        if path == MAIN_FILE:
            continue
        if left[0] <= 0:
            yield Found(
                path, f"the workspace has more than {MAX_ENTRIES} entries; this and later ones were not searched"
            )
            return
        left[0] -= 1
        if fault := name_fault(entry.name):
            yield Found(path, fault)
        elif len(path.encode()) > MAX_PATH:
            yield Found(path[:100] + "...", f"its path has more than {MAX_PATH} bytes")
        elif entry.is_dir(follow_symlinks=False):
            yield from walk_folder(folder, entry.name, path, depth + 1, left)
        elif entry.is_file(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            yield Found(path, "", (status.st_ino, status.st_ctime_ns, status.st_size))
        else:
            yield Found(path, "it is a link" if entry.is_symlink() else "it is not a regular file")


def walk_folder(parent: int, name: str, path: str, depth: int, budget: "list[int]") -> "Iterator[Found]":
    """Lists the folder `name` of an open folder."""
    if depth > MAX_DEPTH:
        yield Found(path, f"it lies more than {MAX_DEPTH} folders deep")
        return
    try:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
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
            below = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)


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


def is_full(folder: str) -> bool:
    """Whether a file system has no room left for data or for files."""
    status = os.statvfs(folder)
    return status.f_bavail == 0 or (status.f_files > 0 and status.f_favail == 0)


# --- A run ---------------------------------------------------------------------------------------------------


def counter(paths: "tuple[str, ...]", name: str) -> int:
    """Reads `name N` from the first of some cgroup files that exists; 0 when none does."""
    for path in paths:
        try:
            with open(path) as lines:
                for line in lines:
                    key, _, value = line.partition(" ")
                    if key == name:
                        return int(value)
        except (OSError, ValueError):
            continue
    return 0


class Pressure:
    """What the kernel has refused this container so far (cgroup v2, then v1)."""

    def __init__(self) -> None:
        self.memory_kills = counter(
            ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"), "oom_kill"
        )
        self.refused_processes = counter(("/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events"), "max")


class Job:
    """What the server asks for: limits, code, stdin. Files go straight into the workspace."""

    def __init__(self, limits: "dict[str, int]") -> None:
        self.limits = limits
        self.code = bytearray()
        self.stdin = bytearray()


def receive_job(channel: Channel, workspace: str) -> Job:
    """Collects a job and stages its files. Raises OSError when they do not fit, Gone when the server is."""
    job = Job({})
    file = -1
    while True:
        kind, payload = channel.receive()
        if kind == b"J":
            job = Job(parse_fields(payload))
        elif kind == b"C":
            job.code += payload
        elif kind == b"I":
            job.stdin += payload
        elif kind == b"F":
            if file >= 0:
                os.close(file)
            file = stage(workspace, payload.decode())
        elif kind == b"D":
            rest = memoryview(payload)
            while rest:
                rest = rest[os.write(file, rest) :]
        elif kind == b"G":
            if file >= 0:
                os.close(file)
            return job
        else:
            raise Gone(f"an unknown frame {kind!r}")


class Run:
    """One program from its release to its end."""

    def __init__(self, channel: Channel, program: Program, job: Job) -> None:
        self.channel = channel
        self.program = program
        self.stdin = memoryview(bytes(job.stdin))
        self.room = {program.stdout: job.limits["output_bytes"], program.stderr: job.limits["output_bytes"]}
        self.cut: "set[int]" = set()  # those of which something was left out
        self.kinds = {program.stdout: b"O", program.stderr: b"E"}
        self.timeout = job.limits["timeout_ms"] / 1000
        self.status: "Optional[int]" = None  # of the main process, as waitpid gives it
        self.cpu = 0.0  # seconds, of all processes that ended
        self.peak_kb = 0  # resident memory of the largest of them
        self.timed_out = False
        self.started = self.ended = 0.0
        self.poll = select.poll()

    def watch(self) -> None:
        """Forwards output and feeds stdin until the main process has ended or its time is up, then kills the rest."""
        for fd in (self.channel.receive_fd, self.program.pidfd, self.program.stdout, self.program.stderr):
            self.poll.register(fd, select.POLLIN)
        if self.stdin:
            self.poll.register(self.program.stdin, select.POLLOUT)
        else:
            os.close(self.program.stdin)
        self.started = time.monotonic()
        deadline = self.started + self.timeout
        while self.status is None:
            left = deadline - time.monotonic()
            if left <= 0:
                self.timed_out = True
                break
            wait = min(left, REAP_SECONDS, self.channel.silence_left())
            for fd, _ in self.poll.poll(wait * 1000 + 1):
                self.handle(fd)
            self.reap(os.WNOHANG)
        self.ended = time.monotonic()
        self.kill_all()
        self.drain()

    def handle(self, fd: int) -> None:
        """Acts on one descriptor that is ready."""
        if fd == self.channel.receive_fd:
            self.channel.read_available()
            while frame := self.channel.next_buffered():
                if frame[0] != b"P":
                    raise Gone(f"an unexpected frame {frame[0]!r}")
        elif fd == self.program.stdin:
            self.feed()
        elif fd in self.kinds and not self.forward(fd):
            self.poll.unregister(fd)

    def feed(self) -> None:
        """Writes some of stdin to the program."""
        try:
            self.stdin = self.stdin[os.write(self.program.stdin, self.stdin[:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            self.stdin = memoryview(b"")  # it closed its stdin: the rest is not wanted
        if not self.stdin:
            self.poll.unregister(self.program.stdin)
            os.close(self.program.stdin)

    def forward(self, fd: int) -> int:
        """Reads some output and sends what is within the limit; what is beyond it becomes one empty frame.
        Returns the number of bytes read, 0 at the end, -1 when there is nothing now."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return -1
        part = data[: self.room[fd]]
        if part:
            self.room[fd] -= len(part)
            self.channel.send(self.kinds[fd], part)
        if len(part) < len(data) and fd not in self.cut:
            self.cut.add(fd)
            self.channel.send(self.kinds[fd])
        return len(data)

    def reap(self, options: int) -> bool:
        """Buries processes that ended, with WNOHANG all that have, else waits for one. Returns whether any are left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, options)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.cpu += usage.ru_utime + usage.ru_stime
            self.peak_kb = max(self.peak_kb, usage.ru_maxrss)
            if pid == self.program.pid:
                self.status = status
            if not options:
                return True

    def kill_all(self) -> None:
        """Kills every other process of the sandbox, again and again until none is left."""
        while True:
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                break
            self.reap(0)
        while self.reap(os.WNOHANG):
            pass

    def drain(self) -> None:
        """Forwards what is still in the pipes. All writers are dead, so this is bounded by the pipes' size."""
        for fd in self.kinds:
            while self.forward(fd) > 0:
                pass


def send_files(
    channel: Channel, workspace: int, before: "dict[str, tuple[int, int, int]]", limits: "dict[str, int]"
) -> None:
    """Sends what the run made or changed, within the limits, and names what is not sent and why."""
    files, total = limits["files"], limits["total_bytes"]
    skipped = 0
    for found in walk(workspace):
        reason = found.reason
        if not reason and before.get(found.path) == found.stamp:
            continue
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
    """Sends one file; returns why it could not be read, or ''."""
    try:
        fd = open_beneath(workspace, found.path)
    except OSError as error:
        return os.strerror(error.errno).lower()
    try:
        channel.post(b"F", found.path.encode())
        left = found.size
        while left > 0 and (data := os.read(fd, min(CHUNK, left))):
            channel.send(b"D", data)
            left -= len(data)
    finally:
        os.close(fd)
    return ""


def serve_run(channel: Channel, program: Program, root: int, workspace: str, before: Pressure) -> None:
    """Takes one job, runs it, reports it. `before` is what had been refused when the sandbox was idle."""
    try:
        job = receive_job(channel, workspace)
        with open(f"{workspace}/{MAIN_FILE}", "wb") as main:  # tracebacks and inspect read the source from here
            main.write(job.code)
    except OSError as error:
        channel.send(b"!", fields(full=int(error.errno == ENOSPC), message=str(error).replace("\n", " ")))
        return
    staged = {found.path: found.stamp for found in walk(root)}
    run = Run(channel, program, job)
    await_tick(staged.values())
    channel.send(b"A")
    program.release(bytes(job.code), bool(job.limits["interactive"]), job.limits["cpu_seconds"])
    run.watch()
    channel.send(b"X", run_facts(run, workspace, before))
    try:
        os.fchmod(root, 0o700)  # the program may have changed it
        send_files(channel, root, staged, job.limits)
    except OSError as error:
        channel.post(b"S", b".\0" + os.strerror(error.errno).lower().encode())
    channel.send(b"Z")


def run_facts(run: Run, workspace: str, before: Pressure) -> bytes:
    """What is known of a run that has ended. What it ran into is looked up only if it failed: that takes 0.5 ms."""
    status = run.status or 0
    after = before if status == 0 else Pressure()
    return fields(
        exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status),
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        timed_out=int(run.timed_out),
        wall_us=int((run.ended - run.started) * 1e6),
        cpu_us=int(run.cpu * 1e6),
        peak_kb=run.peak_kb,
        memory_kills=after.memory_kills - before.memory_kills,
        refused_processes=after.refused_processes - before.refused_processes,
        full=0 if status == 0 else int(is_full(workspace)) + 2 * int(is_full("/tmp")),
    )


def link_home(skeleton: str, home: str) -> None:
    """Links what the image prepared (Matplotlib's font index, say) into the program's home, which starts empty."""
    for folder, _, files in os.walk(skeleton):
        target = home + folder[len(skeleton) :]
        os.makedirs(target, exist_ok=True)
        for name in files:
            os.symlink(f"{folder}/{name}", f"{target}/{name}")


def ignore_signals() -> None:
    """Ignores every signal that can be ignored. SIGCHLD keeps its default: ignored, it would hide exit statuses."""
    for number in range(1, _signal.NSIG):
        if number not in (_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD):
            try:
                _signal.signal(number, _signal.SIG_IGN)
            except (OSError, ValueError):
                pass  # reserved by the C library


def main() -> None:
    """Sets the sandbox up, says ready, serves one run, ends."""
    if os.getpid() != 1:
        sys.exit("the supervisor kills every process it can see: it must be PID 1 of a sandbox")
    workspace, silence = sys.argv[1], float(sys.argv[2])
    ignore_signals()
    set_dumpable(False)
    channel = Channel(0, 1, silence)
    link_home(SKELETON, os.environ.get("HOME", "/tmp"))
    root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY)
    before = Pressure()
    gc.freeze()  # a collection in the program then leaves these pages shared
    program = Program(workspace)
    channel.send(b"R", fields(protocol=PROTOCOL, python=".".join(map(str, sys.version_info[:3]))))
    try:
        serve_run(channel, program, root, workspace, before)
    except Gone:
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
