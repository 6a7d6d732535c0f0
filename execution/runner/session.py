"""A session: a sandbox that one client keeps for a while. supervisor.py loads this file where it is to be one.

A session takes calls one after the other: Python in one interpreter, whose state stays; commands in a shell of their
own; reads and writes of files. All of it belongs to one client, so unlike runs, calls are not kept apart: they share
the processes that they leave in the background, the workspace and /tmp.

What must hold, whatever its programs do:
  * The session ends at its time, with or without a server. Nothing else ends it: servers come and go.
  * A server that comes finds the stream in order, whatever the one before it has left half said (see SessionChannel).
  * A call that its server takes back before it has begun does not begin: the client was told that it may be made again.
  * A call ends at its time. A cell that does not heed the interrupt is killed with its interpreter, and that is told.
"""

import fcntl
import gc
import io
import linecache
import os
import resource
import select
import stat
import struct
import sys
import time
import traceback

from errno import EAGAIN, ECANCELED, EFBIG, EISDIR

from supervisor import (
    BURY_SECONDS,
    CHUNK,
    COROUTINE_FLAG,
    DONE_FD,
    MAIN_FILE,
    OPEN_FILES,
    OURS,
    PROTOCOL,
    PYTHON,
    WATCH_SECONDS,
    Channel,
    Ending,
    Filter,
    Found,
    Gone,
    Job,
    Pipes,
    Program,
    Run,
    Sandbox,
    Watches,
    await_tick,
    be_first_victim,
    changes,
    close_all,
    compile_program,
    default_signals,
    enter,
    exit_status_of,
    fields,
    libc,
    limit,
    make_main,
    make_rules,
    make_streams,
    obey,
    open_beneath,
    parse_fields,
    report,
    run_coroutines,
    send_file,
    send_files,
    set_dumpable,
    shows,
    stamp_of,
    take_over,
    unbuffered,
    views,
    without_ours,
    write_all,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from types import CodeType, TracebackType
    from typing import Any, Callable, NoReturn, Optional, TextIO
else:
    import _signal

OURS.append(globals())

OP_PYTHON, OP_BASH, OP_READ, OP_WRITE = range(4)  # a job's "op"
LOOK_SECONDS = 300  # how often an idle session looks at the time: poll's clock stands still while the machine sleeps
INTERRUPT_SECONDS = 2  # that a cell gets to heed the interrupt
INTERRUPT_AGAIN_SECONDS = 0.2  # after which it is sent again: one that comes before the cell has begun is lost
HEED_SECONDS = 0.8  # from one KeyboardInterrupt of a cell to the next, if it has not ended
STALE_SECONDS = 0.5  # between a look whether a call is wanted and its beginning, after which this process was frozen
MAX_JUNK_READS = 16  # of what programs have written to the pipe for an interpreter's word
MAX_CALMS = 100  # tries to keep handlers from raising, each of which may be cut short by one
MAX_KEPT = 1 << 18  # bytes that an interpreter's threads and children have printed between cells, of each stream
FIONREAD = 0x541B  # ioctl_tty(2); the termios module is not always there
KINDS = b"JCIFDGPNKYH"  # of the frames that servers send; see frames.go
TAG = 8  # bytes of its nonce with which a server begins what it says
GREETING = b"Y\0\0\0"  # the beginning of the frame with a nonce, which is short
MAX_JOBS = 1000  # commands that are over, whose pipes something in the background may still write to


# --- The interpreter's own process ----------------------------------------------------------------------------

CELL = struct.Struct(">?III")  # before a cell: interactive, seconds of CPU time, bytes of stdin, bytes of code
WORD = struct.Struct("IQQ")  # the end of a cell: a status as waitpid gives it, microseconds of CPU, kilobytes


def read_exactly(fd: int, size: int) -> bytes:
    """Reads so many bytes, or fewer where the pipe ends."""
    data = bytearray()
    while len(data) < size and (part := os.read(fd, min(CHUNK, size - len(data)))):
        data += part
    return bytes(data)


def nameless_file() -> int:
    """Opens a new file that has no name: in memory, or, where that is not to be had, among temporary ones."""
    try:
        return os.memfd_create("stdin")
    except OSError:
        return os.open("/tmp", os.O_TMPFILE | os.O_RDWR)


def make_stdin(source: int, size: int) -> "TextIO":
    """Makes a cell's standard input of so many bytes of a pipe, which is its children's as well unless there is no room
    for another file. It may be large: there is one copy of it."""
    try:
        file = nameless_file()
        try:
            os.dup2(file, 0)  # the last cell's goes
        finally:
            os.close(file)
        if size:
            os.posix_fallocate(0, 0, size)  # where it fails, nothing has been read yet
    except OSError:
        return io.TextIOWrapper(io.BytesIO(read_exactly(source, size)), "utf-8", "surrogateescape")
    while size and (part := os.read(source, min(CHUNK, size))):
        write_all(0, part)
        size -= len(part)
    os.lseek(0, 0, os.SEEK_SET)
    return open(0, encoding="utf-8", errors="surrogateescape", closefd=False)


def used_cpu() -> float:
    """Seconds of CPU time of this process and of the children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def limit_resources() -> None:
    """Sets the limits of a program's process that are not for the time it takes."""
    limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)


