"""What a program has displayed: it is read from the file to which the program's process has appended it."""

import os
import stat

from channel import Channel
from handover import RESULT_ITEM, RESULTS_FILE
from kernel import CHUNK

MAX_ITEMS = 1000  # representations of all results together; the server accepts no more (runner.maxItems)


class Results:
    """The file of results. Programs can write anything to it."""

    def __init__(self, channel: Channel, fd: int, room: int) -> None:
        self.channel = channel
        self.fd = fd
        self.room = room  # bytes that may still be sent
        self.begins = False  # the next representation that is sent begins a result

    def send(self) -> None:
        """Sends each representation for which there is room. Ends at the first that is not complete. Raises OSError."""
        left = os.fstat(self.fd).st_size
        for _ in range(MAX_ITEMS):
            head = os.read(self.fd, RESULT_ITEM.size)
            if len(head) < RESULT_ITEM.size:
                return
            begins, kind_size, size = RESULT_ITEM.unpack(head)
            kind = os.read(self.fd, kind_size)
            left -= len(head) + kind_size + size
            if left < 0 or len(kind) < kind_size:
                return
            self.begins = self.begins or begins
            if size > self.room:
                os.lseek(self.fd, size, os.SEEK_CUR)
            else:
                self.send_item(kind, size)

    def send_item(self, kind: bytes, size: int) -> None:
        """Sends one representation. Raises OSError."""
        self.room -= size
        self.channel.post(b"B", (b"1" if self.begins else b"0") + kind)
        self.begins = False
        while size > 0 and (data := os.read(self.fd, min(CHUNK, size))):
            self.channel.send(b"D", data)
            size -= len(data)


def send_results(channel: Channel, room: int) -> None:
    """Sends what a program has displayed, up to `room` bytes, and deletes the file. Mostly there is none."""
    try:
        fd = os.open(RESULTS_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            Results(channel, fd, room).send()
        os.unlink(RESULTS_FILE)
    except OSError:
        pass  # the program has replaced it
    finally:
        os.close(fd)
