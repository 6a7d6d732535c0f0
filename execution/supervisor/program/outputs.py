"""The output of a session's cells: the pipes, and what has not been written to them yet."""

import fcntl
import io
import os
import stat
import sys

from ending import flush_files
from handover import DONE_FD

STREAMS = (("stdout", 1, "surrogateescape"), ("stderr", 2, "backslashreplace"))


class Outputs:
    """The pipes of a cell's output. Each cell begins with them, even if an earlier one closed or replaced them."""

    def __init__(self) -> None:
        self.pipes = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, DONE_FD + 1) for fd in (1, 2)}
        self.files = {fd: UnclosedFile(fd, "w", closefd=False) for fd in self.pipes}
        for name, fd, errors in STREAMS:
            stream = self.stream(fd, errors)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        self.references = self.count_references()
        self.opened = [fd for fd in open_fds(0) if is_open(fd)]  # without the one that lists them

    def stream(self, fd: int, errors: str) -> io.TextIOWrapper:
        """Returns a text stream that writes at once, as `python3 -u` does."""
        return io.TextIOWrapper(self.files[fd], encoding="utf-8", errors=errors, newline="\n", write_through=True)

    def repair(self) -> None:
        """Restores fds 1 and 2, and opens sys.stdout and sys.stderr again where they are closed or deleted. Raises
        nothing: a cell can run without them."""
        for fd, pipe in self.pipes.items():
            try:
                put_back(pipe, fd)
            except OSError:
                pass  # a program has closed our copy too
        for name, fd, errors in STREAMS:
            if is_closed(getattr(sys, name, None)):
                setattr(sys, name, self.stream(fd, errors))

    def flush(self) -> None:
        """Writes what a cell has printed or written to files and what Python still holds. The search for the streams
        takes longer the more objects there are, so it is made only if there may be one."""
        for name, _, _ in STREAMS:
            try:
                getattr(sys, name).flush()
            except Exception:
                pass  # it is closed, or an object of the program's own
        if self.is_wrapped() or self.has_due():
            flush_files(self.is_due)

    def is_wrapped(self) -> bool:
        """Reports whether a cell has made a stream of its own for one of the pipes."""
        return self.count_references() > self.references

    def count_references(self) -> int:
        """Returns how many references there are to the pipes' files: those of streams, and our own."""
        return sum(map(sys.getrefcount, self.files.values()))

    def has_due(self) -> bool:
        """Reports whether is_due may be true of any descriptor. Mostly none was opened: to list them takes longer."""
        if count_fds() == len(self.opened) and all(map(is_open, self.opened)):
            return False
        return any(map(self.is_due, open_fds()))

    def is_due(self, fd: int) -> bool:
        """Reports whether what is written to a descriptor belongs to the answer: to a file, or to one of the pipes.
        Other pipes and sockets may be full, and flushing would wait for them."""
        if fd in self.pipes.values():
            return False
        try:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                return False
            status = os.fstat(fd)
            return stat.S_ISREG(status.st_mode) or any(
                os.path.samestat(status, os.fstat(own)) for own in self.pipes.values()
            )
        except OSError:
            return False  # it is closed


class UnclosedFile(io.FileIO):
    """A pipe of output. It stays open when a stream that a cell has made of it is closed or collected: otherwise that
    would close sys.stdout too."""

    def close(self) -> None:
        """Does nothing."""


def open_fds(lowest: int = 3) -> "list[int]":
    """Returns the descriptors of this process, from the lowest that is asked for: beyond the standard streams."""
    try:
        return [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd >= lowest]
    except OSError:
        return list(range(lowest, DONE_FD))


def is_open(fd: int) -> bool:
    """Reports whether a descriptor is open."""
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def count_fds() -> int:
    """Returns how many descriptors this process has, or 0 where the kernel does not say: before Linux 6.2."""
    try:
        return os.stat("/proc/self/fd").st_size
    except OSError:
        return 0


def put_back(pipe: int, fd: int) -> None:
    """Makes fd a duplicate of pipe, unless it already is one. Raises OSError."""
    try:
        there = os.path.sameopenfile(fd, pipe)
    except OSError:
        there = False  # it is closed
    if not there:
        os.dup2(pipe, fd)


def is_closed(stream: object) -> bool:
    """Reports whether a stream cannot be printed to: it is closed or None, or raises when asked."""
    try:
        return stream is None or bool(getattr(stream, "closed", False))
    except BaseException:  # an object of a program's own class, or a stream without its buffer
        return True