class Handlers:
    """The handlers of signals that cells have installed. Between cells they are called as well, but what they raise, which
    would end the interpreter, is printed."""

    def __init__(self, ours: "dict[int, Callable[..., object]]") -> None:
        self.ours = ours  # with which each cell begins
        self.held: "dict[int, Callable[..., object]]" = {}  # those that are called by way of our own
        self.own = self.call

    def release(self) -> None:
        """Puts the handlers in their places, where what they raise is raised in a cell."""
        for number, handler in (self.held | self.ours).items():
            _signal.signal(number, handler)
        self.held.clear()

    def hold(self) -> None:
        """Puts our own handler in the place of each."""
        for number in range(1, _signal.NSIG):
            handler = _signal.getsignal(number)
            if callable(handler) and handler is not self.own:
                self.held[number] = handler
                _signal.signal(number, self.own)

    def call(self, number: int, frame: object) -> None:
        """Calls a handler: our own."""
        try:
            self.held[number](number, frame)
        except BaseException as error:
            report_quietly(error)
        self.hold()  # it may have put itself back


class Notebook:
    """The interpreter that runs a session's cells, all in one `__main__`."""

    def __init__(self, workspace: str) -> None:
        self.process = os.getpid()
        self.namespace = make_main(f"{workspace}/{MAIN_FILE}").__dict__
        del self.namespace["__file__"]  # there is none
        sys.argv[:] = [""]
        self.outputs = Outputs()
        self.cells = 0
        self.busy = False  # a cell runs, and may be interrupted
        self.interrupted = 0.0  # when the cell was last, by the monotonic clock: it may take its time to heed that
        self.out_of_cpu = False
        self.loop: "Any" = None  # the event loop of cells that await
        self.handlers = Handlers({_signal.SIGINT: self.interrupt, _signal.SIGXCPU: self.stop_for_cpu})

    def serve(self) -> "NoReturn":
        """Runs one cell after the other, until the supervisor is gone."""
        self.handlers.release()
        while True:
            head = read_exactly(3, CELL.size)
            if len(head) < CELL.size:
                os._exit(0)
            interactive, cpu_seconds, stdin_size, code_size = CELL.unpack(head)
            sys.stdin = make_stdin(3, stdin_size)
            before = used_cpu()
            self.allow_cpu(cpu_seconds)
            source = read_exactly(3, code_size)
            try:
                status = self.run_cell(source, interactive)
            except BaseException as error:  # there is no memory, or the program has broken what tracebacks need
                status = 1 << 8
                os.write(2, f"the cell's end could not be reported: {type(error).__name__}\n".encode())
            self.tell(status, used_cpu() - before)

    def tell(self, status: int, cpu: float) -> None:
        """Says that a cell is over. A fork that has run to the cell's end has nothing to say."""
        libc.fflush(None)  # what C code has printed
        if os.getpid() != self.process:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
        os.write(DONE_FD, WORD.pack(status, int(cpu * 1e6), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

    def allow_cpu(self, seconds: int) -> None:
        """Allows this process so much more CPU time."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
        limit(resource.RLIMIT_CPU, soft, resource.RLIM_INFINITY)
        self.interrupted = 0.0
        self.out_of_cpu = False

    def interrupt(self, *_: object) -> None:
        """Interrupts a cell, and nothing else: the handler of SIGINT. Once is not enough: what the cell does about the
        first may wait for threads, or it may be lost in a __del__."""
        now = time.monotonic()
        if self.busy and now - self.interrupted >= HEED_SECONDS:
            self.interrupted = now
            raise KeyboardInterrupt

    def stop_for_cpu(self, *_: object) -> None:
        """Interrupts a cell that has used up its CPU time: the handler of SIGXCPU, which comes again each second."""
        if self.busy:
            self.out_of_cpu = True
            raise KeyboardInterrupt

    def run_cell(self, source: bytes, interactive: bool) -> int:
        """Runs a cell and reports what it raises. Returns a status as waitpid gives it."""
        self.outputs.mend()
        self.cells += 1
        name = f"<cell {self.cells}>"
        text = source.decode("utf-8", "replace")
        lines = io.StringIO(text, newline=None).readlines()  # as the compiler splits them; splitlines splits at more
        linecache.cache[name] = len(source), None, lines, name  # for tracebacks and inspect
        error = self.attempt(lambda: self.run_codes(compile_program(source, name, interactive)))
        self.outputs.mend()
        # An interrupted cell's time is up, and to draw takes more. A fork that has run to the cell's end would draw again.
        if not isinstance(error, KeyboardInterrupt) and os.getpid() == self.process:
            error = self.attempt(shows.save_open_figures) or error
        if error is None:
            return 0
        if isinstance(error, SystemExit):
            return exit_status_of(error) << 8
        report_cell(error)
        if isinstance(error, KeyboardInterrupt):
            return _signal.SIGXCPU if self.out_of_cpu else 130 << 8
        return 1 << 8

    def attempt(self, do: "Callable[[], None]") -> "Optional[BaseException]":
        """Does something that may be interrupted, and returns what it raises."""
        try:
            try:
                self.handlers.release()
                self.busy = True
                do()
            finally:
                self.calm()
        except BaseException as error:
            self.calm()  # a signal may have come before it was
            return error
        return None

    def calm(self) -> None:
        """Sees to it that no signal raises anything any more."""
        tries = MAX_CALMS
        while tries:
            tries -= 1
            try:
                self.busy = False
                self.handlers.hold()
                return
            except BaseException:
                pass  # a signal came meanwhile, or the program has broken what it takes

    def run_codes(self, codes: "list[CodeType]") -> None:
        """Runs code. What awaits shares one event loop with other cells, so that they can use each other's objects."""
        if not any(code.co_flags & COROUTINE_FLAG for code in codes):
            for code in codes:
                exec(code, self.namespace)
            return
        self.busy = False  # an interrupt, which comes again, would leave half a module
        import asyncio  # takes 30 ms, and only these cells need it

        self.busy = True
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(run_coroutines(codes, self.namespace))
        try:
            error = self.loop.run_until_complete(task)
        except KeyboardInterrupt as interrupt:
            trace = self.cancel(task)
            while trace is not None and trace.tb_frame.f_code not in codes:
                trace = trace.tb_next
            error = interrupt.with_traceback(trace or interrupt.__traceback__)  # where the cell awaits, not the loop
        if error is not None:
            raise error

    def cancel(self, task: "Any") -> "Optional[TracebackType]":
        """Ends a task, so that it does not go on with the next cell. Returns where it was."""
        task.cancel()
        try:
            self.loop.run_until_complete(task)
        except BaseException as error:  # the cancellation, or something else that it has ended of
            return error.__traceback__
        return None


class Outputs:
    """The pipes of a cell's output, which each begins with, whatever the ones before have done to theirs."""

    def __init__(self) -> None:
        self.pipes = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, DONE_FD + 1) for fd in (1, 2)}

    def mend(self) -> None:
        """Puts the pipes back in their places, and opens the streams that are closed or gone. Raises nothing: without
        its streams a cell can still run."""
        for fd, pipe in self.pipes.items():
            try:
                put_back(pipe, fd)
            except OSError:
                pass  # a program has closed it here too
        for name, fd, errors in (("stdout", 1, "surrogateescape"), ("stderr", 2, "backslashreplace")):
            try:
                if is_closed(getattr(sys, name, None)):
                    setattr(sys, name, unbuffered(fd, errors))
            except OSError:
                pass  # the descriptor is gone


