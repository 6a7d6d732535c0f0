"""The interpreter of a session, which runs cells one after the other in one `__main__`."""

import io
import os
import resource
import sys
import time
import traceback

import loops

from cells import Cells
from child import become_child
from compiling import awaits, compile_program
from display import screen
from environment import CallEnvironment
from handover import CELL, CELL_END, DONE_FD, Pipes
from kernel import CHUNK, Filter, libc, limit, write_all
from outputs import Outputs
from program import MAIN_FILE, exit_status_of, lift_digit_limit, make_main, make_streams, provide_ipython
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

INTERRUPT_INTERVAL_SECONDS = 0.8  # time between two KeyboardInterrupts of a cell that has not ended
MAX_DISARM_TRIES = 100  # attempts to hold the handlers: a signal may interrupt each


def read_exactly(fd: int, size: int) -> bytes:
    """Reads size bytes, or fewer where the pipe ends."""
    data = bytearray()
    while len(data) < size and (part := os.read(fd, min(CHUNK, size - len(data)))):
        data += part
    return bytes(data)


def nameless_file() -> int:
    """Opens a new file without a name: in memory, or in /tmp where that fails. Raises OSError."""
    try:
        return os.memfd_create("stdin")
    except OSError:
        return os.open("/tmp", os.O_TMPFILE | os.O_RDWR)


def make_stdin(source: int, size: int) -> "TextIO":
    """Returns a cell's standard input, with `size` bytes from a pipe. Child processes inherit it, except where no file
    can be made for it. It may be large, so only one copy of it is kept."""
    try:
        file = nameless_file()
        try:
            os.dup2(file, 0)  # closes the last cell's stdin
        finally:
            os.close(file)
        if size:
            os.posix_fallocate(0, 0, size)  # if it fails, nothing has been read yet
    except OSError:
        return io.TextIOWrapper(io.BytesIO(read_exactly(source, size)), "utf-8", "surrogateescape")
    while size and (part := os.read(source, min(CHUNK, size))):
        write_all(0, part)
        size -= len(part)
    os.lseek(0, 0, os.SEEK_SET)
    return open(0, encoding="utf-8", errors="surrogateescape", closefd=False)


def used_cpu() -> float:
    """Returns the seconds of CPU time of this process and of the children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Handlers:
    """The signal handlers that cells have installed. Between cells they are still called, but what they raise is
    printed: raised there, it would end the interpreter."""

    def __init__(self, ours: "dict[int, Callable[..., object]]") -> None:
        self.ours = ours  # those that each cell begins with
        self.held: "dict[int, Callable[..., object]]" = {}  # those that our own handler calls
        self.own = self.call

    def release(self) -> None:
        """Installs the handlers themselves, so that what they raise is raised in a cell."""
        for number, handler in (self.held | self.ours).items():
            _signal.signal(number, handler)
        self.held.clear()

    def hold(self) -> None:
        """Installs our own handler in place of each."""
        for number in range(1, _signal.NSIG):
            handler = _signal.getsignal(number)
            if callable(handler) and handler is not self.own:
                self.held[number] = handler
                _signal.signal(number, self.own)

    def call(self, number: int, frame: object) -> None:
        """Calls the program's handler for a signal and prints what it raises."""
        try:
            self.held[number](number, frame)
        except BaseException as error:
            report_quietly(error)
        self.hold()  # the handler may have reinstalled itself


