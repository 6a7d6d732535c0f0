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
    from typing import Optional, TypeVar

    Item = TypeVar("Item")

MAX_FRAME = 1 << 20  # bytes of payload that the server may send in one frame
PIPE = 1 << 18  # bytes that may be under way to the server, and from it
LIFE_SIGN_SECONDS = 0.4  # of saying nothing, after which long work shows that this process is alive
F_SETPIPE_SZ = 1031  # fcntl(2)


class Gone(Exception):
    """The server is gone or stopped reading: there is nobody to work for. Or this sandbox is of no more use."""


class Unable(Exception):
    """This sandbox cannot be what it was asked to be."""


def widen(pipe: int) -> None:
    """Lets more bytes wait in a pipe than it holds at first (64 KB). On their way to the server and back they change
    hands several times, and each waits for the other side of a full pipe: files take half as long. The kernel refuses
    where this user's pipes are many, or where it is none; then it goes as it went."""
    libc.fcntl(pipe, F_SETPIPE_SZ, PIPE)


class Channel:
    """The framed connection to the server."""

    def __init__(self, receive_fd: int, send_fd: int, silence: float) -> None:
        self.receive_fd = receive_fd
        self.send_fd = send_fd
        self.silence = silence  # seconds after which a quiet server counts as gone
        self.last_received = self.last_sent = time.monotonic()
        self.buffer = bytearray()
        self.posted = bytearray()
        self.listening = select.poll()
        self.listening.register(receive_fd, select.POLLIN)
        self.both = select.poll()
        self.both.register(receive_fd, select.POLLIN)
        self.both.register(send_fd, select.POLLOUT)
        os.set_blocking(send_fd, False)

    def post(self, kind: bytes, payload: bytes = b"") -> None:
        """Puts one frame behind those that the next send or flush sends: each write wakes four processes up to the
        server's."""
        self.posted += kind + struct.pack(">I", len(payload)) + payload

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Sends one frame and those before it. Raises Gone when the server is."""
        self.post(kind, payload)
        self.flush()

    def flush(self) -> None:
        """Sends what was posted. The server may take its time (it stores files while they come) as long as it is heard
        of. Raises Gone when it is not."""
        while self.posted:
            try:
                self.push()
            except BlockingIOError:
                for ready, _ in self.both.poll(self.silence_left() * 1000 + 1):
                    if ready == self.receive_fd:
                        self.read_available()
            except OSError as error:
                raise Gone(str(error)) from error

    def push(self) -> None:
        """Sends as much of what was posted as there is room for. Raises OSError, BlockingIOError where there is none."""
        del self.posted[: os.write(self.send_fd, self.posted)]
        self.last_sent = time.monotonic()

    def pong(self) -> None:
        """Display the server that this process is alive. Waits for nothing and raises nothing: where there is no room, the
        server has something to read, and a server that is gone shows elsewhere."""
        if not self.posted:  # else that will do
            self.post(b"P")
        try:
            self.push()
        except OSError:
            pass

    def show_life(self) -> None:
        """The same, if nothing was said for a while. Call it now and again in whatever may take long."""
        if time.monotonic() - self.last_sent >= LIFE_SIGN_SECONDS:
            self.pong()

    def showing_life(self, items: "Iterable[Item]") -> "Iterator[Item]":
        """Breathes while items are gone through."""
        for item in items:
            self.show_life()
            yield item

    def begin_job(self) -> None:
        """Counts a job's beginning as something said: a short run is to say nothing but its report."""
        self.last_sent = time.monotonic()

    def abort_file(self, reason: str) -> None:
        """Deals with a file that cannot be sent to its end, though nobody can write it any more. Raises Gone."""
        raise Gone(reason)

    def read_available(self) -> None:
        """Takes what the server has sent; call it when the descriptor is readable. Raises Gone at the end."""
        data = os.read(self.receive_fd, CHUNK)
        if not data:
            raise Gone("the server closed the connection")
        self.last_received = time.monotonic()
        self.buffer += data

    def silence_left(self) -> float:
        """Seconds until the server counts as gone, unless it has said something by now. Raises Gone when it does."""
        left = self.last_received + self.silence - time.monotonic()
        if left <= 0 and not self.listening.poll(0):
            raise Gone("the server fell silent")
        return max(left, 0)

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

    def wait(self, fd: int, timeout: float = 3600) -> bool:
        """Waits until the server has said something, or fd is readable: then it returns True. Gives up after seconds of
        patience. Raises Gone when the server is."""
        readable = select.poll()
        readable.register(self.receive_fd, select.POLLIN)
        readable.register(fd, select.POLLIN)
        for ready, _ in readable.poll(min(self.silence_left(), timeout) * 1000 + 1):
            if ready == fd:
                return True
            self.read_available()
        return False

    def receive(self, program_end: int) -> "tuple[bytes, bytes]":
        """Waits for the next frame that is not a ping, and answers those that are. Raises Gone when the server is, or the
        program's process."""
        while True:
            frame = self.next_buffered()
            if frame is None:
                if self.buffer:
                    self.show_life()  # a large frame may come slowly
                if self.wait(program_end):
                    raise Gone("the program's process ended before its code came")
            elif frame[0] == b"P":
                self.pong()
            else:
                return frame
