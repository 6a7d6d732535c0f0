"""The start of the supervisor: it prepares PID 1 and serves.

The server passes the supervisor on the command line, module by module (see bootstrap.py), so any image with Python 3.9
or newer will do. The supervisor imports little, because every sandbox waits for it. typing, signal and json would add
25 ms, because their own imports are large. So types are only for mypy, signals come from the C module, and the protocol
is not JSON.

These rules hold, whatever a program does:
  * No other process reads or writes fds 0 and 1. PID 1 is not dumpable, and the program's process closes what it
    inherited before it makes itself dumpable again.
  * A run ends when its main process ends, never at the end of its pipes. Then everything else is killed.
  * Nothing of a run is left when the next begins; where that is in doubt, PID 1 exits.
  * When the server falls silent or stops reading, PID 1 exits and the kernel ends the sandbox with it.
  * PID 1 answers the server's pings within a second, and sends signs of life (Channel.show_life) in work that takes
    longer. The server destroys a sandbox that sends no sign of life for two seconds.
"""

import _socket
import os
import resource
import sys
import time

from channel import Channel, Descriptors, Gone, widen
from cleanup import WRITABLE_DIRS, WritableDir
from handover import Unable, fields
from kernel import Filter, hide_arguments, ignore_signals, set_dumpable
from network import Network
from process import end_all_others

TYPE_CHECKING = False
if TYPE_CHECKING:
    from channel import Stream
    from collections.abc import Callable
    from typing import NoReturn, Optional, Protocol

    class Stem(Protocol):
        """A process that was forked before this one had anything to keep from programs, and that becomes the zygotes."""

        pid: int

        def begin(self, count: int) -> "list[_socket.socket]":
            """Has it become so many zygotes. Returns the links to them."""

    class Link(Stream, Protocol):
        """A way to servers that is not fds 0 and 1, and that serves one after the other."""

        stem: Stem

        def finish(self, seconds: float) -> None:
            """Ends the connection when the server has received all. Waits so many seconds for one that sends nothing."""

        def restart(self, network_is_clean: bool) -> "NoReturn":
            """Executes this process anew, when nothing else of the sandbox is left."""


LEAST_OPEN_FILES = 128  # the files that each process must be allowed to open

BARE = "bare:"  # begins the argument that names modules, if none is to be preloaded


class Start:
    """The supervisor's arguments.

    They are: the workspace; the seconds of silence after which the server counts as gone; the modules to preload
    ("auto": those that the image lists; with "bare:" in front, none of them is preloaded); when a session ends, in milliseconds
    since 1970 (0: not a session); and for each machine that sandboxes have: its name, and the instructions of the two parts
    of its seccomp filter, in hexadecimal digits."""

    def __init__(self, arguments: "list[str]") -> None:
        self.workspace, silence, preload, expires, *filters = arguments
        self.bare = preload.startswith(BARE)
        self.preload = preload[len(BARE) :] if self.bare else preload
        self.silence = float(silence)
        self.expires = int(expires) / 1000
        parts = dict(zip(filters[::3], zip(filters[1::3], filters[2::3])))
        self.machine = os.uname().machine
        self.has_filter = self.machine in parts  # the engine's own profile applies in any case
        self.program_filter = Filter(*parts.get(self.machine, ("", "")))


def check_process() -> None:
    """Exits where this process cannot be a supervisor."""
    if os.getpid() != 1:
        sys.exit("the supervisor kills every process it can see: it must be PID 1 of a sandbox")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files != resource.RLIM_INFINITY and files < LEAST_OPEN_FILES:
        sys.exit(f"a process may have {files} files open, and it takes {LEAST_OPEN_FILES}: raise the limit (ulimit -n)")


def close_off() -> None:
    """Keeps this process from what programs do."""
    hide_arguments()
    ignore_signals()
    set_dumpable(False)


def main(serve: "Callable[[Channel, Start, Optional[Stem]], None]", link: "Optional[Link]" = None) -> "NoReturn":
    """Prepares this process and serves, until the server is gone or the sandbox can no longer be used. With a link it then
    begins anew, unless it was a session's, and otherwise ends."""
    check_process()
    start = Start(sys.argv[1:])
    close_off()
    places = [WritableDir(place) for place in (start.workspace, *WRITABLE_DIRS) if link and os.access(place, os.W_OK)]
    if link is None:
        widen(0)
        widen(1)
    channel = Channel(link or Descriptors(0, 1), start.silence)
    channel.pong()  # the first sign of life: Python has started
    status, reason = 0, b""
    try:
        serve(channel, start, link.stem if link else None)
    except Gone as error:
        reason = f"{error}\n".encode()
    except Unable as error:
        reason = (fields(cause=error.cause) if error.cause else b"") + f"{error}\n".encode()
        status = 1
    except OSError as error:
        reason = f"{error}\n".encode()
        status = 1
    os.write(2, reason)
    if link:
        say_why(channel, reason)
        link.finish(max(0, channel.last_received + start.silence - time.monotonic()))
        if not start.expires:
            begin_anew(link, places)
    os._exit(status)


def say_why(channel: Channel, reason: bytes) -> None:
    """Tells the server why this sandbox serves it no longer, if it listens."""
    try:
        channel.post(b"G", reason)
        channel.push()
    except OSError:
        pass


def begin_anew(link: "Link", places: "list[WritableDir]") -> "NoReturn":
    """Removes all that is left of what was served, and has the link wait for the next server. Where anything may be left,
    this process ends, and the sandbox with it."""
    try:
        end_all_others()
        for place in places:
            place.clean([sys.maxsize])
        link.restart(not Network().has_connections())
    except OSError as error:
        os.write(2, f"the sandbox cannot be used again: {error}\n".encode())
    os._exit(1)
