"""Programs in inner sandboxes, and the link to a zygote that makes them."""

import _socket
import os
import struct
import time

from channel import Channel, Gone
from forking import LAST_NUMBER, number_of
from handover import ENDED, EXIT_NOTICE, HANDED, REPORT, Unable
from process import REAP_SECONDS, Ending, Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from run import Job
    from typing import Optional
else:
    import _signal

MAX_PEAK_KB = 1 << 32  # the largest peak that a program may claim in its exit notice


class InnerSandbox(Program):
    """A program in an inner sandbox of its own, which the zygote has made."""

    def __init__(self, fds: "tuple[int, ...]", zygote: "ZygoteLink") -> None:
        *pipes, self.init, handle = fds
        super().__init__(tuple(pipes), zygote.link.fileno())
        self.number = number_of(handle)
        self.made = time.monotonic()
        self.spent = 0.0  # seconds of processor time before its job came
        os.close(handle)
        self.zygote = zygote
        self.notice: "Optional[Ending]" = None  # from the program's exit notice
        self.ending: "Optional[Ending]" = None

    def last_number(self) -> int:
        last = self.zygote.last_number()
        return 0 if last == self.number else last  # its namespace goes on from its own number already

    def release(self, job: "Job") -> None:
        try:
            self.spent = self.cpu_time()
        except OSError:
            pass  # it died while it waited
        super().release(job)

    def cpu_time(self) -> float:
        """Returns the seconds of processor time that the program's process has taken. The program cannot forge it. The clock
        is that of clock_getcpuclockid(3). Raises OSError if the process is gone."""
        return time.clock_gettime(~self.number << 3 | 2)

    def ended(self, ready: "list[int]") -> bool:
        if self.end_fd in ready:
            self.take_end()
        elif self.done in ready:
            self.take_notice()
        return self.ending is not None or self.notice is not None

    def take_end(self) -> None:
        """Reads from the zygote how the program has ended. The zygote sends nothing else while a program runs."""
        status, cpu, peak_kb, at = ENDED.unpack(self.zygote.receive(b"E")[0])
        self.ending = Ending(status, max(0.0, cpu / 1e6 - self.spent), peak_kb, at)

    def take_notice(self) -> None:
        """Reads the program's exit notice. Anything else is ignored, because the zygote will report the end."""
        try:
            status, cpu, peak_kb = EXIT_NOTICE.unpack(os.read(self.done, EXIT_NOTICE.size))
            own_cpu = self.cpu_time()  # a lower bound
        except (OSError, struct.error):
            return  # the program has emptied the pipe, written something else or is gone
        now = time.monotonic()
        if cpu / 1e6 <= (now - self.made + 1) * (os.cpu_count() or 1) and peak_kb < MAX_PEAK_KB:
            self.notice = Ending(status << 8, max(cpu / 1e6, own_cpu) - self.spent, peak_kb, now)

    def kill(self, channel: Channel) -> Ending:
        try:
            _signal.pidfd_send_signal(self.init, _signal.SIGKILL)
        except ProcessLookupError:
            pass  # the zygote killed it first
        os.close(self.init)
        if self.notice is None:
            self.await_gone(channel)
        ending = self.notice or self.ending
        assert ending is not None
        return ending

    def await_gone(self, channel: Channel) -> None:
        deadline = time.monotonic() + REAP_SECONDS
        while self.ending is None:
            if time.monotonic() > deadline:
                raise Gone("what a program has left does not die")
            if channel.wait((self.end_fd,), REAP_SECONDS):
                self.take_end()
            else:
                channel.show_life()


class ZygoteLink:
    """The supervisor's end of the link to a zygote."""

    def __init__(self, channel: Channel, link: "_socket.socket") -> None:
        self.channel = channel
        self.link = link
        self.number = 0  # the zygote's own, in the sandbox
        try:
            self.numbers = os.open(LAST_NUMBER, os.O_RDONLY)
        except OSError:
            self.numbers = -1  # the kernel does not tell

    def last_number(self) -> int:
        """Returns the last number that a process of the sandbox got, or 0 where that is unknown."""
        return int(os.pread(self.numbers, 16, 0)) if self.numbers >= 0 else 0

    def receive(self, kind: bytes) -> "tuple[bytes, tuple[int, ...]]":
        """Reads a message of one kind from the zygote. Returns its payload and its descriptors. Raises Unable."""
        data, rights, _, _ = self.link.recvmsg(1 << 16, _socket.CMSG_SPACE(HANDED.size))
        if data[:1] == b"!":
            cause, _, message = data[1:].decode().partition("\n")
            raise Unable(message, cause)
        if data[:1] != kind:
            raise Unable(f"the zygote ended or says {data[:1]!r}, not {kind!r}", "zygote_ended")
        return data[1:], HANDED.unpack(rights[0][2]) if rights else ()

    def await_message(self, kind: bytes) -> "tuple[bytes, tuple[int, ...]]":
        """Waits for a message of one kind and returns it like receive. Raises Gone, or Unable."""
        while not self.channel.wait((self.link.fileno(),)):
            self.channel.show_life()
        return self.receive(kind)

    def await_report(self) -> bytes:
        """Waits until the zygote is ready. Returns what it has preloaded, as fields. Raises Gone, or Unable."""
        message, _ = self.await_message(b"R")
        (self.number,) = REPORT.unpack_from(message)
        return message[REPORT.size :]

    def next(self) -> InnerSandbox:
        """Waits for the next program's process. Raises Gone, or Unable."""
        return InnerSandbox(self.await_message(b"P")[1], self)