def put_back(pipe: int, fd: int) -> None:
    """Makes a descriptor the same as a pipe's, if it is not. Raises OSError."""
    try:
        there = os.path.sameopenfile(fd, pipe)
    except OSError:
        there = False  # it is closed
    if not there:
        os.dup2(pipe, fd)


def is_closed(stream: object) -> bool:
    """Whether nothing can be printed to a stream: it is closed or gone, or fails when asked."""
    try:
        return stream is None or bool(getattr(stream, "closed", False))
    except BaseException:  # of a program's own class, or a stream without its buffer
        return True


def report_cell(error: BaseException) -> None:
    """Prints a traceback. Before Python 3.13 the interpreter's own way does not find the lines of cells."""
    if sys.excepthook is not sys.__excepthook__:
        report(error)
        return
    error.__traceback__ = trace = without_ours(error.__traceback__)
    traceback.print_exception(type(error), error, trace)


def report_quietly(error: BaseException) -> None:
    """Prints a traceback, if that can be done."""
    try:
        report_cell(error)
    except BaseException:
        pass  # the program has broken what it takes


# --- The processes of a session -------------------------------------------------------------------------------


class Family:
    """The processes of a session, as their father sees them."""

    def __init__(self, breathe: "Callable[[], None]" = lambda: None) -> None:
        self.breathe = breathe  # while processes take their time to go
        self.children: "dict[int, Child]" = {}
        self.bell, ring = os.pipe()  # readable when one has ended
        for fd in (self.bell, ring):
            os.set_blocking(fd, False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)  # or the kernel would not tell
        _signal.set_wakeup_fd(ring, warn_on_full_buffer=False)

    def reap(self) -> None:
        """Buries all that have ended, orphans among them."""
        try:
            os.read(self.bell, CHUNK)
        except BlockingIOError:
            pass  # it has not rung
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if child := self.children.pop(pid, None):
                child.ending = Ending(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, time.monotonic())

    def kill(self) -> None:
        """Kills every process of the session, again and again until none is left, or those that are take too long to go."""
        patience = time.monotonic() + BURY_SECONDS
        while time.monotonic() < patience:
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                return
            self.reap()
            self.breathe()


