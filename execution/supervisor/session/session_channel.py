"""The connection of a session to servers that come and go."""

import struct
import time

from channel import PIPE, Channel, Gone
from handover import parse_fields
from kernel import CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

CLOCK_CHECK_SECONDS = 300  # how often an idle session checks the clock: poll's stops while the machine sleeps
KINDS = b"JCIVWFDGPNKYHU"  # kinds of the frames that servers send; see frames.go
TAG = 8  # bytes of its nonce with which a server begins each payload
GREETING = b"Y\0\0\0"  # the beginning of a frame with a nonce; the nonce is short


class SessionChannel(Channel):
    """The connection to servers that come and go.

    A server that attaches cannot know whether the previous one left a frame unfinished. It sends zeros, more than the
    rest of any frame, then "Y" with a nonce. A call that is in progress then ends without a report. The server reads
    from the answer on, which is "Y" with the same nonce.

    The previous server may not know yet that another has attached. The engine mixes what both send, even in the middle
    of frames. Bytes that are not a frame, such as the zeros, make the channel lost: it drops everything up to the next
    nonce, and reports that ("L"). A frame without the tag of the current server is dropped alone."""

    def __init__(self, channel: Channel, expires: float) -> None:
        super().__init__(channel.stream, channel.silence)
        self.set_end(expires)
        self.frames: "list[tuple[bytes, bytes]]" = []  # received while it was sending
        self.muted = False  # no server reads: output is dropped
        self.nonce = b""  # from a server that has attached and waits for the answer
        self.tag = b""  # the current server's; empty for the first one
        self.lost = False

    def set_end(self, expires: float) -> None:
        """Sets when the session ends. It is measured from here on by a clock that cannot be set."""
        self.end = time.clock_gettime(time.CLOCK_BOOTTIME) + expires - time.time()

    def time_left(self) -> float:
        """Returns the seconds until the session ends."""
        return self.end - time.clock_gettime(time.CLOCK_BOOTTIME)

    def silence_left(self) -> float:
        """Returns the seconds until the clock must be checked. Raises Gone at the session's end."""
        if self.time_left() <= 0:
            self.receive_waiting()
        left = self.time_left()
        if left <= 0:
            raise Gone("the session has expired")
        return min(left, CLOCK_CHECK_SECONDS)

    def receive_waiting(self) -> None:
        """Receives what was sent while this process was frozen. A server may have moved the session's end."""
        for _ in range(PIPE // CHUNK):
            if not self.listening.poll(0):
                break
            self.read_available()
        self.keep_frames()

    def keep_frames(self) -> None:
        """Keeps the frames that were received for later."""
        while frame := self.parse():
            if frame[0] != b"P":
                self.frames.append(frame)

    def flush(self) -> None:
        """Sends the queued frames. Waits for a slow server as long as it sends something. If it falls silent, or
        another server attaches, output is dropped until a server is answered."""
        deadline = time.monotonic() + self.silence
        while (self.posted or self.stream.unsent) and not self.muted:
            try:
                self.push()
            except BlockingIOError:
                if not self.await_room(deadline):
                    continue
            except OSError:
                self.muted = True
            deadline = time.monotonic() + self.silence
        self.posted.clear()

    def pong(self) -> None:
        """Sends a sign of life, but not to a muted server, which would read it as the rest of the last frame. A server
        that waits for its answer gets one: it skips everything else."""
        if self.nonce or not self.muted:
            super().pong()

    def await_room(self, deadline: float) -> bool:
        """Waits until the server reads more, and receives what it sends. Returns whether it has done either. Mutes it
        if it has done neither by the deadline."""
        left = min(deadline - time.monotonic(), self.silence_left())
        ready = [fd for fd, _ in self.both.poll(max(left, 0) * 1000 + 1)]
        if self.receive_fd in ready:
            self.read_available()
            self.keep_frames()
        self.muted = self.muted or not ready and time.monotonic() > deadline
        return bool(ready)

    def next_buffered(self) -> "Optional[tuple[bytes, bytes]]":
        """Returns the next complete frame without its tag, or None."""
        return self.frames.pop(0) if self.frames else self.parse()

    def parse(self) -> "Optional[tuple[bytes, bytes]]":
        """Returns the next complete frame received, or None. Returns "L" once when the channel becomes lost."""
        while not self.lost or self.find_greeting():
            if not self.starts_frame():
                self.lost = True
                if not self.find_greeting():
                    return b"L", b""
            frame = super().next_buffered()
            if frame is None:
                return None
            if frame[0] == b"Y":
                self.nonce = frame[1]
                self.tag = frame[1][:TAG]
                self.muted = True
                return frame
            if not frame[1].startswith(self.tag):
                continue
            payload = frame[1][len(self.tag) :]
            if frame[0] != b"U":
                return frame[0], payload
            self.take_end(payload)
        return None

    def take_end(self, payload: bytes) -> None:
        """Takes the end that a server has set. Ignores a frame that a server has not sent completely."""
        try:
            self.set_end(parse_fields(payload)["expires_ms"] / 1000)
        except (ValueError, KeyError):
            pass

    def starts_frame(self) -> bool:
        """Reports whether the received bytes may be the beginning of a frame."""
        if len(self.buffer) < 5:
            return self.buffer[:1] in KINDS
        return self.buffer[:1] in KINDS and struct.unpack_from(">I", self.buffer, 1)[0] <= CHUNK + TAG

    def find_greeting(self) -> bool:
        """Drops all bytes before a frame with a nonce. Returns whether its first bytes were received."""
        at = self.buffer.find(GREETING)
        self.lost = at < 0
        del self.buffer[: at if at >= 0 else max(0, len(self.buffer) - len(GREETING) + 1)]
        return not self.lost

    def abort_file(self, reason: str) -> None:
        """Reports that the file is not complete. In a session, a process may write to it at any time."""
        self.post(b"T", reason.encode())

    def answer_greeting(self) -> None:
        """Answers a server that has attached and drops older output. Without such a server, reports a lost channel."""
        if self.nonce:
            self.posted.clear()
            self.muted = False
            nonce, self.nonce = self.nonce, b""
            self.post(b"Y", nonce)
            self.send(b"P")  # reports that pings will be answered
        elif self.lost:
            self.send(b"L")
