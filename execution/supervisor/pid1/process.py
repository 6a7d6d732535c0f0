"""The process of a program as PID 1 sees it, and the only program of a sandbox that serves one run."""

import os
import time

from channel import Channel
from handover import Pipes, RELEASE
from kernel import Filter, close_all, write_all
from program import become_only_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from run import Job
    from typing import Optional
else:
    import _signal

LINGER_SECONDS = 0.001  # time between checks of killed processes that have not exited yet
REAP_SECONDS = 2  # time in which killed processes must exit


def end_all_others() -> None:
    """Kills all other processes of the sandbox and reaps them, until none is left."""
    while True:
        try:
            os.kill(-1, _signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ProcessLookupError:
            return
        except ChildProcessError:
            continue  # none is left, or one is not a child of this process yet
        time.sleep(LINGER_SECONDS)


class Ending:
    """How a program's main process ended."""

    def __init__(self, status: int = 0, cpu: float = 0.0, peak_kb: int = 0, at: float = 0.0) -> None:
        self.status = status  # as waitpid returns it
        self.cpu = cpu  # seconds, of all processes that were waited for
        self.peak_kb = peak_kb  # peak resident memory of the largest of them
        self.at = at  # monotonic time


class Program:
    """A forked interpreter that waits for code, and the supervisor's ends of its pipes."""

    number = 0  # that the process has in the sandbox; 0 where the sandbox has no other programs

    def __init__(self, pipes: "tuple[int, ...]", end_fd: int) -> None:
        self.stdin, self.stdout, self.stderr, self.control, self.done = pipes
        self.end_fd = end_fd  # readable when its main process has ended
        for fd in (self.stdin, self.stdout, self.stderr, self.done):
            os.set_blocking(fd, False)  # the program can read its own pipes, so poll may be outdated

    def release(self, job: "Job") -> None:
        """Sends the code to the program, with its variables and arguments. The program then runs it."""
        limits = job.limits
        rest = len(job.variables), len(job.arguments), self.last_number()
        record = RELEASE.pack(bool(limits["interactive"]), job.has_files, limits["cpu_seconds"], *rest)
        try:
            write_all(self.control, record + job.variables + job.arguments + job.code)
        except BrokenPipeError:
            pass  # it died while it waited; its status shows that
        os.close(self.control)

    def last_number(self) -> int:
        """Returns the last number that a process of the sandbox got, for a program that has a pid namespace of its own. Returns
        0 where the program's process has that number, or needs none."""
        return 0

    def ended(self, ready: "list[int]") -> bool:
        """Reports whether the program has ended. `ready` are the readable fds. Call it after each poll."""
        raise NotImplementedError

    def interrupt(self) -> float:
        """Asks a program whose time is up to end. Returns the seconds that it gets for that; 0: none."""
        return 0.0

    def kill(self, channel: Channel) -> Ending:
        """Kills all that is left of the program. Returns how its main process ended. Raises Gone."""
        raise NotImplementedError

    def await_gone(self, channel: Channel) -> None:
        """Waits until no process of the program is left. Raises Gone when that takes too long."""


class OnlyProgram(Program):
    """The only program of a sandbox, a child of this process. Apart from it the sandbox is empty."""

    def __init__(self, workspace: str, program_filter: Filter) -> None:
        pipes = Pipes()
        self.pid = os.fork()
        if self.pid == 0:
            become_only_program(pipes, workspace, program_filter)
        close_all(pipes.theirs)
        self.ending: "Optional[Ending]" = None
        self.cpu = 0.0
        self.peak_kb = 0
        super().__init__(pipes.ours, os.pidfd_open(self.pid))

    def ended(self, ready: "list[int]") -> bool:
        self.reap()
        return self.ending is not None

    def reap(self) -> bool:
        """Reaps all processes that have ended. Returns whether any are left."""
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
        """Kills all other processes of the sandbox, until none is left."""
        while True:
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                break
            if self.reap():
                channel.show_life()
                time.sleep(LINGER_SECONDS)
        self.reap()
        ending = self.ending or Ending(at=time.monotonic())
        ending.cpu, ending.peak_kb = self.cpu, self.peak_kb
        return ending