class Child(Program):
    """A process of a session's that calls are made in, with a process group of its own."""

    def __init__(self, family: Family, pipes: Pipes, ours: "tuple[int, ...]", pid: int) -> None:
        close_all(pipes.theirs)
        self.family = family
        self.pid = pid
        self.ending: "Optional[Ending]" = None
        family.children[pid] = self
        super().__init__(ours, os.pidfd_open(pid))

    def ended(self, ready: "list[int]") -> bool:
        self.family.reap()
        return self.ending is not None

    def signal(self, number: int) -> None:
        """Sends a signal to the process and its group."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def end(self) -> Ending:
        """Kills the process and its group, if it has not ended. One that takes long to go, since it has much memory to
        give back, is buried later: it does nothing any more."""
        patience = time.monotonic() + BURY_SECONDS
        waiting = select.poll()
        waiting.register(self.end_fd, select.POLLIN)
        while self.ending is None:
            if time.monotonic() > patience:
                self.ending = Ending(_signal.SIGKILL, at=time.monotonic())
                break
            self.signal(_signal.SIGKILL)
            waiting.poll(100)
            self.family.reap()
            self.family.breathe()
        return self.ending


class Interpreter(Child):
    """The process of the notebook."""

    def __init__(self, family: Family, workspace: str, wall: Filter, job: Job) -> None:
        pipes = Pipes()
        pid = fork(pipes)
        if pid == 0:
            try:
                job.code, job.stdin = bytearray(), bytearray()  # its first cell comes as others do, and this stays
                be_child(pipes, workspace, wall, _signal.SIGINT)  # no cell runs yet
                make_streams()
                shows.install(workspace)
                Notebook(workspace).serve()
            finally:
                os._exit(70)  # the program has broken what the notebook needs
        os.close(pipes.stdin)  # cells get theirs with their code
        super().__init__(family, pipes, (pipes.control, pipes.stdout, pipes.stderr, pipes.stdin, pipes.done), pid)
        self.word: "Optional[Ending]" = None  # the notebook's own, of the cell that runs
        self.spent = 0.0  # seconds of CPU time of the cells before
        self.interrupted = 0.0  # when it was first, by the monotonic clock

    def prepare(self) -> None:
        """Forgets the last cell, and what anybody has written to the pipe for the word since. Raises OSError where there
        is no end to that."""
        self.word = None
        self.interrupted = 0.0
        try:
            for _ in range(MAX_JUNK_READS):
                if not os.read(self.done, CHUNK):
                    return
        except BlockingIOError:
            return
        self.end()
        raise OSError(EAGAIN, "the interpreter floods its own end")

    def ended(self, ready: "list[int]") -> bool:
        if self.word is None:
            self.take_word()  # whatever is ready: junk may have come before it
        return super().ended(ready) or self.word is not None

    def take_word(self) -> None:
        """Reads how the cell has ended. What is no such word leaves everything as it is."""
        try:
            status, cpu, peak_kb = WORD.unpack(os.read(self.done, WORD.size))
        except (OSError, struct.error):
            return
        if status == _signal.SIGXCPU or status & ~0xFF00 == 0:
            self.word = Ending(status, min(cpu, 1 << 50) / 1e6, min(peak_kb, 1 << 32), time.monotonic())

    def interrupt(self) -> float:
        self.interrupted = self.interrupted or time.monotonic()
        if time.monotonic() - self.interrupted >= INTERRUPT_SECONDS:
            return 0.0
        self.signal(_signal.SIGINT)
        return INTERRUPT_AGAIN_SECONDS

    def kill(self, channel: Channel) -> Ending:
        """Ends the interpreter, unless the cell has ended by itself: then it lives on."""
        if self.ending is None and self.word is not None:
            self.spent += self.word.cpu
            return self.word
        ending = self.end()
        ending.cpu = max(0.0, ending.cpu - self.spent)
        return ending

    def close(self) -> None:
        """Closes what is left of an interpreter that has ended."""
        close_all((self.stdin, self.stdout, self.stderr, self.done, self.end_fd))


class Shell(Child):
    """A shell that runs one command."""

    def __init__(self, family: Family, workspace: str, wall: Filter, job: Job) -> None:
        pipes = Pipes()
        pid = fork(pipes)
        if pid == 0:
            try:
                be_child(pipes, workspace, wall)
                for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # which Python ignores
                    _signal.signal(number, _signal.SIG_DFL)
                seconds = job.limits["cpu_seconds"]
                limit(resource.RLIMIT_CPU, seconds, seconds + 1)
                if os.read(3, 1):  # ends when the command may begin
                    os._exit(70)
                execute_command(bytes(job.code))
            except BaseException as error:
                write_all(2, f"the shell could not be started: {error}\n".encode())
            finally:
                os._exit(126)
        super().__init__(family, pipes, pipes.ours, pid)

    def begin(self) -> None:
        """Lets the command begin."""
        os.close(self.control)

    def discard(self) -> None:
        """Ends a shell whose command is not to begin."""
        self.end()
        close_all((self.stdin, self.stdout, self.stderr, self.control, self.done, self.end_fd))

    def kill(self, channel: Channel) -> Ending:
        """Ends the shell and its group if its time is up. Else what it has left in the background lives on."""
        return self.ending or self.end()


def fork(pipes: Pipes) -> int:
    """Forks. Where that fails, closes the pipes and raises OSError."""
    try:
        return os.fork()
    except OSError:
        close_all((*pipes.ours, *pipes.theirs))
        raise


def has_children() -> bool:
    """Whether any process of the sandbox is left: all that lose their parent become children of PID 1."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        return False


def be_child(pipes: Pipes, workspace: str, wall: Filter, *spared: int) -> None:
    """Makes a fresh fork of the supervisor a program's process. Signals that are spared stay ignored."""
    _signal.set_wakeup_fd(-1)
    os.setsid()
    take_over(pipes)
    default_signals(*spared)
    os.nice(19)  # among the processes of this container: none may keep PID 1 from its work
    set_dumpable(True)
    be_first_victim()
    obey(make_rules())
    os.chdir(workspace)
    limit_resources()
    wall.install()


def execute_command(command: bytes) -> None:
    """Becomes a shell that runs a command. Raises OSError."""
    for shell in ("/bin/bash", "/bin/sh"):
        try:
            os.execv(shell, [os.path.basename(shell).encode(), b"-c", command])
        except FileNotFoundError:
            continue
    raise FileNotFoundError("the image has neither bash nor sh")


