"""The connection of a session to servers that come and go."""

import struct
import time

from channel import Channel, Gone
from kernel import CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

CLOCK_CHECK_SECONDS = 300  # how often an idle session checks the clock: poll's stops while the machine sleeps
KINDS = b"JCIFDGPNKYH"  # of the frames that servers send; see frames.go
TAG = 8  # bytes of its nonce with which a server begins what it says
GREETING = b"Y\0\0\0"  # the beginning of the frame with a nonce, which is short


class SessionChannel(Channel):
    """The connection to servers that come and go.

    One that comes cannot know what the last has left half said. It sends zeros, more than the rest of any frame, then "Y"
    with a nonce. What was begun then ends, in silence, and the answer, "Y" with the same nonce, is where it begins to
    listen.

    Nor does the last one know at once that another has come. The engine passes on what both say in pieces as they come,
    in the middle of frames too. Whatever is no frame, such as the zeros, has the channel lost: it drops all up to the
    next nonce, and says so ("L"). A frame without the tag of the server that has the session is dropped by itself."""

    def __init__(self, channel: Channel, expires: float) -> None:
        super().__init__(channel.receive_fd, channel.send_fd, channel.silence)
        # From here on by a clock that nobody sets.
        self.end = time.clock_gettime(time.CLOCK_BOOTTIME) + expires - time.time()
        self.frames: "list[tuple[bytes, bytes]]" = []  # that came while it sent
        self.muted = False  # nobody listens: what is said is dropped
        self.nonce = b""  # of a server that has come and waits for the answer
        self.tag = b""  # of the one that has the session; the first one's is empty
        self.lost = False

    def silence_left(self) -> float:
        """Seconds until it is time to look at the clock. Raises Gone at the session's end."""
        left = self.end - time.clock_gettime(time.CLOCK_BOOTTIME)
        if left <= 0:
            raise Gone("the session has expired")
        return min(left, CLOCK_CHECK_SECONDS)

    def flush(self) -> None:
        """Sends what was posted. The server may take its time as long as it is heard of. Where it is not, or another one
        comes, nothing is said until a server is welcome."""
        deadline = time.monotonic() + self.silence
        while self.posted and not self.muted:
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
        """As for runs. A server that is not spoken to any more would take it for the rest of what it was last sent; one that
        waits for its answer looks for nothing else."""
        if self.nonce or not self.muted:
            super().pong()

    def await_room(self, deadline: float) -> bool:
        """Waits until the server takes more. Takes in what it says, and returns whether it has shown any life by then.
        Where it has not when deadline ends, it is unheard."""
        left = min(deadline - time.monotonic(), self.silence_left())
        ready = [fd for fd, _ in self.both.poll(max(left, 0) * 1000 + 1)]
        if self.receive_fd in ready:
            self.read_available()
            while frame := self.parse():
                if frame[0] != b"P":
                    self.frames.append(frame)
        self.muted = self.muted or not ready and time.monotonic() > deadline
        return bool(ready)

    def next_buffered(self) -> "Optional[tuple[bytes, bytes]]":
        """The next complete frame without its tag, or None."""
        return self.frames.pop(0) if self.frames else self.parse()

    def parse(self) -> "Optional[tuple[bytes, bytes]]":
        """The next complete frame of what has arrived, or None. Once the channel is lost, it gives "L"."""
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
            if frame[1].startswith(self.tag):
                return frame[0], frame[1][len(self.tag) :]
        return None

    def starts_frame(self) -> bool:
        """Whether what has come may be the beginning of a frame."""
        if len(self.buffer) < 5:
            return self.buffer[:1] in KINDS
        return self.buffer[:1] in KINDS and struct.unpack_from(">I", self.buffer, 1)[0] <= CHUNK + TAG

    def find_greeting(self) -> bool:
        """Drops what comes before a nonce. Returns whether that has come, or begun to."""
        at = self.buffer.find(GREETING)
        self.lost = at < 0
        del self.buffer[: at if at >= 0 else max(0, len(self.buffer) - len(GREETING) + 1)]
        return not self.lost

    def abort_file(self, reason: str) -> None:
        """Says that the file that is being sent is not whole: in a session somebody may always write it."""
        self.post(b"T", reason.encode())

    def answer_greeting(self) -> None:
        """Answers a server that has come, if one has. Nothing of the last one's may be under way. A server that is not
        heard any more is told so."""
        if self.nonce:
            self.posted.clear()
            self.muted = False
            nonce, self.nonce = self.nonce, b""
            self.post(b"Y", nonce)
            self.send(b"P")  # which says that pings will be answered
        elif self.lost:
            self.send(b"L")
