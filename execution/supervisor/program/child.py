"""The first steps of a session's processes after their fork."""

import os
import resource

from environment import parse_variables, split
from handover import Pipes, take_over
from kernel import (
    Filter,
    be_first_victim,
    default_signals,
    limit,
    make_landlock_rules,
    restrict_self,
    set_dumpable,
    write_all,
)
from program import OPEN_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal


def become_child(pipes: Pipes, workspace: str, program_filter: Filter, *excluded: int) -> None:
    """Turns a fresh fork of the supervisor into a program's process. Excluded signals stay ignored."""
    _signal.set_wakeup_fd(-1)
    os.setsid()
    take_over(pipes)
    default_signals(*excluded)
    os.nice(19)  # within this container: programs must not keep PID 1 from its work
    set_dumpable(True)
    be_first_victim()
    restrict_self(make_landlock_rules())
    os.chdir(workspace)
    limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    program_filter.install()


def become_shell(
    pipes: Pipes,
    workspace: str,
    program_filter: Filter,
    cpu_seconds: int,
    command: bytes,
    arguments: bytes,
    variables: bytes,
) -> "NoReturn":
    """Turns a fresh fork of the supervisor into a shell, which runs the command once the control pipe is closed."""
    try:
        become_child(pipes, workspace, program_filter)
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores these
            _signal.signal(number, _signal.SIG_DFL)
        limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
        if os.read(3, 1):
            os._exit(70)
        execute_command(command, arguments, variables)
    except BaseException as error:
        write_all(2, f"the shell could not be started: {error}\n".encode())
    finally:
        os._exit(126)


def execute_command(command: bytes, arguments: bytes, variables: bytes) -> None:
    """Replaces this process by a shell that runs a command. Raises OSError."""
    environment = {**os.environb, **parse_variables(variables)}
    words = split(arguments)
    for shell in ("/bin/bash", "/bin/sh"):
        name = os.path.basename(shell).encode()
        parameters = [name, *words] if words else []  # $0 is the same with and without arguments
        try:
            os.execve(shell, [name, b"-c", command, *parameters], environment)
        except FileNotFoundError:
            continue
    raise FileNotFoundError("the image has neither bash nor sh")
