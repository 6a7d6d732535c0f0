"""Calls of a session, which a server may cancel, and the output that no call waits for."""

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

MAX_KEPT = 1 << 18  # bytes of each stream that are kept from what is printed between cells
FIONREAD = 0x541B  # ioctl_tty(2); the termios module may be missing
MAX_JOBS = 1000  # finished commands whose pipes background processes may still write to


def most_processes() -> int:
    """Returns how many processes this container may have (cgroup v2, then v1), or MAX_JOBS if unlimited."""
    for path in ("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"):
        try:
            with open(path) as file:
                return int(file.read())
        except (OSError, ValueError):
            pass  # the file is missing, or there is no limit
    return MAX_JOBS


class Background:
    """Pipes that no call listens to. They are read all the same, so that processes that print there do not block."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs  # commands whose pipes stay open
        self.kept: "dict[int, Optional[bytearray]]" = {}  # the output of each; None: it is discarded

    def add(self, fd: int, keep: bool) -> "Optional[int]":
        """Adds a pipe. If there are too many, closes another and returns it."""
        self.kept[fd] = bytearray() if keep else None
        dropped = [other for other, kept in self.kept.items() if kept is None]
        if len(dropped) <= 2 * self.jobs:
            return None
        self.close(dropped[0])
        return dropped[0]

    def take(self, fd: int) -> bytes:
        """Removes a pipe and returns its output."""
        return bytes(self.kept.pop(fd, None) or b"")

    def take_last(self, fd: int) -> bytes:
        """Removes the pipe of a process that has ended. Returns its output, with what is still in the pipe."""
        kept, size = self.kept.get(fd), -1
        while kept is not None and len(kept) != size:
            size = len(kept)
            self.drain(fd)
        return self.take(fd)

    def close(self, fd: int) -> None:
        """Removes and closes a pipe."""
        del self.kept[fd]
        os.close(fd)

    def drain(self, fd: int) -> bool:
        """Reads some output. Returns False at its end."""
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
    """A run in a session, which the server may cancel."""

    def __init__(self, channel: Channel, program: Program, job: Job, watches: Watches, background: Background) -> None:
        super().__init__(channel, program, job, watches)
        self.background = background
        self.cancelled = False

    def is_cancelled(self) -> bool:
        """Reports whether the server has cancelled the call, or another server has attached."""
        while self.channel.listening.poll(0):
            self.channel.read_available()
        self.listen()
        return self.cancelled

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
        # Other frames come from a server that does not know yet that another has attached.
        if kind == b"P":
            self.channel.pong()
        if kind in (b"K", b"Y") and not self.timed_out:
            self.cancelled = True
            self.deadline = time.monotonic()


class CellCall(Call):
    """The run of a cell. The pipes stay open."""

    def __init__(self, channel: Channel, program: Program, job: Job, watches: Watches, background: Background) -> None:
        super().__init__(channel, program, job, watches, background)
        limits = job.limits
        parts = job.stdin, job.variables, job.arguments, job.code
        head = CELL.pack(bool(limits["interactive"]), limits["cpu_seconds"], *map(len, parts))
        # A small cell in one piece: the interpreter then wakes once.
        self.stdin = views(b"".join((head, *parts))) if sum(map(len, parts)) < CHUNK else views(head, *parts)
        self.untaken = False  # the interpreter has ended without reading the cell

    def open(self) -> None:
        """Begins with what threads and children have printed since the last cell."""
        for fd in self.kinds:
            self.post_output(fd, self.background.take(fd))
        super().open()
        self.feed()

    def fed(self) -> None:
        pass

    def close(self) -> None:
        unread = fcntl.ioctl(self.program.stdin, FIONREAD, bytes(4)) != bytes(4)
        self.untaken = not self.timed_out and (self.refused or bool(self.stdin) or unread)


class ShellCall(Call):
    """The run of a command. Its background processes may continue to print."""

    def close(self) -> None:
        os.close(self.program.done)
        os.close(self.program.end_fd)
        if self.stdin:
            os.close(self.program.stdin)
