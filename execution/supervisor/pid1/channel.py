"""The framed connection to the server: one byte of kind, four bytes of big-endian length, the payload.

frames.go of execution/runner documents every kind of frame."""

import os
import select
import struct
import time

from kernel import CHUNK, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Optional, Protocol, TypeVar

    Item = TypeVar("Item")

    class Stream(Protocol):
        """How bytes reach the server and come from it."""

        receive_fd: int  # readable when there is something to read
        send_fd: int  # writable when write may accept more
        early: bytes  # what the server had sent before the channel was made

        @property
        def unsent(self) -> bytes:
            """What write has accepted and not passed on yet. The next write passes it on first."""

        def read(self) -> "Optional[bytes]":
            """Returns what the server has sent; nothing at the end; None if there is nothing yet."""

        def write(self, data: "bytes | bytearray") -> int:
            """Accepts some of the data for the server, and returns how much. Raises OSError, and BlockingIOError while there
            is no room."""


MAX_FRAME = 1 << 20  # bytes of payload that the server may send in one frame
PIPE = 1 << 18  # bytes that may be in flight to the server, and from it
LIFE_SIGN_SECONDS = 0.4  # time without output after which long work sends a sign of life
F_SETPIPE_SZ = 1031  # fcntl(2)


class Gone(Exception):
    """The server is gone or has stopped reading, or this sandbox can no longer be used."""


def widen(pipe: int) -> None:
    """Enlarges a pipe beyond its initial 64 KB. Data is passed on several times on its way to the server and back, and
    each step waits where a pipe is full: files take half as long. The kernel refuses for users with many pipes, and for
    fds that are not pipes. Then the size stays."""
    libc.fcntl(pipe, F_SETPIPE_SZ, PIPE)


class Descriptors:
    """A Stream of two descriptors, which lead to the server."""

    unsent = early = b""

    def __init__(self, receive_fd: int, send_fd: int) -> None:
        self.receive_fd = receive_fd
        self.send_fd = send_fd
        os.set_blocking(send_fd, False)

    def read(self) -> bytes:
        return os.read(self.receive_fd, CHUNK)

    def write(self, data: "bytes | bytearray") -> int:
        return os.write(self.send_fd, data)


class Channel:
    """The framed connection to the server."""

    def __init__(self, stream: "Stream", silence: float) -> None:
        self.stream = stream
        self.receive_fd = stream.receive_fd
        self.silence = silence  # seconds without a frame after which the server counts as gone
        self.last_received = self.last_sent = time.monotonic()
        self.buffer = bytearray(stream.early)
        self.posted = bytearray()
        self.listening = select.poll()
        self.listening.register(stream.receive_fd, select.POLLIN)
        self.both = select.poll()
        self.both.register(stream.receive_fd, select.POLLIN)
        self.both.register(stream.send_fd, select.POLLOUT)

    def post(self, kind: bytes, payload: bytes = b"") -> None:
        """Queues one frame for the next send or flush. Each write wakes four processes up to the server's."""
        self.posted += kind + struct.pack(">I", len(payload)) + payload

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Sends one frame and those queued before it. Raises Gone when the server is gone."""
        self.post(kind, payload)
        self.flush()

    def flush(self) -> None:
        """Sends the queued frames. Waits for a slow server as long as it sends something: it stores files while they
        arrive. Raises Gone when the server is gone."""
        while self.posted or self.stream.unsent:
            try:
                self.push()
            except BlockingIOError:
                for ready, _ in self.both.poll(self.silence_left() * 1000 + 1):
                    if ready == self.receive_fd:
                        self.read_available()
            except OSError as error:
                raise Gone(str(error)) from error

    def push(self) -> None:
        """Sends as many queued bytes as there is room for. Raises OSError, and BlockingIOError when there is none."""
        del self.posted[: self.stream.write(self.posted)]
        self.last_sent = time.monotonic()

    def pong(self) -> None:
        """Sends the server a sign of life. Neither waits nor raises: where the pipe is full, the server has something
        to read, and a server that is gone is noticed elsewhere."""
        if not self.posted:  # otherwise the queued frames serve as one
            self.post(b"P")
        try:
            self.push()
        except OSError:
            pass

    def show_life(self) -> None:
        """Sends a sign of life if nothing was sent for a while. Call it regularly in work that may take long."""
        if time.monotonic() - self.last_sent >= LIFE_SIGN_SECONDS:
            self.pong()

    def showing_life(self, items: "Iterable[Item]") -> "Iterator[Item]":
        """Yields the items, and calls show_life before each."""
        for item in items:
            self.show_life()
            yield item

    def begin_job(self) -> None:
        """Counts the beginning of a job as output, so that a short run sends nothing but its report."""
        self.last_sent = time.monotonic()

    def abort_file(self, reason: str) -> None:
        """Handles a file of which only a part can be sent, although no process writes it any more. Raises Gone."""
        raise Gone(reason)

    def read_available(self) -> None:
        """Reads what the server has sent. Call it when the descriptor is readable. Raises Gone at the end."""
        data = self.stream.read()
        if data is None:
            return
        if not data:
            raise Gone("the server closed the connection")
        self.last_received = time.monotonic()
        self.buffer += data

    def silence_left(self) -> float:
        """Returns the seconds until the server counts as gone. Raises Gone if it does and has sent nothing since."""
        left = self.last_received + self.silence - time.monotonic()
        if left <= 0 and not self.listening.poll(0):
            raise Gone("the server fell silent")
        return max(left, 0)

    def next_buffered(self) -> "Optional[tuple[bytes, bytes]]":
        """Returns the next complete frame (kind, payload) received, or None. Raises Gone for one that is too large."""
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

    def wait(self, fds: "tuple[int, ...]", timeout: float = 3600) -> bool:
        """Waits until the server has sent something or one of the fds is readable, at most for `timeout` seconds. Returns
        whether one of them is. Raises Gone when the server is gone."""
        readable = select.poll()
        for fd in (self.receive_fd, *fds):
            readable.register(fd, select.POLLIN)
        for ready, _ in readable.poll(min(self.silence_left(), timeout) * 1000 + 1):
            if ready != self.receive_fd:
                return True
            self.read_available()
        return False

    def receive(self, ends: "tuple[int, ...]") -> "tuple[bytes, bytes]":
        """Waits for the next frame that is not a ping, and answers pings. Raises Gone when the server is gone, or a process
        that waits for the code of a program: one of `ends` is readable then."""
        while True:
            frame = self.next_buffered()
            if frame is None:
                if self.buffer:
                    self.show_life()  # a large frame may arrive slowly
                if self.wait(ends):
                    raise Gone("a program's process ended before its code came")
            elif frame[0] == b"P":
                self.pong()
            else:
                return frame
