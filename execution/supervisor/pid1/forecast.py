"""Predicts from a program's text whether it will use the modules that are preloaded.

A wrong prediction costs time and nothing else: every program can import every module. The text is searched, not parsed,
because PID 1 does nothing with a program's text that could take long or much memory."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Packages that import no preloaded ones. Before Python 3.10 their names are unknown: then programs that import one are
# taken for users of the preloaded ones.
PLAIN = frozenset(name.encode() for name in (*getattr(sys, "stdlib_module_names", ()), "IPython", "__main__"))
IMPORT = b"import "
MAX_IMPORTS = 100  # import statements that are looked at
NEAR = 200  # bytes before and after the word that are looked at


class Forecast:
    """What programs will use, given the modules that are preloaded."""

    def __init__(self, preloaded: "Iterable[str]") -> None:
        self.names = [name.partition(".")[0].encode() for name in preloaded if not name.startswith(".")]

    def uses_preloaded(self, code: "bytes | bytearray") -> bool:
        """Reports whether a program probably uses preloaded modules: it contains the name of one, or imports a package that
        is not Python's own, and which may import them."""
        return any(name in code for name in self.names) or bool(self.names) and not PLAIN.issuperset(imported(code))


def imported(code: "bytes | bytearray") -> "list[bytes]":
    """Returns the packages that the first import statements of a program name, and some other words."""
    found: "list[bytes]" = []
    at = code.find(IMPORT)
    for _ in range(MAX_IMPORTS):
        if at < 0:
            break
        before = bytes(code[max(0, at - NEAR) : at]).rpartition(b"\n")[2]
        at += len(IMPORT)
        after = bytes(code[at : at + NEAR]).partition(b"\n")[0].partition(b";")[0]
        _, is_from, package = before.rpartition(b"from ")
        for module in [package] if is_from else after.split(b","):
            found += module.replace(b".", b" ").split()[:1]
        at = code.find(IMPORT, at)
    return found
