"""What programs display: values are printed, and recorded in the forms that a notebook would get."""

import os
import sys

import gallery
import libraries

from handover import RESULT_ITEM, RESULTS_FILE
from hooks import ImportHooks
from kernel import write_all
from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional

OURS.append(globals())

# What changes a module, by the module's name: a function of libraries.py.
CHANGES = {
    "matplotlib.pyplot": "show_plots",
    "matplotlib.figure": "notice_saved_figures",
    "matplotlib.font_manager": "fall_back",
    "matplotlib.animation": "show_animations",
    "PIL.ImageShow": "show_images",
    "cv2": "show_opencv",
    "webbrowser": "open_pages",
    "plotly.io": "show_plotly",
    "plotly.basedatatypes": "describe_plotly",
    "graphviz.backend.viewing": "keep_graphs",
    "pandas": "widen_pandas",
    "sympy.interactive.printing": "print_formulas",
}
PLAIN = int, str, float, bool, list, dict, tuple  # types whose values have no form but text
READABLE = ("text/markdown", "text/latex", "application/json")  # text for values whose repr says nothing
MAX_TEXT = 100_000  # characters of a value's text that are recorded
CUT = "\n...[truncated]"


class Display:
    """Displays values, and records them for the answer."""

    def __init__(self) -> None:
        self.workspace = ""
        self.made: "Optional[gallery.Gallery]" = None

    def gallery(self) -> "gallery.Gallery":
        """Returns what saves pictures and pages. Most programs have none."""
        if self.made is None:
            self.made = gallery.Gallery(self.workspace, self.record)
        return self.made

    def install(self, workspace: str) -> ImportHooks:
        """Installs `display` and the import hooks in this process and its forks."""
        self.workspace = workspace
        sys.modules["builtins"].__dict__["display"] = self.display
        sys.displayhook = self.display_last
        hooks = ImportHooks()
        sys.meta_path.insert(0, hooks)
        for name, function in CHANGES.items():
            hooks.change(name, self.change_with(function))
        return hooks

    def change_with(self, function: str) -> "Callable[[Any], None]":
        """Returns what changes a module with a function of libraries.py."""

        def change(module: "Any") -> None:
            getattr(libraries, function)(self.gallery(), module)

        return change

    def display(self, *values: object, raw: bool = False, **_: object) -> None:
        """Displays values: prints each as a REPL does, and saves what is a picture or HTML in the workspace. Raw values
        are dictionaries of representations."""
        for value in values:
            print(self.show(Raw(value) if raw and isinstance(value, dict) else value))

    def display_last(self, value: object) -> None:
        """Displays the value of the program's last statement: sys.displayhook."""
        if value is None:
            return
        builtins = sys.modules["builtins"].__dict__
        builtins["_"] = None
        print(self.show(value))
        builtins["_"] = value

    def show(self, value: object) -> str:
        """Saves and records a value. Returns its text."""
        rich = {} if type(value) in PLAIN else self.gallery().save_rich(value)
        text = repr(value)
        if text.startswith("<") and text.endswith(">"):  # it names the class alone
            text = next((rich[kind].decode("utf-8", "replace") for kind in READABLE if kind in rich), text)
        self.record({"text/plain": text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + CUT, **rich})
        return text

    def record(self, bundle: "dict[str, bytes | str]") -> None:
        """Records a displayed value for the answer. Without room for the record the answer has none."""
        record = bytearray()
        for number, (kind, data) in enumerate(bundle.items()):
            name, content = kind.encode()[:255], data.encode("utf-8", "replace") if isinstance(data, str) else data
            record += RESULT_ITEM.pack(number == 0, len(name), len(content)) + name + content
        try:
            fd = os.open(RESULTS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            try:
                write_all(fd, record)
            finally:
                os.close(fd)
        except OSError:
            pass

    def finish(self) -> None:
        """Saves what the program, or the cell, has drawn and not saved."""
        if self.made is not None or "matplotlib.pyplot" in sys.modules:
            self.gallery().finish()


class Raw:
    """A dictionary of representations that is displayed as such."""

    def __init__(self, bundle: "dict[str, object]") -> None:
        self.bundle = bundle

    def __repr__(self) -> str:
        return str(self.bundle.get("text/plain", "<display>"))

    def _repr_mimebundle_(self) -> "dict[str, object]":
        return {kind: data for kind, data in self.bundle.items() if kind != "text/plain"}


screen = Display()