# --- The supervisor's side ------------------------------------------------------------------------------------


class SessionChannel(Channel):
    """The connection to servers that come and go.

    One that comes cannot know what the last has left half said. It sends zeros, more than the rest of any frame, then "Y"
    with a nonce. What was begun then ends, in silence, and the answer, "Y" with the same nonce, is where it begins to
    listen.

    Nor does the last one know at once that another has come. The engine passes on what both say in pieces as they come,
    in the middle of frames too. Whatever is no frame, such as the zeros, has the channel lost: it drops all up to the
    next nonce, and says so ("L"). A frame without the tag of the server that has the session is dropped by itself."""

    def __init__(self, receive_fd: int, send_fd: int, silence: float, expires: float) -> None:
        super().__init__(receive_fd, send_fd, silence)
        # From here on by a clock that nobody sets.
        self.end = time.clock_gettime(time.CLOCK_BOOTTIME) + expires - time.time()
        self.frames: "list[tuple[bytes, bytes]]" = []  # that came while it sent
        self.unheard = False  # nobody listens: what is said is dropped
        self.nonce = b""  # of a server that has come and waits for the answer
        self.tag = b""  # of the one that has the session; the first one's is empty
        self.lost = False

    def silence_left(self) -> float:
        """Seconds until it is time to look at the clock. Raises Gone at the session's end."""
        left = self.end - time.clock_gettime(time.CLOCK_BOOTTIME)
        if left <= 0:
            raise Gone("the session has expired")
        return min(left, LOOK_SECONDS)

    def flush(self) -> None:
        """Sends what was posted. The server may take its time as long as it is heard of. Where it is not, or another one
        comes, nothing is said until a server is welcome."""
        patience = time.monotonic() + self.silence
        while self.posted and not self.unheard:
            try:
                self.push()
            except BlockingIOError:
                if not self.await_room(patience):
                    continue
            except OSError:
                self.unheard = True
            patience = time.monotonic() + self.silence
        self.posted.clear()

    def pong(self) -> None:
        """As for runs. A server that is not spoken to any more would take it for the rest of what it was last sent; one that
        waits for its answer looks for nothing else."""
        if self.nonce or not self.unheard:
            super().pong()

    def await_room(self, patience: float) -> bool:
        """Waits until the server takes more. Takes in what it says, and returns whether it has shown any life by then.
        Where it has not when patience ends, it is unheard."""
        left = min(patience - time.monotonic(), self.silence_left())
        ready = [fd for fd, _ in self.both.poll(max(left, 0) * 1000 + 1)]
        if self.receive_fd in ready:
            self.read_available()
            while frame := self.parse():
                if frame[0] != b"P":
                    self.frames.append(frame)
        self.unheard = self.unheard or not ready and time.monotonic() > patience
        return bool(ready)

    def next_buffered(self) -> "Optional[tuple[bytes, bytes]]":
        """The next complete frame without its tag, or None."""
        return self.frames.pop(0) if self.frames else self.parse()

    def parse(self) -> "Optional[tuple[bytes, bytes]]":
        """The next complete frame of what has arrived, or None. Once the channel is lost, it gives "L"."""
        while not self.lost or self.find_greeting():
            if not self.in_order():
                self.lost = True
                if not self.find_greeting():
                    return b"L", b""
            frame = super().next_buffered()
            if frame is None:
                return None
            if frame[0] == b"Y":
                self.nonce = frame[1]
                self.tag = frame[1][:TAG]
                self.unheard = True
                return frame
            if frame[1].startswith(self.tag):
                return frame[0], frame[1][len(self.tag) :]
        return None

    def in_order(self) -> bool:
        """Whether what has come may be the beginning of a frame."""
        if len(self.buffer) < 5:
            return self.buffer[:1] in KINDS
        return self.buffer[:1] in KINDS and struct.unpack_from(">I", self.buffer, 1)[0] <= CHUNK + TAG

    def find_greeting(self) -> bool:
        """Drops what comes before a nonce. Returns whether that has come, or begun to."""
        at = self.buffer.find(GREETING)
        self.lost = at < 0
        del self.buffer[: at if at >= 0 else max(0, len(self.buffer) - len(GREETING) + 1)]
        return not self.lost

    def tear(self, reason: str) -> None:
        """Says that the file that is being sent is not whole: in a session somebody may always write it."""
        self.post(b"T", reason.encode())

    def welcome(self) -> None:
        """Answers a server that has come, if one has. Nothing of the last one's may be under way. A server that is not
        heard any more is told so."""
        if self.nonce:
            self.posted.clear()
            self.unheard = False
            nonce, self.nonce = self.nonce, b""
            self.post(b"Y", nonce)
            self.send(b"P")  # which says that pings will be answered
        elif self.lost:
            self.send(b"L")


def most_processes() -> int:
    """How many processes this container may have (cgroup v2, then v1): no more can have something to print."""
    for path in ("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"):
        try:
            with open(path) as file:
                return int(file.read())
        except (OSError, ValueError):
            pass  # there is none, or no limit
    return MAX_JOBS


