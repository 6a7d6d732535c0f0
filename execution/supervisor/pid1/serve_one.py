"""Serves the only run of a sandbox (ISOLATION=container)."""

import gc

from channel import Channel
from handover import fields
from main import Start
from process import OnlyProgram
from sandbox import PROTOCOL, PYTHON, Sandbox


TYPE_CHECKING = False
if TYPE_CHECKING:
    from main import Stem
    from typing import Optional


def serve(channel: Channel, start: Start, _: "Optional[Stem]") -> None:
    """Serves the sandbox's only run. Raises Gone."""
    sandbox = Sandbox(channel, start.workspace)
    gc.freeze()  # the pages then stay shared when the program runs a collection
    program = OnlyProgram(start.workspace, start.program_filter)
    channel.send(b"R", fields(protocol=PROTOCOL, python=PYTHON, isolation="container"))
    sandbox.serve_run((program.end_fd,), lambda _: program)
