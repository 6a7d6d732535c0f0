"""Calls of a session, which a server may call off, and the output that no call waits for."""

import fcntl
import os
import select
import time

from channel import Channel
from handover import CELL
from kernel import CHUNK
from process import Program
from run import Job, Run, views
from watches import Watches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

MAX_KEPT = 1 << 18  # bytes that an interpreter's threads and children have printed between cells, of each stream
FIONREAD = 0x541B  # ioctl_tty(2); the termios module is not always there
MAX_JOBS = 1000  # commands that are over, whose pipes something in the background may still write to


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

    def handle_frame(self, kind: bytes) -> None:
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
            self.post_output(fd, self.background.take(fd))
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