class Notebook:
    """Runs a session's cells, all in one `__main__`."""

    def __init__(self, workspace: str) -> None:
        self.process = os.getpid()
        self.namespace = make_main(f"{workspace}/{MAIN_FILE}").__dict__
        del self.namespace["__file__"]  # cells have no file
        sys.argv[:] = [""]
        self.outputs = Outputs()
        self.cells = Cells()
        self.busy = False  # a cell is running and may be interrupted
        self.interrupted = 0.0  # monotonic time of the cell's last interrupt; 0: none yet
        self.out_of_cpu = False
        self.loop: "Any" = None  # the event loop of cells that await
        self.handlers = Handlers({_signal.SIGINT: self.interrupt, _signal.SIGXCPU: self.stop_for_cpu})

    def serve(self) -> "NoReturn":
        """Runs one cell after the other. Exits when the supervisor has closed the pipe."""
        self.handlers.release()
        while True:
            head = read_exactly(3, CELL.size)
            if len(head) < CELL.size:
                os._exit(0)
            interactive, cpu_seconds, stdin_size, variables_size, arguments_size, code_size = CELL.unpack(head)
            sys.stdin = make_stdin(3, stdin_size)
            environment = read_exactly(3, variables_size), read_exactly(3, arguments_size)
            before = used_cpu()
            self.allow_cpu(cpu_seconds)
            source = read_exactly(3, code_size)
            try:
                status = self.run_call(source, interactive, CallEnvironment(*environment))
            except BaseException as error:  # memory ran out, or the program has broken what tracebacks need
                status = 1 << 8
                os.write(2, f"the cell's end could not be reported: {type(error).__name__}\n".encode())
            self.report_end(status, used_cpu() - before)

    def run_call(self, source: bytes, interactive: bool, environment: CallEnvironment) -> int:
        """Runs a cell in the environment of its call, and then undoes that. Returns a status as waitpid does."""
        try:
            return self.run_cell(source, interactive)
        finally:
            environment.undo()

    def report_end(self, status: int, cpu: float) -> None:
        """Reports the end of a cell to the supervisor. A fork that has run to the cell's end exits instead."""
        libc.fflush(None)  # writes what C code has buffered
        if os.getpid() != self.process:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
        os.write(DONE_FD, CELL_END.pack(status, int(cpu * 1e6), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

    def allow_cpu(self, seconds: int) -> None:
        """Raises the limit on this process's CPU time to `seconds` more than it has used."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
        limit(resource.RLIMIT_CPU, soft, resource.RLIM_INFINITY)
        self.interrupted = 0.0
        self.out_of_cpu = False

    def interrupt(self, *_: object) -> None:
        """Interrupts a running cell: the handler of SIGINT. It interrupts again after a while, because the first may be
        lost in a __del__, or the cell's reaction to it may wait for threads."""
        now = time.monotonic()
        if self.busy and now - self.interrupted >= INTERRUPT_INTERVAL_SECONDS:
            self.interrupted = now
            raise KeyboardInterrupt

    def stop_for_cpu(self, *_: object) -> None:
        """Interrupts a cell that has used up its CPU time: the handler of SIGXCPU, which is sent every second."""
        if self.busy:
            self.out_of_cpu = True
            raise KeyboardInterrupt

    def run_cell(self, source: bytes, interactive: bool) -> int:
        """Runs a cell and prints what it raises. Returns a status as waitpid does."""
        self.outputs.repair()
        name = self.cells.add(source)
        error = self.attempt(lambda: self.run_codes(compile_program(source, name, interactive)))
        self.outputs.repair()
        error = self.attempt(lambda: self.finish_cell(error)) or error
        if error is None:
            return 0
        if isinstance(error, SystemExit):
            return exit_status_of(error) << 8
        report_cell(error)
        if isinstance(error, KeyboardInterrupt):
            return _signal.SIGXCPU if self.out_of_cpu else 130 << 8
        return 1 << 8

    def finish_cell(self, error: "Optional[BaseException]") -> None:
        """Writes and saves what a cell has left, given what it has raised."""
        self.outputs.flush()
        # After an interrupt the cell has no time left to draw. A fork that has run to the cell's end would draw twice.
        if not isinstance(error, KeyboardInterrupt) and os.getpid() == self.process:
            screen.finish()

    def attempt(self, do: "Callable[[], None]") -> "Optional[BaseException]":
        """Calls a function that may be interrupted. Returns what it raises, or None."""
        try:
            try:
                self.handlers.release()
                self.busy = True
                do()
            finally:
                self.disarm()
        except BaseException as error:
            self.disarm()  # a signal may have come before the first call returned
            return error
        return None

    def disarm(self) -> None:
        """Ensures that signals raise nothing any more."""
        tries = MAX_DISARM_TRIES
        while tries:
            tries -= 1
            try:
                self.busy = False
                self.handlers.hold()
                return
            except BaseException:
                pass  # a signal came meanwhile, or the program has broken what this needs

    def run_codes(self, codes: "list[CodeType]", *_: object) -> None:
        """Runs code. All cells that await share one event loop, so that they can use each other's objects."""
        if not awaits(codes):
            for code in codes:
                exec(code, self.namespace)
            return
        self.busy = False  # an interrupt, which is repeated, would leave asyncio half imported
        asyncio = loops.import_asyncio()
        self.busy = True
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(loops.run_coroutines(codes, self.namespace))
        try:
            error = self.loop.run_until_complete(task)
        except KeyboardInterrupt as interrupt:
            trace = self.cancel(task)
            while trace is not None and trace.tb_frame.f_code not in codes:
                trace = trace.tb_next
            error = interrupt.with_traceback(trace or interrupt.__traceback__)  # from the cell's frame, not the loop's
        if error is not None:
            raise error

    def cancel(self, task: "Any") -> "Optional[TracebackType]":
        """Cancels a task, so that it does not continue in the next cell. Returns the traceback of where it was."""
        task.cancel()
        try:
            self.loop.run_until_complete(task)
        except BaseException as error:  # the cancellation, or what the task raised instead
            return error.__traceback__
        return None


def report_cell(error: BaseException) -> None:
    """Prints a traceback. Before Python 3.13 the interpreter's own hook does not find the lines of cells."""
    if sys.excepthook is not sys.__excepthook__:
        report(error)
        return
    error.__traceback__ = trace = without_ours(error.__traceback__)
    traceback.print_exception(type(error), error, trace)


def report_quietly(error: BaseException) -> None:
    """Prints a traceback, and ignores a failure to do so."""
    try:
        report_cell(error)
    except BaseException:
        pass  # the program has broken what tracebacks need


def become_interpreter(pipes: Pipes, workspace: str, program_filter: Filter) -> "NoReturn":
    """Turns a fresh fork of the supervisor into the interpreter of a session."""
    try:
        become_child(pipes, workspace, program_filter, _signal.SIGINT)  # no cell runs yet
        make_streams()
        notebook = Notebook(workspace)
        hooks = screen.install(workspace)
        notebook.cells.install(hooks)
        provide_ipython(hooks, notebook.run_codes)
        lift_digit_limit()
        notebook.serve()
    finally:
        os._exit(70)  # the program has broken what the notebook needs
