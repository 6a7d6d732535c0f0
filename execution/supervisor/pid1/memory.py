"""The memory of a sandbox's processes, and a watch that bounds it where no cgroup does."""

import os
import time

from kernel import limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable
    from network import Network
else:
    import _signal

FEW_SOCKETS = 16  # which are not looked at closer
SOCKET_BYTES = 212_992  # that a Unix socket may have sent and nobody has read (net.core.wmem_default)
WATCH_SECONDS = 0.05  # how often memory is looked at that no cgroup bounds
CLOSER_SECONDS = 0.25  # how long it may take to find out what of it is shared
SMALL = 1 << 20  # bytes of memory of a process that need not be killed for it
KILL_ROUNDS = 5  # at most, at once, where those who were to be killed have gone
THREAD_TRIES = 5  # for a thread of a process that is still there
STARTING_SECONDS = 0.2  # for which a new process may be about to become another program


class Counter:
    """A number that the kernel keeps in a cgroup's file."""

    def __init__(self, paths: "tuple[str, ...]", name: str) -> None:
        self.fd = -1  # none of the files exists
        self.name = name.encode()
        for path in paths:
            try:
                self.fd = os.open(path, os.O_RDONLY)
                break
            except OSError:
                continue

    def read(self) -> int:
        """Reads the line `name N`; 0 where there is none."""
        data = os.pread(self.fd, 4096, 0) if self.fd >= 0 else b""
        for line in data.splitlines():
            key, _, value = line.partition(b" ")
            if key == self.name:
                return int(value)
        return 0


def pids() -> "list[int]":
    """All processes that this one can see, but for itself."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def parent_of(pid: int) -> int:
    """The parent of a process, 0 where it has none here or has gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as lines:
            return next((int(line[5:]) for line in lines if line.startswith(b"PPid:")), 0)
    except OSError:
        return 0


def fields_of(path: str, names: "tuple[bytes, ...]") -> "dict[bytes, int]":
    """The fields of a file of /proc that count kilobytes, in bytes. Raises OSError."""
    with open(path, "rb") as lines:
        return {line.split(b":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(names)}


def memory_of(pid: int) -> int:
    """The bytes of memory that a process has, of which others may have a part too: what it shares by forks counts for
    each. Page tables are among them. 0 where it has gone."""
    names = (b"RssAnon", b"RssShmem", b"VmPTE")
    try:
        found = fields_of(f"/proc/{pid}/status", names)
        if not found:
            found = fields_of_threads(pid, names)  # its first thread has ended, others go on
    except (OSError, ValueError, IndexError):
        return 0
    return sum(found.values())


def fields_of_threads(pid: int, names: "tuple[bytes, ...]") -> "dict[bytes, int]":
    """The fields of the first thread that has them. Where threads end meanwhile, others may begin, which are looked for."""
    for _ in range(THREAD_TRIES):
        ended = False
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                found = fields_of(f"/proc/{pid}/task/{thread}/status", names)
            except OSError:
                ended = True
                continue
            if found:
                return found
        if not ended:
            break
    return {}


def share_of(pid: int, most: int) -> int:
    """The same, but of what is shared its part alone, where the kernel tells: most where it does not, or where the
    process does not let itself be looked at."""
    try:
        found = fields_of(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon", b"Pss_Shmem"))
        tables = fields_of(f"/proc/{pid}/status", (b"VmPTE",))
    except (OSError, ValueError, IndexError):
        return most
    return min(most, sum(found.values()) + sum(tables.values())) if found else most


class MemoryWatch:
    """Stands in for a cgroup where there is none to bound memory: it looks at what all processes have, now and again,
    and kills the largest ones where that is too much, as the kernel would."""

    def __init__(
        self, limit: int, places: "Iterable[str]", network: "Network", show_life: "Callable[[], None]" = lambda: None
    ) -> None:
        self.limit = limit  # bytes; 0: a cgroup bounds them
        self.network = network
        self.show_life = show_life  # between looks
        self.places = tuple(places)
        self.baseline: "dict[int, int]" = {}  # what the zygote has between runs, by its number
        self.since: "dict[int, float]" = {}  # when processes were seen first
        self.next = 0.0  # when to look again
        self.kills = 0

    def exempt_zygote(self) -> None:
        """Takes the zygote, the only child of this process, for one that is not killed, and what it has for nobody's."""
        if self.limit:
            self.baseline = {pid: memory_of(pid) for pid in pids() if parent_of(pid) == os.getpid()}

    def check(self) -> None:
        """Looks, if it is time, and kills where that must be."""
        if not self.limit or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + WATCH_SECONDS / 2
        # Who hands its memory on and ends before it is killed is looked for again, under its new number; and then there
        # is an end of it.
        for _ in range(KILL_ROUNDS):
            if self.enforce():
                return
            self.show_life()
        for pid in pids():
            if pid not in self.baseline and memory_of(pid) > SMALL:
                self.kills += kill_quietly(pid)

    def enforce(self) -> bool:
        """Kills where there is too much. Returns False where that is so and nobody was there to be killed."""
        now = time.monotonic()
        used = {pid: memory_of(pid) - self.baseline.get(pid, 0) for pid in pids()}
        self.since = {pid: self.since.get(pid, now) for pid in used}
        files = sum(status.f_frsize * (status.f_blocks - status.f_bfree) for status in map(os.statvfs, self.places))
        files += max(0, self.network.sockets() - FEW_SOCKETS) * SOCKET_BYTES  # the kernel does not tell what is in them
        if sum(used.values()) + files <= self.limit:
            return True
        used.update(dict.fromkeys(self.starting(used, now), 0))
        # What is shared by forks has counted for each. To look closer takes longer the more a process maps: this is done
        # for a moment, no longer.
        until = now + CLOSER_SECONDS
        for pid in sorted(used, key=lambda pid: -used[pid]):
            if sum(used.values()) + files <= self.limit or used[pid] > self.limit or time.monotonic() > until:
                break
            used[pid] = min(used[pid], share_of(pid, used[pid] + self.baseline.get(pid, 0)) - self.baseline.get(pid, 0))
        return self.kill_largest(used, files)

    def starting(self, used: "dict[int, int]", now: float) -> "list[int]":
        """The processes that may be about to become other programs. Until then they have the memory of whoever makes them,
        who waits for it (vfork), and it is there but once. Each that has made one may have one, if it is none itself.
        """
        found: "dict[int, int]" = {}  # by who has made it
        for pid in sorted(used):
            if now - self.since[pid] < STARTING_SECONDS:
                maker = parent_of(pid)
                alike = abs(used.get(maker, 0) - used[pid]) <= used[pid] // 16
                if alike and maker not in found and maker not in found.values():
                    found[maker] = pid
        return list(found.values())

    def kill_largest(self, used: "dict[int, int]", files: int) -> bool:
        """Kills the largest processes until the others are within the limit. Returns whether that was done, or nothing was
        to be done."""
        left, before = sum(used.values()) + files, self.kills
        if left <= self.limit:
            return True
        for pid in sorted(used, key=lambda pid: -used[pid]):
            if left > self.limit and pid not in self.baseline:
                left -= used[pid]
                self.kills += kill_quietly(pid)
        return self.kills > before


def kill_quietly(pid: int) -> bool:
    """Kills a process. Returns whether it was there."""
    try:
        os.kill(pid, _signal.SIGKILL)
    except OSError:
        return False
    return True
