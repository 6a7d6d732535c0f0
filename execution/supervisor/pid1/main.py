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

import os
import resource
import sys

from channel import Channel, Gone, widen
from handover import Unable, fields
from kernel import Filter, hide_arguments, ignore_signals, set_dumpable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

LEAST_OPEN_FILES = 128  # the files that each process must be allowed to open

BARE = "bare:"  # begins the argument that names modules, if none is to be preloaded


class Start:
    """The supervisor's arguments.

    They are: the workspace; the seconds of silence after which the server counts as gone; the modules to preload
    ("auto": those that the image lists; with "bare:" in front, none of them is preloaded); when a session ends, in milliseconds
    since 1970 (0: not a session); the machine that the seccomp filter is for; and the instructions of the filter's two
    parts, in hexadecimal digits."""

    def __init__(self, arguments: "list[str]") -> None:
        self.workspace, silence, preload, expires, self.machine, first, second = arguments
        self.bare = preload.startswith(BARE)
        self.preload = preload[len(BARE) :] if self.bare else preload
        self.silence = float(silence)
        self.expires = int(expires) / 1000
        self.has_filter = self.machine == os.uname().machine  # the engine's own profile applies in any case
        self.program_filter = Filter(first, second) if self.has_filter else Filter("", "")


def check_process() -> None:
    """Exits where this process cannot be a supervisor."""
    if os.getpid() != 1:
        sys.exit("the supervisor kills every process it can see: it must be PID 1 of a sandbox")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files != resource.RLIM_INFINITY and files < LEAST_OPEN_FILES:
        sys.exit(f"a process may have {files} files open, and it takes {LEAST_OPEN_FILES}: raise the limit (ulimit -n)")


def main(serve: "Callable[[Channel, Start], None]") -> "NoReturn":
    """Prepares this process and serves, until the server is gone or the sandbox can no longer be used."""
    check_process()
    start = Start(sys.argv[1:])
    hide_arguments()
    ignore_signals()
    set_dumpable(False)
    widen(0)
    widen(1)
    channel = Channel(0, 1, start.silence)
    channel.pong()  # the first sign of life: Python has started
    status = 0
    try:
        serve(channel, start)
    except Gone as error:
        os.write(2, f"{error}\n".encode())
    except Unable as error:
        os.write(2, (fields(cause=error.cause) if error.cause else b"") + f"{error}\n".encode())
        status = 1
    except OSError as error:
        os.write(2, f"{error}\n".encode())
        status = 1
    os._exit(status)
