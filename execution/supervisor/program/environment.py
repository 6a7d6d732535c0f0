"""What a request passes to its program beside the code: environment variables and arguments."""

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

ENVIRONMENT = os.environb  # a program may replace the name


def split(texts: bytes) -> "list[bytes]":
    """Splits texts that are each followed by NUL."""
    return texts.split(b"\0")[:-1]


def parse_variables(texts: bytes) -> "dict[bytes, bytes]":
    """Parses variables, each NAME=VALUE and NUL."""
    return {name: value for name, _, value in (text.partition(b"=") for text in split(texts))}


def parse_arguments(texts: bytes) -> "list[str]":
    """Parses arguments, each followed by NUL, for sys.argv."""
    return [text.decode() for text in split(texts)]


def change_variables(changes: "Mapping[bytes, Optional[bytes]]") -> None:
    """Changes variables of this process. None removes one."""
    for name, value in changes.items():
        if value is None:
            ENVIRONMENT.pop(name, None)
        else:
            ENVIRONMENT[name] = value
    if b"TZ" in changes:
        time.tzset()  # the C library has read the variable already


class CallEnvironment:
    """The variables and arguments of one call. They hold from its creation to undo."""

    def __init__(self, variables: bytes, arguments: bytes) -> None:
        self.variables = parse_variables(variables)
        self.before = {name: ENVIRONMENT.get(name) for name in self.variables}
        self.argv = ["", *parse_arguments(arguments)]
        self.argv_before = getattr(sys, "argv", [""])
        change_variables(self.variables)
        if arguments:
            sys.argv = self.argv

    def undo(self) -> None:
        """Restores what was there before, except what the call itself has replaced."""
        kept = (name for name, value in self.variables.items() if ENVIRONMENT.get(name) == value)
        change_variables({name: self.before[name] for name in kept})
        if getattr(sys, "argv", None) is self.argv:
            sys.argv = self.argv_before
