"""The memory of a sandbox's processes, and a watch that bounds it where no cgroup does."""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable
    from network import Network
    from typing import Optional
else:
    import _signal

WATCHED = int(
    os.environ.pop("VIVARIUM_WATCH_MEMORY", "0")
)  # bytes to which MemoryWatch bounds memory; 0: the kernel does
FEW_SOCKETS = 16  # sockets that are not examined further
SOCKET_BYTES = 212_992  # what a Unix socket may have in flight (net.core.wmem_default)
WATCH_SECONDS = 0.05  # time between checks of memory that no cgroup bounds
CLOSE_SECONDS = 0.005  # the same, when little is left until the limit
FILL_RATE = 4 << 30  # bytes that programs may take in a second; several processes of huge pages take more
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


class Cgroup:
    """What the kernel counts for the whole sandbox, if it is in a memory cgroup of its own (version 2, then 1)."""

    VERSIONS = (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    )
    # What the kernel takes back before it refuses memory. Version 1 does not report the last one.
    RECLAIMABLE = (b"inactive_file ", b"active_file ", b"slab_reclaimable ")
    UNLIMITED = 1 << 60  # a cgroup with a limit above belongs to more than a sandbox

    def __init__(self, folder: str = "/sys/fs/cgroup") -> None:
        self.usage = self.stat = -1  # there is no such cgroup
        for limit, usage, stat in self.VERSIONS:
            try:
                with open(f"{folder}/{limit}") as file:
                    if int(file.read()) < self.UNLIMITED:
                        self.usage, self.stat = (os.open(f"{folder}/{name}", os.O_RDONLY) for name in (usage, stat))
                        break
            except (OSError, ValueError):
                continue

    def exists(self) -> bool:
        """Reports whether there is such a cgroup."""
        return self.usage >= 0

    def used(self, enough: int) -> int:
        """Returns the bytes in use that cannot be reclaimed. The answer may be too high where it is at most `enough`."""
        total = int(os.pread(self.usage, 32, 0))
        if total <= enough:
            return total  # 2 us instead of 20
        lines = os.pread(self.stat, 8192, 0).splitlines()
        return total - sum(int(line.split()[1]) for line in lines if line.startswith(self.RECLAIMABLE))


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
    """Replaces a cgroup where none bounds memory, or where the kernel would end the whole sandbox at the cgroup's limit.
    It regularly looks how much memory the processes have, and kills the largest ones where that is too much, as the
    kernel would. A cgroup of the sandbox counts all that is in it. Otherwise the memory of all programs is added up."""

    def __init__(
        self,
        limit: int,
        places: "Iterable[str]",
        network: "Network",
        residents: Residents,
        show_life: "Callable[[], None]" = lambda: None,
        cgroup: "Optional[Cgroup]" = None,
    ) -> None:
        self.limit = limit  # bytes; 0: the kernel enforces a limit, and spares this process
        self.network = network
        self.residents = residents
        self.show_life = show_life  # called between the rounds of a check
        self.cgroup = cgroup if cgroup and cgroup.exists() else None
        self.places = tuple(places)
        self.since: "dict[int, float]" = {}  # when each process was first seen
        self.dying: "dict[int, int]" = {}  # the memory of processes that were killed and may still have it
        self.pause = WATCH_SECONDS  # time until the next check
        self.next = 0.0  # when to check again
        self.kills = 0

    def check(self) -> None:
        """Checks, if it is time, and kills processes where they use too much."""
        if not self.limit or time.monotonic() < self.next:
            return
        self.find_and_kill()
        self.next = time.monotonic() + self.pause / 2

    def find_and_kill(self) -> None:
        """Kills processes where they use too much."""
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
        return self.enforce_count(self.cgroup) if self.cgroup else self.enforce_sum()

    def enforce_count(self, cgroup: Cgroup) -> bool:
        """The same, with what the cgroup counts. Decides how soon to look again."""
        count = cgroup.used(self.limit // 2)
        self.pause = min(WATCH_SECONDS, max(CLOSE_SECONDS, (self.limit - count) / FILL_RATE))
        if count <= self.limit:
            return True
        self.dying = {pid: has for pid, has in self.dying.items() if is_ending(pid)}
        used = {pid: memory_of(pid) for pid in self.residents.others() if pid not in self.dying}
        killed = self.kill_largest(used, count - sum(self.dying.values()))
        self.dying.update({pid: used[pid] for pid in killed})
        return bool(self.dying) or not used

    def enforce_sum(self) -> bool:
        """The same, with the sum of what the programs have."""
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
        left = sum(used.values()) + files
        return left <= self.limit or bool(self.kill_largest(used, left))

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

    def kill_largest(self, used: "dict[int, int]", left: int) -> "list[int]":
        """Kills the largest processes until what is left is within the limit. Returns those that existed."""
        killed = []
        for pid in sorted(used, key=lambda pid: -used[pid]):
            if left > self.limit:
                left -= used[pid]
                if kill_quietly(pid):
                    killed.append(pid)
        self.kills += len(killed)
        return killed


def is_ending(pid: int) -> bool:
    """Reports whether a process that was killed may still have memory."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


def kill_quietly(pid: int) -> bool:
    """Kills a process. Returns whether it existed."""
    try:
        os.kill(pid, _signal.SIGKILL)
    except OSError:
        return False
    return True