class Background:
    """Pipes that no call listens to. What is printed there is taken in all the same: whoever prints it must not wait."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs  # how many may go on
        self.kept: "dict[int, Optional[bytearray]]" = {}  # what came of each; None where nobody will ask

    def add(self, fd: int, keep: bool) -> "Optional[int]":
        """Begins to listen to a pipe. Returns one that was closed for it, as there are too many."""
        self.kept[fd] = bytearray() if keep else None
        dropped = [other for other, kept in self.kept.items() if kept is None]
        if len(dropped) <= 2 * self.jobs:
            return None
        self.close(dropped[0])
        return dropped[0]

    def take(self, fd: int) -> bytes:
        """Stops listening to a pipe and gives what was printed there."""
        return bytes(self.kept.pop(fd, None) or b"")

    def take_last(self, fd: int) -> bytes:
        """The same where who printed has ended: with what is in the pipe."""
        kept, size = self.kept.get(fd), -1
        while kept is not None and len(kept) != size:
            size = len(kept)
            self.drain(fd)
        return self.take(fd)

    def close(self, fd: int) -> None:
        """Closes a pipe that nobody will ask about."""
        del self.kept[fd]
        os.close(fd)

    def drain(self, fd: int) -> bool:
        """Takes in some of what was printed. Returns False when there will be no more."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        kept = self.kept[fd]
        if kept is not None:
            kept += data[: MAX_KEPT - len(kept)]
        elif not data:
            self.close(fd)
        return bool(data)


class Call(Run):
    """A run in a session, which the server may call off."""

    def __init__(self, channel: Channel, program: Program, job: Job, watches: Watches, background: Background) -> None:
        super().__init__(channel, program, job, watches)
        self.background = background
        self.called_off = False

    def is_called_off(self) -> bool:
        """Whether the server, or one that has come after it, does not want the call any more."""
        while self.channel.listening.poll(0):
            self.channel.read_available()
        self.listen()
        return self.called_off

    def open(self) -> None:
        super().open()
        for fd in self.background.kept:
            self.poll.register(fd, select.POLLIN)

    def handle(self, fd: int) -> None:
        if fd not in self.background.kept:
            super().handle(fd)
        elif not self.background.drain(fd):
            self.poll.unregister(fd)

    def hear(self, kind: bytes) -> None:
        # What else comes is a server's that has not noticed that it is no longer the one.
        if kind == b"P":
            self.channel.pong()
        if kind in (b"K", b"Y") and not self.timed_out:
            self.called_off = True
            self.deadline = time.monotonic()


class CellCall(Call):
    """The run of a cell: the pipes stay."""

    def __init__(self, channel: Channel, program: Program, job: Job, watches: Watches, background: Background) -> None:
        super().__init__(channel, program, job, watches, background)
        limits = job.limits
        head = CELL.pack(bool(limits["interactive"]), limits["cpu_seconds"], len(job.stdin), len(job.code))
        self.stdin = views(head, job.stdin, job.code)
        self.untaken = False  # the interpreter has ended without it

    def open(self) -> None:
        """Begins with what threads and children have printed since the last cell."""
        for fd in self.kinds:
            self.say(fd, self.background.take(fd))
        super().open()

    def fed(self) -> None:
        pass

    def close(self) -> None:
        unread = fcntl.ioctl(self.program.stdin, FIONREAD, bytes(4)) != bytes(4)
        self.untaken = not self.timed_out and (self.refused or bool(self.stdin) or unread)


class ShellCall(Call):
    """The run of a command: what it has left in the background may go on printing."""

    def close(self) -> None:
        os.close(self.program.done)
        os.close(self.program.end_fd)
        if self.stdin:
            os.close(self.program.stdin)


class Staging:
    """Files that come in: they are put in place together, when all are complete."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.file = -1
        self.at = -1  # which file it is, from 0 on
        self.waiting: "dict[str, str]" = {}  # paths, by the names that the files have meanwhile
        self.error: "Optional[OSError]" = None  # the first; nothing is taken after it

    def begin(self, path: str) -> None:
        """Begins a file."""
        self.end_file()
        self.at += self.error is None
        name = f".vivarium-{os.urandom(8).hex()}"
        try:
            self.file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=self.root)
            self.waiting[name] = path
        except OSError as error:
            self.error = self.error or error

    def add(self, data: bytes) -> None:
        """Adds bytes to the file."""
        if self.error is None:
            try:
                write_all(self.file, data)
            except OSError as error:
                self.error = error

    def end_file(self) -> None:
        """Ends the file that has come in."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def commit(self) -> None:
        """Puts the files in place."""
        self.end_file()
        try:
            if self.error is None:
                for self.at, path in enumerate(self.waiting.values()):
                    check_beneath(self.root, path)
                for self.at, name in enumerate(list(self.waiting)):
                    put_beneath(self.root, name, self.waiting[name])
                    del self.waiting[name]
        except OSError as error:
            self.error = error
        self.drop()

    def drop(self) -> None:
        """Deletes files that are not in place."""
        self.end_file()
        for name in self.waiting:
            try:
                os.unlink(name, dir_fd=self.root)
            except OSError:
                pass  # a program has taken it away, or the workspace's mode
        self.waiting.clear()


def put_beneath(root: int, name: str, path: str) -> None:
    """Moves a file below an open folder to a path there, replacing what file is there, and makes its folders. Follows
    no link. Raises OSError."""
    *parents, last = path.split("/")
    folder = os.dup(root)
    try:
        for parent in parents:
            try:
                os.mkdir(parent, 0o755, dir_fd=folder)
            except FileExistsError:
                pass
            below = enter(folder, parent)
            os.close(folder)
            folder = below
        os.rename(name, last, src_dir_fd=root, dst_dir_fd=folder)
    finally:
        os.close(folder)


