"""The memory of a sandbox's processes, and a watch that bounds it where no cgroup does."""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable
    from network import Network
else:
    import _signal

FEW_SOCKETS = 16  # sockets that are not examined further
SOCKET_BYTES = 212_992  # what a Unix socket may have in flight (net.core.wmem_default)
WATCH_SECONDS = 0.05  # time between checks of memory that no cgroup bounds
CLOSER_SECONDS = 0.25  # time for finding out how much of that memory is shared
SMALL = 1 << 20  # bytes of memory up to which a process is not worth killing
KILL_ROUNDS = 5  # rounds of killing in one check, if processes exit before they are killed
THREAD_TRIES = 5  # attempts to find a thread of a process that still exists
STARTING_SECONDS = 0.2  # time in which a new process may be about to execute another program


class Counter:
    """A number that the kernel reports in a cgroup's file."""

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
        """Returns N from the line `name N`, or 0 where there is none."""
        data = os.pread(self.fd, 4096, 0) if self.fd >= 0 else b""
        for line in data.splitlines():
            key, _, value = line.partition(b" ")
            if key == self.name:
                return int(value)
        return 0


def pids() -> "list[int]":
    """Returns all processes that this one can see, except itself."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def parent_of(pid: int) -> int:
    """Returns the parent of a process, or 0 where it has none here or is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as lines:
            return next((int(line[5:]) for line in lines if line.startswith(b"PPid:")), 0)
    except OSError:
        return 0


def fields_of(path: str, names: "tuple[bytes, ...]") -> "dict[bytes, int]":
    """Returns those fields of a file in /proc that count kilobytes, in bytes. Raises OSError, or ValueError."""
    with open(path, "rb") as lines:
        return {line.split(b":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(names)}


def memory_of(pid: int) -> int:
    """Returns a process's bytes of memory and page tables, or 0 where it is gone. What forks share counts for each."""
    names = (b"RssAnon", b"RssShmem", b"VmPTE")
    try:
        found = fields_of(f"/proc/{pid}/status", names)
        if not found:
            found = fields_of_threads(pid, names)  # its first thread has ended, others continue
    except (OSError, ValueError, IndexError):
        return 0
    return sum(found.values())


def fields_of_threads(pid: int, names: "tuple[bytes, ...]") -> "dict[bytes, int]":
    """Returns the fields of the first thread that has them. Where threads end meanwhile, it searches for new ones."""
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
    """Returns the same as memory_of, but counts only this process's part of shared memory. Returns `most` where the
    kernel does not report that part, or the process may not be examined."""
    try:
        found = fields_of(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon", b"Pss_Shmem"))
        tables = fields_of(f"/proc/{pid}/status", (b"VmPTE",))
    except (OSError, ValueError, IndexError):
        return most
    return min(most, sum(found.values()) + sum(tables.values())) if found else most


class Residents:
    """The processes of a sandbox that do not belong to the current run: this one, the zygotes, and what the zygotes have
    prepared for other runs. Initially all but this one belong to it."""

    def __init__(self) -> None:
        self.zygotes: "frozenset[int]" = frozenset()
        self.program = 0  # the current run's first process

    def others(self) -> "list[int]":
        """Returns the processes of the current run."""
        if not self.zygotes:
            return pids()
        return [pid for pid in pids() if pid not in self.zygotes and self.is_of_run(pid)]

    def is_of_run(self, pid: int) -> bool:
        """Reports whether a process belongs to the current run: it is its first, or no zygote's child. Orphans are children
        of the run's init."""
        return pid == self.program or parent_of(pid) not in self.zygotes


class MemoryWatch:
    """Replaces a cgroup where none bounds memory. It regularly adds up the memory of all processes and kills the
    largest ones where that is too much, as the kernel would."""

    def __init__(
        self,
        limit: int,
        places: "Iterable[str]",
        network: "Network",
        residents: Residents,
        show_life: "Callable[[], None]" = lambda: None,
    ) -> None:
        self.limit = limit  # bytes; 0: a cgroup bounds them
        self.network = network
        self.residents = residents
        self.show_life = show_life  # called between the rounds of a check
        self.places = tuple(places)
        self.since: "dict[int, float]" = {}  # when each process was first seen
        self.next = 0.0  # when to check again
        self.kills = 0

    def check(self) -> None:
        """Checks, if it is time, and kills processes where they use too much."""
        if not self.limit or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + WATCH_SECONDS / 2
        # A process can pass its memory to a new one and exit before it is killed. Then the new process is searched for,
        # KILL_ROUNDS times. After that all but the small ones are killed.
        for _ in range(KILL_ROUNDS):
            if self.enforce():
                return
            self.show_life()
        for pid in self.residents.others():
            if memory_of(pid) > SMALL:
                self.kills += kill_quietly(pid)

    def enforce(self) -> bool:
        """Kills processes if all together use too much memory. Returns False if they do and none could be killed."""
        now = time.monotonic()
        used = {pid: memory_of(pid) for pid in self.residents.others()}
        self.since = {pid: self.since.get(pid, now) for pid in used}
        files = sum(status.f_frsize * (status.f_blocks - status.f_bfree) for status in map(os.statvfs, self.places))
        files += max(0, self.network.sockets() - FEW_SOCKETS) * SOCKET_BYTES  # the kernel does not report their content
        if sum(used.values()) + files <= self.limit:
            return True
        used.update(dict.fromkeys(self.starting(used, now), 0))
        # Memory that forks share has counted for each so far. Finding the real share takes longer the more a process
        # maps, so the time for it is bounded.
        until = now + CLOSER_SECONDS
        for pid in sorted(used, key=lambda pid: -used[pid]):
            if sum(used.values()) + files <= self.limit or used[pid] > self.limit or time.monotonic() > until:
                break
            used[pid] = min(used[pid], share_of(pid, used[pid]))
        return self.kill_largest(used, files)

    def starting(self, used: "dict[int, int]", now: float) -> "list[int]":
        """Returns the processes that may be about to execute another program. Until then such a process has the memory
        of its parent, which waits for it (vfork): its memory must count once. Each parent may have one, unless it is
        among them."""
        found: "dict[int, int]" = {}  # by parent
        for pid in sorted(used):
            if now - self.since[pid] < STARTING_SECONDS:
                maker = parent_of(pid)
                alike = abs(used.get(maker, 0) - used[pid]) <= used[pid] // 16
                if alike and maker not in found and maker not in found.values():
                    found[maker] = pid
        return list(found.values())

    def kill_largest(self, used: "dict[int, int]", files: int) -> bool:
        """Kills the largest processes until the rest is within the limit. Returns False if that failed."""
        left, before = sum(used.values()) + files, self.kills
        if left <= self.limit:
            return True
        for pid in sorted(used, key=lambda pid: -used[pid]):
            if left > self.limit:
                left -= used[pid]
                self.kills += kill_quietly(pid)
        return self.kills > before


def kill_quietly(pid: int) -> bool:
    """Kills a process. Returns whether it existed."""
    try:
        os.kill(pid, _signal.SIGKILL)
    except OSError:
        return False
    return True
