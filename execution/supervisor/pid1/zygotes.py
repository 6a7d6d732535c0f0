"""The zygotes of a sandbox, and the programs' processes that they have prepared."""

import _socket
import os

from channel import Channel
from forecast import Forecast
from handover import fields
from inner_sandbox import InnerSandbox, ZygoteLink
from kernel import return_memory
from zygote import become_zygotes, preload_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from main import Stem, Start
    from run import Job
    from typing import Optional


def modules_of(start: "Start") -> "list[str]":
    """Returns the modules that the second zygote preloads. If there are none there is no second zygote."""
    return [] if start.bare else preload_names(start.preload)


def fork_zygotes(count: int, start: "Start", modules: "list[str]") -> "tuple[list[_socket.socket], int]":
    """Forks a process that becomes so many zygotes. Returns the links to them, and its pid."""
    pairs = [_socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET) for _ in range(count)]
    return_memory()
    pid = os.fork()
    if pid == 0:
        for ours, _ in pairs:
            ours.close()
        become_zygotes([theirs for _, theirs in pairs], start.workspace, start.program_filter, modules)
    for _, theirs in pairs:
        theirs.close()
    return [ours for ours, _ in pairs], pid


class Zygotes:
    """The first zygote, and where modules are preloaded a second one that has them. Each has prepared one program's process,
    which waits."""

    def __init__(self, channel: Channel, start: "Start", stem: "Optional[Stem]") -> None:
        """Starts the zygotes, from the stem if there is one, and waits until all are ready. Raises Gone, or Unable."""
        modules = modules_of(start)
        count = 2 if modules else 1
        links, pid = (stem.begin(count), stem.pid) if stem else fork_zygotes(count, start, modules)
        self.links = [ZygoteLink(channel, link) for link in links]
        reports = [link.await_report() for link in self.links]
        os.waitpid(pid, 0)
        self.report = reports[-1] or fields(preloaded="", preload_failed="")
        self.forecast = Forecast(modules)
        self.waiting = [link.next() for link in self.links]

    def numbers(self) -> "frozenset[int]":
        """Returns the zygotes' numbers in the sandbox."""
        return frozenset(link.number for link in self.links)

    def ends(self) -> "tuple[int, ...]":
        """Returns the descriptors of which one is readable when a process that waits has ended."""
        return tuple(program.end_fd for program in self.waiting)

    def choose(self, job: "Job") -> InnerSandbox:
        """Returns the process that will run a job."""
        return self.waiting[-1 if self.forecast.uses_preloaded(job.code) else 0]

    def replace(self, program: InnerSandbox) -> None:
        """Waits for the process that takes the place of one that has ended. Raises Gone, or Unable."""
        self.waiting[self.waiting.index(program)] = program.zygote.next()
