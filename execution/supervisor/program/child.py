"""The first steps of a session's processes, from their fork on."""

import os
import resource

from handover import Pipes, take_over
from kernel import Filter, be_first_victim, default_signals, limit, make_rules, obey, set_dumpable
from program import OPEN_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal


def limit_resources() -> None:
    """Sets the limits of a program's process that are not for the time it takes."""
    limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)


def be_child(pipes: Pipes, workspace: str, wall: Filter, *spared: int) -> None:
    """Makes a fresh fork of the supervisor a program's process. Signals that are spared stay ignored."""
    _signal.set_wakeup_fd(-1)
    os.setsid()
    take_over(pipes)
    default_signals(*spared)
    os.nice(19)  # among the processes of this container: none may keep PID 1 from its work
    set_dumpable(True)
    be_first_victim()
    obey(make_rules())
    os.chdir(workspace)
    limit_resources()
    wall.install()


def execute_command(command: bytes) -> None:
    """Becomes a shell that runs a command. Raises OSError."""
    for shell in ("/bin/bash", "/bin/sh"):
        try:
            os.execv(shell, [os.path.basename(shell).encode(), b"-c", command])
        except FileNotFoundError:
            continue
    raise FileNotFoundError("the image has neither bash nor sh")
