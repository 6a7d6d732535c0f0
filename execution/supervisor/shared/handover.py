"""What one process of a sandbox passes to another: the pipes of a program, and the records that go through them."""

import os
import struct

RULES_FD = 62  # the rules of Landlock, on their way into a program's process
DONE_FD = 63  # where a program's process says that it is over; see ExitNotice
EXIT_NOTICE = struct.Struct("BQQ")  # a notice: a status, microseconds of CPU, kilobytes
RELEASE = struct.Struct(">??I")  # before the code: interactive, whether files were staged, seconds of CPU time
HANDED = struct.Struct("7i")  # the supervisor's ends of the pipes, and handles of the init and the program
ENDED = struct.Struct("iQQd")  # what the zygote says of an end: status, microseconds of CPU, kilobytes, when
CELL = struct.Struct(">?III")  # before a cell: interactive, seconds of CPU time, bytes of stdin, bytes of code
CELL_END = struct.Struct("IQQ")  # the end of a cell: a status as waitpid gives it, microseconds of CPU, kilobytes


def fields(**values: object) -> bytes:
    """Writes `name=value` lines."""
    return "".join(f"{name}={value}\n" for name, value in values.items()).encode()


def parse_fields(payload: bytes) -> "dict[str, int]":
    """Reads `name=number` lines, the form of a job's limits."""
    return {name: int(value) for name, _, value in (line.partition("=") for line in payload.decode().splitlines())}


def take_over(pipes: "Pipes", rules: int = -1) -> None:
    """Makes the program's pipes the fds 0 to 3 and DONE_FD of this process, and rules RULES_FD. It then has no others."""
    fds = pipes.theirs if rules < 0 else (*pipes.theirs, rules)
    clear = max(DONE_FD, *fds) + 1  # of where they are, and of where they are moved to
    high = [os.dup2(fd, clear + i) for i, fd in enumerate(fds)]
    for fd, target in zip(high, (0, 1, 2, 3, DONE_FD, RULES_FD)):
        os.dup2(fd, target, inheritable=target < 3)
    os.closerange(4, DONE_FD if rules < 0 else RULES_FD)
    os.closerange(DONE_FD + 1, 1 << 20)


class Pipes:
    """The pipes of a program: three for its standard streams, one for its code, one for its notice."""

    def __init__(self) -> None:
        stdin, self.stdin = os.pipe()
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        control, self.control = os.pipe()
        self.done, done = os.pipe()
        self.theirs = stdin, stdout, stderr, control, done
        self.ours = self.stdin, self.stdout, self.stderr, self.control, self.done