def check_beneath(root: int, path: str) -> None:
    """Raises the OSError with which put_beneath would fail for what is there by now."""
    *parents, last = path.split("/")
    folder = os.dup(root)
    try:
        for parent in parents:
            below = enter(folder, parent)
            os.close(folder)
            folder = below
        if stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(EISDIR, os.strerror(EISDIR))
    except FileNotFoundError:
        pass  # it will be made
    finally:
        os.close(folder)


def parse_limits(payload: bytes) -> "dict[str, int]":
    """Reads a job's limits. There are none in a frame that a server has not sent to its end."""
    try:
        return parse_fields(payload)
    except ValueError:
        return {}


class Session:
    """Takes calls until the session ends."""

    def __init__(self, channel: SessionChannel, workspace: str, wall: Filter) -> None:
        self.channel = channel
        self.workspace = workspace
        self.wall = wall
        self.sandbox = Sandbox(channel, workspace)
        self.root = self.sandbox.root
        self.family = Family(channel.breathe)
        self.interpreter: "Optional[Interpreter]" = None
        self.state_lost = False  # the interpreter has ended, which nobody has heard yet
        self.last_words = [b"", b""]  # what it has printed since its last cell
        self.kills_before = 0  # processes that were killed for memory between the last call and this one
        self.background = Background(min(most_processes(), MAX_JOBS))
        self.listening = select.poll()
        for fd in (channel.receive_fd, self.family.bell):
            self.listening.register(fd, select.POLLIN)

    def serve(self) -> "NoReturn":
        """Serves calls. Raises Gone at the end."""
        self.channel.send(b"R", fields(protocol=PROTOCOL, python=PYTHON, isolation="session"))
        while True:
            self.channel.welcome()
            staging = Staging(self.root)
            job = self.receive_job(staging)
            if job is None:
                staging.drop()
                continue
            staging.commit()
            try:
                if staging.error is not None:
                    raise staging.error
                self.serve_call(job)
            except OSError as error:
                message = str(error.strerror).lower().replace("\n", " ")
                self.channel.send(b"!", fields(errno=error.errno or 0, message=message, file=staging.at))
            del job  # or the next would come in beside it

    def receive_job(self, staging: Staging) -> "Optional[Job]":
        """Collects a job. Returns None when it does not come whole: the server takes it back, or another has come."""
        job = Job({})
        while True:
            kind, payload = self.receive()
            if kind == b"J":
                self.channel.begin_job()
                job = Job(parse_limits(payload))
                os.fchmod(self.root, 0o700)  # a program may have changed it
            elif kind == b"C":
                job.code += payload
            elif kind == b"I":
                job.stdin += payload
            elif kind == b"F":
                staging.begin(payload.decode(errors="replace"))
            elif kind == b"D":
                staging.add(payload)
            elif kind == b"G" and job.limits:
                return job
            elif kind == b"H":
                self.state_lost = False
            elif kind == b"P":
                self.channel.pong()
            elif kind in (b"N", b"Y", b"L"):
                return None
            # K comes where the call had ended when the server called it off.
            self.channel.breathe()

    def receive(self) -> "tuple[bytes, bytes]":
        """Waits for the next frame."""
        while True:
            if frame := self.channel.next_buffered():
                return frame
            if self.channel.buffer:
                self.channel.breathe()  # a large frame may come slowly
            # What goes on between calls may still take memory.
            patience = min(self.channel.silence_left(), 2 * WATCH_SECONDS if has_children() else LOOK_SECONDS)
            for fd, _ in self.listening.poll(patience * 1000 + 1):
                if fd == self.channel.receive_fd:
                    self.channel.read_available()
                elif fd != self.family.bell and not (fd in self.background.kept and self.background.drain(fd)):
                    self.forget(fd)
            self.family.reap()
            self.sandbox.watches.look()

    def keep_listening(self, fd: int, keep: bool) -> None:
        """Listens to a pipe between calls. What is kept comes with the next cell."""
        closed = self.background.add(fd, keep)
        if closed is not None:
            self.forget(closed)
        self.listening.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Listens to a pipe no more, if it still does."""
        try:
            self.listening.unregister(fd)
        except KeyError:
            pass  # it has come to its end

    def serve_call(self, job: Job) -> None:
        """Makes a call and reports on it. Raises OSError for what it cannot do, before it has begun."""
        operation = job.limits["op"]
        if operation == OP_PYTHON:
            self.run_cell(job)
        elif operation == OP_BASH:
            self.run_command(job)
        elif operation == OP_READ:
            self.read_file(job)
        elif operation == OP_WRITE:
            self.begin()
            self.conclude(QUIET)
        else:
            raise Gone(f"an unknown operation {operation}")

    def begin(self) -> None:
        """Says that a call begins."""
        self.channel.post(b"A")

    def conclude(self, facts: bytes) -> None:
        """Says how a call has ended, all of it."""
        self.channel.post(b"X", facts)
        self.channel.send(b"Z")

    def facts(self, run: Run) -> bytes:
        """What is known of a run that has ended. That the interpreter has is told until somebody has heard it."""
        return self.sandbox.facts(run) + fields(state_lost=int(self.state_lost), memory_kills_before=self.kills_before)

    def read_file(self, job: Job) -> None:
        """Sends a file. Raises OSError."""
        path = job.code.decode()
        fd = open_beneath(self.root, path)
        found = Found(path, "", stamp_of(os.fstat(fd)))
        os.close(fd)
        if found.size > job.limits["file_bytes"]:
            raise OSError(EFBIG, "too large")
        self.begin()
        self.channel.post(b"X", QUIET)
        if reason := send_file(self.channel, self.root, found):
            self.channel.post(b"S", path.encode() + b"\0" + reason.encode())
        self.channel.send(b"Z")

    def run_cell(self, job: Job) -> None:
        """Runs a cell in the session's interpreter. Where that was about to end and has not taken it, a new one does."""
        before = self.sandbox.stamps()
        await_tick(before.values())
        run = self.prepare_cell(job)
        if not self.start(run):
            return
        self.watch_cell(run)
        if run.untaken and self.interpreter is None:
            run = self.run_again(run, job)
        self.channel.post(b"X", self.facts(run))
        try:
            send_files(self.channel, self.root, changes(self.channel, self.root, before), job.limits)
        except OSError as error:
            self.channel.post(b"S", b".\0" + os.strerror(error.errno).lower().encode())
        self.channel.send(b"Z")

    def make_interpreter(self, job: Job) -> Interpreter:
        """Makes an interpreter, whose first cell begins with what the last one has printed in the end. Raises OSError."""
        made: Interpreter = self.forked(lambda: Interpreter(self.family, self.workspace, self.wall, job))
        for fd, words in zip((made.stdout, made.stderr), self.last_words):
            self.background.kept[fd] = bytearray(words)
        self.last_words = [b"", b""]
        return made

    def run_again(self, run: CellCall, job: Job) -> CellCall:
        """Runs a cell that no interpreter has taken, if there is room for another one. Returns the last run."""
        try:
            run = self.prepare_cell(job)
        except OSError:
            return run
        run.started = time.monotonic()
        self.watch_cell(run)
        return run

    def prepare_cell(self, job: Job) -> CellCall:
        """Prepares the call of a cell, and an interpreter if there is none. Raises OSError."""
        self.check_interpreter()
        if self.interpreter is None:
            self.interpreter = self.make_interpreter(job)
        self.interpreter.prepare()
        return CellCall(self.channel, self.interpreter, job, self.sandbox.watches, self.background)

    def watch_cell(self, run: CellCall) -> None:
        """Sees a cell to its end."""
        pipes = run.program.stdout, run.program.stderr
        for fd in pipes:
            self.forget(fd)
        run.watch()
        for fd in pipes:
            self.keep_listening(fd, keep=True)
        self.check_interpreter()

    def check_interpreter(self) -> None:
        """Forgets an interpreter that has ended."""
        self.family.reap()
        if self.interpreter is not None and self.interpreter.ending is not None:
            fds = self.interpreter.stdout, self.interpreter.stderr
            for fd in fds:
                self.forget(fd)
            self.last_words = [self.background.take_last(fd) for fd in fds]
            self.interpreter.close()
            self.interpreter = None
            self.state_lost = True

    def run_command(self, job: Job) -> None:
        """Runs a command in a shell of its own."""
        shell = self.forked(lambda: Shell(self.family, self.workspace, self.wall, job))
        run = ShellCall(self.channel, shell, job, self.sandbox.watches, self.background)
        if not self.start(run):
            shell.discard()
            return
        shell.begin()
        run.watch()
        for fd in (shell.stdout, shell.stderr):
            self.keep_listening(fd, keep=False)
        self.check_interpreter()
        self.conclude(self.facts(run))

    def start(self, run: Call) -> bool:
        """Says that a call begins, and notes when. Returns False where it is called off by then: a server that has got no
        answer in time may have told its client to try again, so the call must not begin after that. What the kernel has
        refused before is not the call's."""
        self.kills_before, _ = self.sandbox.pressure.look()
        asked = time.monotonic()
        if run.is_called_off():
            self.channel.send(b"!", fields(errno=ECANCELED, message="called off", file=0))
            return False
        self.begin()
        self.channel.flush()
        if time.monotonic() - asked > STALE_SECONDS and run.is_called_off():
            self.conclude(QUIET)
            return False
        run.started = time.monotonic()
        return True

    def forked(self, make: "Callable[[], Any]") -> "Any":
        """Makes a process. Where there are as many as there may be, all others are killed first: a client whose own
        processes fill the session could not even end them. Raises OSError."""
        try:
            return make()
        except OSError as error:
            if error.errno != EAGAIN:
                raise
        self.family.kill()
        self.check_interpreter()
        return make()


QUIET = fields(
    exit_code=0, signal=0, timed_out=0, wall_us=0, kill_us=0, cpu_us=0, peak_kb=0, memory_kills=0, refused_processes=0,
    full=0, state_lost=0,
)  # fmt: skip


def serve(workspace: str, wall: Filter, silence: float, expires: float) -> "NoReturn":
    """Serves a session until it expires, in seconds since 1970. A server that does not read for `silence` seconds is
    not waited for."""
    channel = SessionChannel(0, 1, silence, expires)
    session = Session(channel, workspace, wall)
    gc.freeze()  # a collection in the interpreter then leaves these pages shared
    session.serve()
