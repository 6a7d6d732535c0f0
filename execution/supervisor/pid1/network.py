"""The sockets of a sandbox, as the kernel counts them."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED_NETWORK = "VIVARIUM_SHARED_NETWORK" in os.environ  # not all sockets here are this sandbox's
os.environ.pop("VIVARIUM_SHARED_NETWORK", None)
PENDING_BYTES = 4096  # of a connection that nobody has accepted, beside its data


class Network:
    """The sockets of the container, which all of its runs share. What a dead program leaves (a closed connection waits
    for a minute, a socket in flight for the collector) keeps its address from the next."""

    def __init__(self) -> None:
        paths = ("/proc/self/net/sockstat", "/proc/self/net/sockstat6")  # the second with IPv6 alone
        self.files = [os.open(path, os.O_RDONLY) for path in paths if os.path.exists(path)]
        self.unused = self.read()

    def read(self) -> "list[int]":
        """The kernel's counts of sockets by kind and state: "used" are all, "inuse" those of a protocol, "tw" wait for
        their time. The others count for the whole machine or lag behind."""
        words = b"".join(os.pread(file, 4096, 0) for file in self.files).split()
        return [int(count) for name, count in zip(words, words[1:]) if name in (b"used", b"inuse", b"tw")]

    def sockets(self) -> int:
        """How many sockets there are, connections that nobody has accepted included. 0 where the kernel does not tell, or
        where the network is not the sandbox's own."""
        if SHARED_NETWORK or not self.files:
            return 0
        return int(os.pread(self.files[0], 64, 0).split()[2])  # "sockets: used N"

    def unread(self) -> int:
        """How many bytes wait in the queues of IP and netlink sockets, either way."""
        total = 0
        for fields_of_socket in table_of("netlink"):
            total += int(fields_of_socket[4])
        for name in ("tcp", "tcp6", "udp", "udp6"):
            for fields_of_socket in table_of(name):
                state, queues, inode = fields_of_socket[3], fields_of_socket[4], fields_of_socket[9]
                if state != b"0A":  # of one that listens they are numbers of connections
                    total += sum(int(queue, 16) for queue in queues.split(b":"))
                if inode == b"0":
                    total += PENDING_BYTES
        return total

    def in_use(self) -> bool:
        """Whether there are more than there were ever left."""
        now = self.read()
        more = any(count > before for count, before in zip(now, self.unused))
        self.unused = [min(pair) for pair in zip(now, self.unused)]
        return more


def table_of(name: str) -> "Iterator[list[bytes]]":
    """The sockets of a kind, as the kernel's columns. None where it has no such table."""
    try:
        with open(f"/proc/self/net/{name}", "rb") as lines:
            next(lines)
            for line in lines:
                yield line.split()
    except (OSError, StopIteration):
        return
