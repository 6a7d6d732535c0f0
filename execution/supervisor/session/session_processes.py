"""The processes of a session as PID 1 sees them: the interpreter, and a shell for each command."""

import os
import select
import struct
import time

from errno import EAGAIN

from channel import Channel
from child import become_shell
from handover import CELL_END, Pipes
from kernel import CHUNK, Filter, close_all
from notebook import become_interpreter
from process import REAP_SECONDS, Ending, Program
from run import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Optional
else:
    import _signal

INTERRUPT_SECONDS = 2  # time that a cell gets to react to the interrupt
INTERRUPT_AGAIN_SECONDS = 0.2  # time between interrupts; one that comes before the cell has begun is lost
MAX_JUNK_READS = 16  # reads of what programs have written to the pipe for the interpreter's reports


class Family:
    """The child processes of a session's supervisor."""

    def __init__(self, show_life: "Callable[[], None]" = lambda: None) -> None:
        self.show_life = show_life  # called while killed processes exit
        self.children: "dict[int, Child]" = {}
        self.wakeup_fd, notify_fd = os.pipe()  # readable when a child has ended
        for fd in (self.wakeup_fd, notify_fd):
            os.set_blocking(fd, False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)  # the wakeup fd needs a handler
        _signal.set_wakeup_fd(notify_fd, warn_on_full_buffer=False)

    def reap(self) -> None:
        """Reaps all processes that have ended, orphans included."""
        try:
            os.read(self.wakeup_fd, CHUNK)
        except BlockingIOError:
            return  # no child has ended
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
        """Kills every process of the session until none is left, or until REAP_SECONDS are over."""
        deadline = time.monotonic() + REAP_SECONDS
        while time.monotonic() < deadline:
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                return
            self.reap()
            self.show_life()


class Child(Program):
    """A process that runs calls, with a process group of its own."""

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
        """Kills the process and its group, if it has not ended. Returns how it ended. A process that exits slowly,
        because it has much memory to free, is reaped later: it does nothing any more."""
        deadline = time.monotonic() + REAP_SECONDS
        waiting = select.poll()
        waiting.register(self.end_fd, select.POLLIN)
        while self.ending is None:
            if time.monotonic() > deadline:
                self.ending = Ending(_signal.SIGKILL, at=time.monotonic())
                break
            self.signal(_signal.SIGKILL)
            waiting.poll(100)
            self.family.reap()
            self.family.show_life()
        return self.ending


class Interpreter(Child):
    """The process of the notebook."""

    def __init__(self, family: Family, workspace: str, program_filter: Filter, job: Job) -> None:
        pipes = Pipes()
        pid = fork(pipes)
        if pid == 0:
            job.clear()  # its first cell is sent too; this copy would stay
            become_interpreter(pipes, workspace, program_filter)
        os.close(pipes.stdin)  # cells receive their stdin with their code
        super().__init__(family, pipes, (pipes.control, pipes.stdout, pipes.stderr, pipes.stdin, pipes.done), pid)
        self.notice: "Optional[Ending]" = None  # from the notebook: the end of the current cell
        self.spent = 0.0  # seconds of CPU time of the earlier cells
        self.interrupted = 0.0  # monotonic time of the current cell's first interrupt

    def prepare(self) -> None:
        """Forgets the last cell, and discards what programs have written to the pipe for reports since. Raises OSError
        where they write without end."""
        self.notice = None
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
        if self.notice is None:
            self.take_notice()  # whatever is ready, because junk may come first
        return super().ended(ready) or self.notice is not None

    def take_notice(self) -> None:
        """Reads how the cell has ended. Ignores anything else."""
        try:
            status, cpu, peak_kb = CELL_END.unpack(os.read(self.done, CELL_END.size))
        except (OSError, struct.error):
            return
        if status == _signal.SIGXCPU or status & ~0xFF00 == 0:
            self.notice = Ending(status, min(cpu, 1 << 50) / 1e6, min(peak_kb, 1 << 32), time.monotonic())

    def interrupt(self) -> float:
        self.interrupted = self.interrupted or time.monotonic()
        if time.monotonic() - self.interrupted >= INTERRUPT_SECONDS:
            return 0.0
        self.signal(_signal.SIGINT)
        return INTERRUPT_AGAIN_SECONDS

    def kill(self, channel: Channel) -> Ending:
        """Ends the interpreter, unless the cell has ended by itself. Returns how the cell ended."""
        if self.ending is None and self.notice is not None:
            self.spent += self.notice.cpu
            return self.notice
        ending = self.end()
        ending.cpu = max(0.0, ending.cpu - self.spent)
        return ending

    def close(self) -> None:
        """Closes the descriptors of an interpreter that has ended."""
        close_all((self.stdin, self.stdout, self.stderr, self.done, self.end_fd))


class Shell(Child):
    """A shell that runs one command."""

    def __init__(self, family: Family, workspace: str, program_filter: Filter, job: Job) -> None:
        pipes = Pipes()
        pid = fork(pipes)
        if pid == 0:
            texts = bytes(job.code), bytes(job.arguments), bytes(job.variables)
            become_shell(pipes, workspace, program_filter, job.limits["cpu_seconds"], *texts)
        super().__init__(family, pipes, pipes.ours, pid)

    def begin(self) -> None:
        """Starts the command."""
        os.close(self.control)

    def discard(self) -> None:
        """Ends a shell whose command must not begin."""
        self.end()
        close_all((self.stdin, self.stdout, self.stderr, self.control, self.done, self.end_fd))

    def kill(self, channel: Channel) -> Ending:
        """Ends the shell and its group if its time is up; otherwise background processes go on. Returns how it
        ended."""
        return self.ending or self.end()


def fork(pipes: Pipes) -> int:
    """Forks. If that fails, closes the pipes and raises OSError."""
    try:
        return os.fork()
    except OSError:
        close_all((*pipes.ours, *pipes.theirs))
        raise


def has_children() -> bool:
    """Reports whether the sandbox has other processes: orphans become children of PID 1."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        return False
