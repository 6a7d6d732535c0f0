"""A sandbox: what stays between runs. It serves a run, reports on it, and cleans up after it."""

import os
import sys
import time

import tempfiles

from errno import ENOSPC

from channel import Channel, Gone
from cleanup import MAX_LEFTOVERS, WRITABLE_DIRS, WritableDir, home_links, is_full
from handover import fields
from kernel import write_all
from memory import Cgroup, Counter, MemoryWatch, Residents, WATCHED
from network import Network
from program import MAIN_FILE
from results import send_results
from run import Run, receive_job
from watches import KernelWatch, Pressure, Watches
from workspace import any_change, await_tick, changes, post_skipped, send_files, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from process import Program
    from run import Job
    from typing import TypeVar

    Chosen = TypeVar("Chosen", bound=Program)

PROTOCOL = 3
PYTHON = ".".join(map(str, sys.version_info[:3]))
SHARED_SLACK = 1 << 20  # bytes of inaccuracy in the kernel's count of shared memory
FREE_SECONDS = 1  # time that the kernel may take to free a run's memory


class Sandbox:
    """What stays between runs."""

    def __init__(self, channel: Channel, workspace: str) -> None:
        self.channel = channel
        self.workspace = workspace
        self.root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY)
        self.places = [WritableDir(place) for place in (workspace, *WRITABLE_DIRS) if os.access(place, os.W_OK)]
        self.network = Network()
        # Bytes in tmpfs files and in shared memory, of all processes. 0 where the kernel does not report them.
        self.shared_memory = Counter(("/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat"), "shmem")
        self.free = 0  # the bytes of shared_memory that are in use between runs
        self.home = home_links()
        self.home.make()  # unless zygotes that were made ahead have
        residents = Residents()
        places = workspace, *WRITABLE_DIRS
        cgroup = Cgroup() if WATCHED else None
        memory = MemoryWatch(WATCHED, places, self.network, residents, channel.show_life, cgroup)
        self.watches = Watches(memory, KernelWatch(self.network, residents))
        self.pressure = Pressure(memory, self.watches.kernel)

    def serve_run(self, ends: "tuple[int, ...]", choose: "Callable[[Job], Chosen]") -> "Chosen":
        """Receives one job, runs it and reports on it. Returns the program that was chosen for it. Raises Gone, also when one
        of `ends` is readable before the job has come."""
        channel = self.channel
        try:
            job = receive_job(channel, ends, self.workspace)
            # Tracebacks and inspect read the source from here.
            main = os.open(MAIN_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644, dir_fd=self.root)
            try:
                write_all(main, job.code)
            finally:
                os.close(main)
        except OSError as error:
            channel.send(b"!", fields(full=int(error.errno == ENOSPC), message=str(error).replace("\n", " ")))
            raise Gone("a job could not be staged") from None
        staged = self.stamps() if job.has_files else {}
        program = choose(job)
        run = Run(channel, program, job, self.watches)
        await_tick(staged.values())
        channel.send(b"A")
        run.started = time.monotonic()
        self.watches.begin(run.started, program.number)
        program.release(job)
        run.watch()
        channel.post(b"X", self.facts(run))
        send_results(channel, job.limits["output_bytes"])
        try:
            # Files are read only when no process can write them any more. Without files there is nothing to wait for.
            if any_change(channel, self.root, staged, MAIN_FILE):
                channel.flush()
                program.await_gone(channel)
                send_files(channel, self.root, changes(channel, self.root, staged, MAIN_FILE), job.limits)
        except OSError as error:
            post_skipped(channel, ".", os.strerror(error.errno).lower())
        tempfiles.post(channel, {})
        channel.send(b"Z")
        return program

    def stamps(self) -> "dict[str, tuple[int, int, int]]":
        """Returns the stamp of each path in the workspace."""
        return {found.path: found.stamp for found in self.channel.showing_life(walk(self.root))}

    def facts(self, run: Run) -> bytes:
        """Returns the facts about a run that has ended."""
        status = run.ending.status
        memory_kills, refused_processes = self.pressure.take_counts()
        return fields(
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status),
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            timed_out=int(run.timed_out),
            wall_us=max(0, int((run.ending.at - run.started) * 1e6)),
            kill_us=max(0, int((run.gone - run.ending.at) * 1e6)),
            cpu_us=int(run.ending.cpu * 1e6),
            peak_kb=run.ending.peak_kb,
            memory_kills=memory_kills,
            refused_processes=refused_processes,
            excess=self.watches.kernel.take_excess(),
            # Checked only if the program failed, because it takes a while.
            full=0 if status == 0 else int(is_full(self.workspace)) + 2 * int(is_full("/tmp")),
        )

    def take_baseline(self, zygotes: "frozenset[int]") -> None:
        """Records what is in use between runs, given the numbers of the zygotes. Call it before the first run, when they are
        ready. Raises Gone."""
        self.empty()  # removes what the preloaded modules have written
        self.watches.exempt(zygotes)
        self.check_pressure()
        self.network.unused = self.network.read()
        self.free = self.shared_memory.read() + SHARED_SLACK

    def clean(self) -> None:
        """Removes what a run has left, when none of its processes exist. Raises Gone where something may be left."""
        self.empty()
        deadline = time.monotonic() + FREE_SECONDS
        while self.shared_memory.read() > self.free:  # the kernel frees some of it a little later
            if time.monotonic() > deadline:
                raise Gone("memory of the run is not freed")
            self.channel.show_life()
            time.sleep(0.005)
        self.check_pressure()
        if self.network.in_use():
            raise Gone("the run has left connections, which the kernel keeps for a while")

    def check_pressure(self) -> None:
        """Raises Gone where the kernel has killed or refused a process since the last call."""
        if any(self.pressure.take_counts()):
            raise Gone("the run came near its limits while it was killed")

    def empty(self) -> None:
        """Restores the folders that programs can write to. Raises Gone."""
        left = [MAX_LEFTOVERS]
        try:
            for place in self.places:
                self.channel.show_life()
                place.clean(left)
            self.home.make()
        except OSError as error:
            raise Gone(f"cleaning failed: {error}") from None
