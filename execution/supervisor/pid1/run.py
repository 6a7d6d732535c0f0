"""A job from the server, and one program's run from its release to its end."""

import os
import select
import time

from channel import Channel, Gone
from handover import parse_fields
from kernel import CHUNK, close_all, write_all
from process import Ending, Program
from workspace import stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from watches import Watches

# The parts of a job that arrive in frames of their own: the kind of frame, and the attribute.
PARTS = {b"C": "code", b"I": "stdin", b"V": "variables", b"W": "arguments"}
MAX_POSTED = 1 << 18  # bytes of output that are collected before they are sent
# How long output waits for more, or for the end. Each write wakes four processes up to the server's.
HOLD_SECONDS = 0.001
MAX_DRAIN = 1 << 21  # bytes that a pipe may still hold: twice what a program can set (pipe-max-size)


class Job:
    """What the server asks for: limits and texts. Files are written directly to the workspace."""

    def __init__(self, limits: "dict[str, int]") -> None:
        self.limits = limits
        self.code = bytearray()
        self.stdin = bytearray()
        self.variables = bytearray()
        self.arguments = bytearray()
        self.has_files = False

    def add(self, kind: bytes, payload: bytes) -> None:
        """Adds to the part that a kind of frame, one of PARTS, has some of."""
        part: bytearray = getattr(self, PARTS[kind])
        part += payload

    def clear(self) -> None:
        """Drops the parts."""
        for part in PARTS.values():
            setattr(self, part, bytearray())


def receive_job(channel: Channel, ends: "tuple[int, ...]", workspace: str) -> Job:
    """Receives a job and stages its files. Raises OSError when they do not fit, and Gone when the server is gone, or one of
    `ends` is readable."""
    job = Job({})
    file = -1
    while True:
        kind, payload = channel.receive(ends)
        if kind == b"J":
            channel.begin_job()
            job = Job(parse_fields(payload))
        elif kind in PARTS:
            job.add(kind, payload)
        elif kind == b"F":
            if file >= 0:
                os.close(file)
            file = stage(workspace, payload.decode())
            job.has_files = True
        elif kind == b"D":
            write_all(file, payload)
        elif kind == b"G":
            if file >= 0:
                os.close(file)
            return job
        else:
            raise Gone(f"an unknown frame {kind!r}")
        channel.show_life()


def views(*parts: "bytes | bytearray") -> "list[memoryview]":
    """Returns views of the parts that are not empty."""
    return [memoryview(part) for part in parts if part]


class Run:
    """One program from its release to its end."""

    def __init__(self, channel: Channel, program: Program, job: Job, watches: "Watches") -> None:
        self.channel = channel
        self.program = program
        self.watches = watches
        self.stdin = views(job.stdin)  # what the program has not read yet; not copied, as it may be large
        self.refused = False  # it closed its stdin and does not want the rest
        self.room = {program.stdout: job.limits["output_bytes"], program.stderr: job.limits["output_bytes"]}
        self.cut: "set[int]" = set()  # the streams of which something was left out
        self.kinds = {program.stdout: b"O", program.stderr: b"E"}
        self.timeout = job.limits["timeout_ms"] / 1000
        self.ending = Ending()
        self.timed_out = False
        self.started = self.gone = 0.0  # when the program was released, and when all of it was gone
        self.deadline = 0.0
        self.held_since = 0.0  # when output was queued that is not sent yet; 0: there is none
        self.poll = select.poll()

    def watch(self) -> None:
        """Forwards output and stdin until the main process has ended or its time is up, then kills the rest."""
        self.deadline = self.started + self.timeout
        self.open()
        self.await_end()
        self.ending = self.program.kill(self.channel)
        self.gone = time.monotonic()
        self.drain()
        self.close()

    def open(self) -> None:
        """Starts to poll the program's pipes."""
        program = self.program
        for fd in (self.channel.receive_fd, program.end_fd, program.stdout, program.stderr, program.done):
            self.poll.register(fd, select.POLLIN)
        if self.stdin:
            self.poll.register(program.stdin, select.POLLOUT)
        else:
            os.close(program.stdin)

    def close(self) -> None:
        """Closes the program's pipes."""
        close_all((self.program.stdout, self.program.stderr, self.program.done))
        if self.stdin:
            os.close(self.program.stdin)

    def await_end(self) -> None:
        """Forwards output and stdin until the main process has ended or its time is up."""
        ended = False
        while not ended:
            left = self.deadline - time.monotonic()
            if left <= 0:
                self.timed_out = True
                more = self.program.interrupt()
                if not more:
                    return
                self.deadline = time.monotonic() + more
                continue
            wait = min(left, HOLD_SECONDS if self.held_since else self.watches.pause, self.channel.silence_left())
            ready = [fd for fd, _ in self.poll.poll(wait * 1000)]
            for fd in ready:
                self.handle(fd)
            self.listen()
            self.watches.check()
            ended = self.program.ended(ready)
            if not ended:  # otherwise the output is sent together with the report
                self.send_held()

    def send_held(self) -> None:
        """Sends output that has waited long enough for more."""
        now = time.monotonic()
        if not self.channel.posted:
            self.held_since = 0.0
        elif not self.held_since:
            self.held_since = now
        elif now - self.held_since >= HOLD_SECONDS:
            self.channel.flush()
            self.held_since = 0.0

    def handle(self, fd: int) -> None:
        """Handles one descriptor that is ready."""
        if fd == self.channel.receive_fd:
            self.channel.read_available()
        elif fd == self.program.stdin:
            self.feed()
        elif fd == self.program.done or fd in self.kinds and not self.forward(fd):
            self.poll.unregister(fd)

    def listen(self) -> None:
        """Handles the frames that were received, perhaps while this process was sending."""
        while frame := self.channel.next_buffered():
            self.handle_frame(frame[0])

    def handle_frame(self, kind: bytes) -> None:
        """Handles a frame from the server. Raises Gone for all kinds but pings: no others are allowed during a run."""
        if kind != b"P":
            raise Gone(f"an unexpected frame {kind!r}")
        self.channel.pong()

    def feed(self) -> None:
        """Writes some of stdin to the program."""
        try:
            self.stdin[0] = self.stdin[0][os.write(self.program.stdin, self.stdin[0][:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            self.stdin.clear()
            self.refused = True
        if self.stdin and not self.stdin[0]:
            del self.stdin[0]
        if not self.stdin:
            self.poll.unregister(self.program.stdin)
            self.fed()

    def fed(self) -> None:
        """Closes the program's stdin after all of it was written."""
        os.close(self.program.stdin)

    def forward(self, fd: int) -> int:
        """Forwards some output. Returns the number of bytes, 0 at the end, -1 when there is nothing to read now."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return -1
        self.post_output(fd, data)
        return len(data)

    def post_output(self, fd: int, data: bytes) -> None:
        """Queues the output that is within the limit of its stream. Output beyond it becomes one empty frame."""
        part = data[: self.room[fd]]
        self.room[fd] -= len(part)
        for start in range(0, len(part), CHUNK):  # output from between a session's cells may exceed one frame
            self.channel.post(self.kinds[fd], part[start : start + CHUNK])
        if len(part) < len(data) and fd not in self.cut:
            self.cut.add(fd)
            self.channel.post(self.kinds[fd])
        if len(self.channel.posted) > MAX_POSTED:
            self.channel.flush()

    def drain(self) -> None:
        """Forwards what the pipes still hold. That is bounded, because all other writers have been killed."""
        for fd in self.kinds:
            left = MAX_DRAIN
            while left > 0 and (count := self.forward(fd)) > 0:
                left -= count
