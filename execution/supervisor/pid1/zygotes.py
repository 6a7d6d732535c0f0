"""The zygotes of a sandbox, and the programs' processes that they have prepared."""

import _socket
import os

from channel import Channel
from forecast import Forecast
from handover import fields
from inner_sandbox import InnerSandbox, ZygoteLink
from kernel import Filter, return_memory
from zygote import become_zygotes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from run import Job


class Zygotes:
    """The first zygote, and where modules are preloaded a second one that has them. Each has prepared one program's process,
    which waits."""

    def __init__(self, channel: Channel, workspace: str, program_filter: Filter, modules: "list[str]") -> None:
        """Starts the zygotes and waits until both are ready. Raises Gone, or Unable."""
        pairs = [_socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET) for _ in range(2 if modules else 1)]
        return_memory()
        pid = os.fork()
        if pid == 0:
            for ours, _ in pairs:
                ours.close()
            become_zygotes([theirs for _, theirs in pairs], workspace, program_filter, modules)
        for _, theirs in pairs:
            theirs.close()
        self.links = [ZygoteLink(channel, ours) for ours, _ in pairs]
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
