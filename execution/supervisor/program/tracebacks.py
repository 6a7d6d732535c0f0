"""Tracebacks as programs would have them without the supervisor."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Optional

OURS: "list[dict[str, object]]" = []  # the globals of the modules whose frames are left out of tracebacks


def is_ours(trace: "TracebackType") -> bool:
    """Reports whether a traceback begins with a frame of the supervisor."""
    return any(trace.tb_frame.f_globals is ours for ours in OURS)


def without_ours(trace: "Optional[TracebackType]") -> "Optional[TracebackType]":
    """Returns a traceback without the supervisor's frames: those that called the program and those that it called."""
    while trace is not None and is_ours(trace):
        trace = trace.tb_next
    here = trace
    while here is not None:
        while here.tb_next is not None and is_ours(here.tb_next):
            here.tb_next = here.tb_next.tb_next
        here = here.tb_next
    return trace


def report(error: BaseException) -> None:
    """Prints a traceback as the interpreter does, without the supervisor's frames."""
    error.__traceback__ = trace = without_ours(error.__traceback__)
    try:
        sys.excepthook(type(error), error, trace)
    except BaseException as hook_error:
        print("Error in sys.excepthook:", file=sys.stderr)
        sys.__excepthook__(type(hook_error), hook_error, hook_error.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, trace)
