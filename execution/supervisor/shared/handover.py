"""What one process of a sandbox passes to another: a program's pipes, and the records that are sent through them."""

import os
import struct

# What a zygote's children find at the same fds as the zygote itself: the file of open_last_number, and Landlock rules.
NUMBER_FD = 61
RULES_FD = 62
DONE_FD = 63  # fd to which a program's process writes its exit notice; see ExitNotice
RESULTS_FILE = "/tmp/.vivarium-results"  # to which programs append what they display
EXIT_NOTICE = struct.Struct("BQQ")  # an exit notice: exit status, microseconds of CPU time, peak kilobytes
# Precedes the variables, the arguments and the code: interactive, whether files were staged, seconds of CPU time, bytes of
# variables, bytes of arguments, and the last number that a process of the sandbox got (0: unknown, or not needed).
RELEASE = struct.Struct(">??IIII")
REPORT = struct.Struct("I")  # precedes a zygote's report: its number in the sandbox
HANDED = struct.Struct("7i")  # the supervisor's ends of the five pipes, then pidfds of the init and the program
ENDED = struct.Struct("iQQd")  # an end: wait status, microseconds of CPU time, peak kilobytes, monotonic time
# Precedes a cell: interactive, seconds of CPU time, bytes of stdin, of variables, of arguments and of code, in this order.
CELL = struct.Struct(">?IIIII")
# Precedes one form of a displayed value: whether it is the first form, bytes of its media type, and of its data.
RESULT_ITEM = struct.Struct(">?BI")
CELL_END = struct.Struct("IQQ")  # the end of a cell: wait status, microseconds of CPU time, peak kilobytes


class Unable(Exception):
    """This sandbox cannot provide what was asked for. The cause is a code of execution.Cause, or "" where there is none."""

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause


def fields(**values: object) -> bytes:
    """Returns `name=value` lines."""
    return "".join(f"{name}={value}\n" for name, value in values.items()).encode()


def parse_fields(payload: bytes) -> "dict[str, int]":
    """Parses `name=number` lines, such as a job's limits. Raises ValueError."""
    return {name: int(value) for name, _, value in (line.partition("=") for line in payload.decode().splitlines())}


def take_over(pipes: "Pipes", kept: int = DONE_FD) -> None:
    """Moves the program's ends of the pipes to fds 0 to 3 and DONE_FD. Closes all others, except those from `kept` on."""
    stdin, stdout, stderr, control, done = pipes.theirs
    # Without a list or a loop: the pages of new objects would be copies, which took 0.05 ms of each run.
    clear = max(DONE_FD, stdin, stdout, stderr, control, done) + 1  # above all old and new numbers
    dup2 = os.dup2
    dup2(stdin, clear)
    dup2(stdout, clear + 1)
    dup2(stderr, clear + 2)
    dup2(control, clear + 3)
    dup2(done, clear + 4)
    dup2(clear, 0)
    dup2(clear + 1, 1)
    dup2(clear + 2, 2)
    dup2(clear + 3, 3, False)
    dup2(clear + 4, DONE_FD, False)
    os.closerange(4, kept)
    os.closerange(DONE_FD + 1, 1 << 20)


class Pipes:
    """The pipes of a program: three for its standard streams, one for its code, one for its exit notice."""

    def __init__(self) -> None:
        stdin, self.stdin = os.pipe()
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        control, self.control = os.pipe()
        self.done, done = os.pipe()
        self.theirs = stdin, stdout, stderr, control, done
        self.ours = self.stdin, self.stdout, self.stderr, self.control, self.done
