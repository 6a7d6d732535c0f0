"""The interpreter of a session, which runs cells one after the other in one `__main__`."""

import fcntl
import io
import linecache
import os
import resource
import sys
import time
import traceback

from child import become_child
from display import screen
from handover import CELL, CELL_END, DONE_FD, Pipes
from kernel import CHUNK, Filter, libc, limit, write_all
from program import (
    COROUTINE_FLAG,
    MAIN_FILE,
    compile_program,
    exit_status_of,
    make_main,
    make_streams,
    run_coroutines,
    unbuffered,
)
from tracebacks import OURS, report, without_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import CodeType, TracebackType
    from typing import Any, NoReturn, Optional, TextIO
else:
    import _signal

OURS.append(globals())

INTERRUPT_INTERVAL_SECONDS = 0.8  # from one KeyboardInterrupt of a cell to the next, if it has not ended
MAX_DISARM_TRIES = 100  # tries to keep handlers from raising, each of which may be cut short by one


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
            self.report_end(status, used_cpu() - before)

    def report_end(self, status: int, cpu: float) -> None:
        """Says that a cell is over. A fork that has run to the cell's end has nothing to say."""
        libc.fflush(None)  # what C code has printed
        if os.getpid() != self.process:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
        os.write(DONE_FD, CELL_END.pack(status, int(cpu * 1e6), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

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
        if self.busy and now - self.interrupted >= INTERRUPT_INTERVAL_SECONDS:
            self.interrupted = now
            raise KeyboardInterrupt

    def stop_for_cpu(self, *_: object) -> None:
        """Interrupts a cell that has used up its CPU time: the handler of SIGXCPU, which comes again each second."""
        if self.busy:
            self.out_of_cpu = True
            raise KeyboardInterrupt

    def run_cell(self, source: bytes, interactive: bool) -> int:
        """Runs a cell and reports what it raises. Returns a status as waitpid gives it."""
        self.outputs.repair()
        self.cells += 1
        name = f"<cell {self.cells}>"
        text = source.decode("utf-8", "replace")
        lines = io.StringIO(text, newline=None).readlines()  # as the compiler splits them; splitlines splits at more
        linecache.cache[name] = len(source), None, lines, name  # for tracebacks and inspect
        error = self.attempt(lambda: self.run_codes(compile_program(source, name, interactive)))
        self.outputs.repair()
        # An interrupted cell's time is up, and to draw takes more. A fork that has run to the cell's end would draw again.
        if not isinstance(error, KeyboardInterrupt) and os.getpid() == self.process:
            error = self.attempt(screen.save_open_figures) or error
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
                self.disarm()
        except BaseException as error:
            self.disarm()  # a signal may have come before it was
            return error
        return None

    def disarm(self) -> None:
        """Sees to it that no signal raises anything any more."""
        tries = MAX_DISARM_TRIES
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

    def repair(self) -> None:
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


def become_interpreter(pipes: Pipes, workspace: str, program_filter: Filter) -> "NoReturn":
    """Makes a fresh fork of the supervisor the interpreter of a session."""
    try:
        become_child(pipes, workspace, program_filter, _signal.SIGINT)  # no cell runs yet
        make_streams()
        screen.install(workspace)
        Notebook(workspace).serve()
    finally:
        os._exit(70)  # the program has broken what the notebook needs
