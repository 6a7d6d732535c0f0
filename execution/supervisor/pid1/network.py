"""The sockets of a sandbox, as the kernel counts them."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED_NETWORK = "VIVARIUM_SHARED_NETWORK" in os.environ  # the sandbox has no network namespace of its own
os.environ.pop("VIVARIUM_SHARED_NETWORK", None)
PENDING_BYTES = 4096  # cost of a connection that was not accepted, besides its data


class Network:
    """The sockets of the sandbox, which all of its runs share. What a dead program leaves still occupies its address: a
    closed connection for a minute, a socket in flight until the kernel collects it."""

    def __init__(self) -> None:
        paths = ("/proc/self/net/sockstat", "/proc/self/net/sockstat6")  # the second only with IPv6
        self.files = [os.open(path, os.O_RDONLY) for path in paths if os.path.exists(path)]
        self.usual = b""  # what the kernel reports while nothing is in use
        self.unused = self.read()

    def report(self) -> bytes:
        """Returns the kernel's report on sockets."""
        return b"".join([os.pread(file, 4096, 0) for file in self.files])

    def read(self) -> "list[int]":
        """Returns the kernel's counts of sockets by kind and state: "used" for all, "inuse" for a protocol, "tw" for
        those in TIME_WAIT. The other counts are for the whole machine, or lag behind."""
        return counts_of(self.report())

    def in_use(self) -> bool:
        """Reports whether any count is above its lowest value so far."""
        report = self.report()
        if report == self.usual:
            return False
        now = counts_of(report)
        more = any(count > before for count, before in zip(now, self.unused))
        self.unused = [min(pair) for pair in zip(now, self.unused)]
        if not more:
            self.usual = report
        return more

    def has_connections(self) -> bool:
        """Reports whether there are sockets of IP, which the kernel may keep for a minute when no process has them."""
        return any(self.read()[1:])

    def sockets(self) -> int:
        """Returns the number of sockets, with connections that were not accepted. Returns 0 where the kernel does not
        report it, or where the sandbox shares its network."""
        if SHARED_NETWORK or not self.files:
            return 0
        return int(os.pread(self.files[0], 64, 0).split()[2])  # "sockets: used N"

    def unread(self) -> int:
        """Returns the bytes in the queues of IP and netlink sockets, in both directions."""
        total = 0
        for fields_of_socket in table_of("netlink"):
            total += int(fields_of_socket[4])
        for name in ("tcp", "tcp6", "udp", "udp6"):
            for fields_of_socket in table_of(name):
                state, queues, inode = fields_of_socket[3], fields_of_socket[4], fields_of_socket[9]
                if state != b"0A":  # a listening socket has numbers of connections here
                    total += sum(int(queue, 16) for queue in queues.split(b":"))
                if inode == b"0":
                    total += PENDING_BYTES
        return total


def counts_of(report: bytes) -> "list[int]":
    """Returns the counts in the kernel's report."""
    words = report.split()
    return [int(count) for name, count in zip(words, words[1:]) if name in (b"used", b"inuse", b"tw")]


def table_of(name: str) -> "Iterator[list[bytes]]":
    """Yields the columns of each socket in one of the kernel's tables, or nothing where it has no such table."""
    try:
        with open(f"/proc/self/net/{name}", "rb") as lines:
            next(lines)
            for line in lines:
                yield line.split()
    except (OSError, StopIteration):
        return
