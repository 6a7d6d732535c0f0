"""Output of a program that does not appear, but is kept for it."""

import sys

from tracebacks import OURS

OURS.append(globals())


class Captured:
    """The output of a cell that `%%capture` ran."""

    def __init__(self, stdout: str, stderr: str) -> None:
        self.stdout = stdout
        self.stderr = stderr

    def __str__(self) -> str:
        return self.stdout

    def show(self) -> None:
        """Prints the output."""
        print(self.stdout, end="")
        print(self.stderr, end="", file=sys.stderr)

    __call__ = show


class Capturing:
    """A context whose output does not appear: that of `%%capture`, and IPython's capture_output."""

    def __init__(self, stdout: bool = True, stderr: bool = True, display: bool = True) -> None:
        self.stdout = stdout
        self.stderr = stderr

    def __enter__(self) -> Captured:
        import io

        self.captured = Captured("", "")
        self.before = sys.stdout, sys.stderr
        self.out, self.err = io.StringIO(), io.StringIO()
        sys.stdout, sys.stderr = self.out if self.stdout else sys.stdout, self.err if self.stderr else sys.stderr
        return self.captured

    def __exit__(self, *error: object) -> None:
        sys.stdout, sys.stderr = self.before
        self.captured.stdout, self.captured.stderr = self.out.getvalue(), self.err.getvalue()
