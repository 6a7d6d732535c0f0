"""Serves one run after the other, each in a fresh inner sandbox (ISOLATION=run)."""

import time

from channel import Channel
from cleanup import WRITABLE_DIRS, home_links, unexpected_places
from handover import Unable, fields
from main import Start, close_off
from sandbox import PROTOCOL, PYTHON, Sandbox
from zygote import become_zygotes, preload_names
from zygotes import Zygotes, modules_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from main import Stem
    from typing import NoReturn, Optional


def become_zygotes_of_stem(links: "list[_socket.socket]", arguments: "list[str]") -> "NoReturn":
    """Turns a stem into the zygotes, given its ends of the links and the supervisor's arguments."""
    start = Start(arguments)
    close_off()
    home_links().make()  # for modules that are preloaded; PID 1 may not have come so far
    modules = modules_of(start)
    for unused in links[2 if modules else 1 :]:
        unused.close()
    become_zygotes(links if modules else links[:1], start.workspace, start.program_filter, modules, await_message=True)


def serve(channel: Channel, start: Start, stem: "Optional[Stem]") -> None:
    """Serves one run after the other until the server is gone. Raises Gone then, and Unable where the kernel or the
    engine does not allow inner sandboxes."""
    if not start.has_filter:
        raise Unable(f"the server has no seccomp filter for {start.machine}", "other_machine")
    if places := unexpected_places((start.workspace, *WRITABLE_DIRS)):
        where = ", ".join(places)
        raise Unable(
            f"programs could leave files for others at {where}, which the image or engine mounts", "foreign_mount"
        )
    sandbox = Sandbox(channel, start.workspace)
    if not sandbox.network.files:
        raise Unable("the kernel does not report how many sockets are in use")
    bare = start.bare and bool(preload_names(start.preload))  # without modules to preload a sandbox lacks nothing
    zygotes = Zygotes(channel, start, stem)
    sandbox.take_baseline(zygotes.numbers())
    ready = fields(protocol=PROTOCOL, python=PYTHON, isolation="run", bare=int(bare))
    channel.send(b"R", ready + zygotes.report)
    while True:
        program = sandbox.serve_run(zygotes.ends(), zygotes.choose)
        began = time.monotonic()
        program.await_gone(channel)
        sandbox.clean()
        cleaned = time.monotonic()
        zygotes.replace(program)
        prepared = time.monotonic()
        channel.send(b"R", fields(clean_us=int((cleaned - began) * 1e6), prepare_us=int((prepared - cleaned) * 1e6)))
