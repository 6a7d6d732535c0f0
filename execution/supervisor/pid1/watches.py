"""Regular checks of what no cgroup bounds or counts, while programs run."""

import os
import time

from kernel import CHUNK
from memory import Counter, FEW_SOCKETS, MemoryWatch, Residents, WATCH_SECONDS, kill_quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from network import Network

PTYS = int(os.environ.pop("VIVARIUM_PTYS", "0"))  # pseudo-terminals that programs may have open
# What the kernel keeps for programs outside of the memory cgroup; see KernelWatch.
MAX_SOCKETS = 512
MAX_UNREAD = 32 << 20  # bytes in the queues of IP and netlink sockets
MAX_LOCKS = 10_000
LOCKS_SECONDS = 0.25  # time between counts of locks


class KernelWatch:
    """Bounds what the kernel keeps for programs and counts in no cgroup (measured on Linux 6.18): unread netlink
    messages, connections that were not accepted, datagrams that wait to be read, and file locks. It checks them
    regularly, and kills all programs where there is too much."""

    def __init__(self, network: "Network", residents: Residents) -> None:
        self.network = network
        self.residents = residents
        self.next = self.next_locks = 0.0  # when to check again
        self.kills = 0
        self.excess = ""  # what there was too much of since the last run, for the server

    def check(self) -> None:
        """Checks, if it is time, and kills all programs where there is too much."""
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + WATCH_SECONDS / 2
        if excess := self.find_excess(now):
            self.excess = excess
            self.kills += sum(map(kill_quietly, self.residents.others()))

    def begin(self, now: float) -> None:
        """Postpones the next check, because a program begins and no other runs. A short run then needs none."""
        self.next, self.next_locks = now + WATCH_SECONDS / 2, now + LOCKS_SECONDS

    def find_excess(self, now: float) -> str:
        """Returns what there is too much of: "sockets", "unread", "locks", "ptys" or ""."""
        sockets = self.network.sockets()
        if sockets > MAX_SOCKETS:
            return "sockets"
        if sockets > FEW_SOCKETS and self.network.unread() > MAX_UNREAD:
            return "unread"
        if now >= self.next_locks:
            self.next_locks = now + LOCKS_SECONDS
            if count_locks() > MAX_LOCKS:
                return "locks"
            # Terminals that the engine provides are not bounded otherwise.
            if PTYS and len(os.listdir("/dev/pts")) > PTYS + 1:  # ptmx is listed too
                return "ptys"
        return ""

    def take_excess(self) -> str:
        """Returns what there was too much of since the last call, or ""."""
        excess, self.excess = self.excess, ""
        return excess


def count_locks() -> int:
    """Returns the number of file locks in this sandbox (fcntl(2)). Stops counting soon after MAX_LOCKS."""
    found = 0
    try:
        with open("/proc/locks", "rb", 0) as file:
            while found <= MAX_LOCKS and (part := file.read(CHUNK)):
                found += part.count(b" POSIX ")
    except OSError:
        pass  # the kernel does not report them
    return found


class Pressure:
    """What the kernel has refused this container (cgroup v2, then v1)."""

    def __init__(self, watch: MemoryWatch, kernel: KernelWatch) -> None:
        self.watch = watch
        self.kernel = kernel
        self.counters = (
            Counter(("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"), "oom_kill"),
            Counter(("/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events"), "max"),
        )
        self.known = self.read()

    def read(self) -> "list[int]":
        """Returns how many processes were ever killed for memory, and how many were refused."""
        kills, refused = (counter.read() for counter in self.counters)
        return [kills + self.watch.kills + self.kernel.kills, refused]

    def take_counts(self) -> "list[int]":
        """Returns how many processes were killed for memory, and how many were refused, since the last call."""
        before, self.known = self.known, self.read()
        return [now - then for now, then in zip(self.known, before)]


class Watches:
    """Regular checks of what no cgroup bounds."""

    def __init__(self, memory: MemoryWatch, kernel: KernelWatch) -> None:
        self.memory = memory
        self.kernel = kernel
        self.residents = memory.residents
        self.sockets = -1  # at the last call of is_quiet

    @property
    def pause(self) -> float:
        """The seconds after which to check again while something runs."""
        return self.memory.pause

    def is_quiet(self) -> bool:
        """Reports whether the next check may come later: the kernel bounds memory, and there are few sockets, as many as at
        the last call."""
        before, self.sockets = self.sockets, self.kernel.network.sockets()
        return not self.memory.limit and self.sockets == before and self.sockets <= FEW_SOCKETS

    def check(self) -> None:
        """Checks, if it is time, and kills processes where there is too much."""
        self.memory.check()
        self.kernel.check()

    def exempt(self, zygotes: "frozenset[int]") -> None:
        """Exempts the zygotes, and what they have prepared. Call it before the first run."""
        self.residents.zygotes = zygotes

    def begin(self, now: float, program: int) -> None:
        """Notes which program begins, given the number of its process."""
        self.residents.program = program
        self.kernel.begin(now)
