"""The start of the supervisor: it prepares PID 1 and serves.

The server passes the supervisor on the command line, module by module (see bootstrap.py), so any image with Python 3.9
or newer will do. It imports little, because every sandbox waits for it: typing, signal and json would add 25 ms (their
own imports are large), so types are for mypy's eyes only, signals come from the C module, and the protocol is no JSON.

These hold, whatever a program does:
  * No other process reads or writes fds 0 and 1: PID 1 is not dumpable, and the program's process closes what it
    inherited before it makes itself dumpable again.
  * A run ends when its main process ends, never at the end of its pipes. Then everything else is killed.
  * Nothing of a run is left when the next begins; where that is in doubt, PID 1 exits.
  * When the server falls silent, or no longer reads, PID 1 exits and the kernel ends the sandbox with it.
  * PID 1 answers the server's pings within a second, and shows that it is alive (Channel.show_life) in whatever takes
    longer: the server destroys a sandbox that shows no sign of life for two.
"""

import os
import resource
import sys

from channel import Channel, Gone, Unable, widen
from kernel import Filter, hide_arguments, ignore_signals, set_dumpable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

LEAST_OPEN_FILES = 128  # that a process must be able to have for its part of the supervisor to work


class Start:
    """What the supervisor is started with.

    The arguments are the workspace, the seconds of silence after which the server counts as gone, the modules to import
    ahead ("auto": those that the image names), the machine that the seccomp filter is for, the filter's instructions in
    hexadecimal digits, and when the sandbox ends, in milliseconds since 1970: 0 for one that is not a session."""

    def __init__(self, arguments: "list[str]") -> None:
        self.workspace, silence, self.preload, self.machine, instructions, expires = arguments
        self.silence = float(silence)
        self.expires = int(expires) / 1000
        self.has_filter = self.machine == os.uname().machine  # the engine's own profile stands in any case
        self.program_filter = Filter(instructions if self.has_filter else "")


def check_process() -> None:
    """Exits where this process cannot be a supervisor."""
    if os.getpid() != 1:
        sys.exit("the supervisor kills every process it can see: it must be PID 1 of a sandbox")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files != resource.RLIM_INFINITY and files < LEAST_OPEN_FILES:
        sys.exit(f"a process may have {files} files open, and it takes {LEAST_OPEN_FILES}: raise the limit (ulimit -n)")


def main(serve: "Callable[[Channel, Start], None]") -> "NoReturn":
    """Prepares this process and serves, until the server is gone or has enough of it."""
    check_process()
    start = Start(sys.argv[1:])
    hide_arguments()
    ignore_signals()
    set_dumpable(False)
    widen(0)
    widen(1)
    channel = Channel(0, 1, start.silence)
    channel.pong()  # Python has started: from here on this process shows that it is alive
    status = 0
    try:
        serve(channel, start)
    except Gone as error:
        os.write(2, f"{error}\n".encode())
    except (Unable, OSError) as error:
        os.write(2, f"{error}\n".encode())
        status = 1
    os._exit(status)
