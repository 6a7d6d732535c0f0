"""What programs show besides text: figures, images and HTML, saved in the workspace instead of shown in a notebook."""

import io
import sys

from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any, Optional

OURS.append(globals())

PYPLOT = "matplotlib.pyplot"


def rendered(value: object, method: str, kind: "type[bytes] | type[str]") -> "Optional[bytes | str]":
    """Returns what a notebook would get from a value's display method, or None. The value may be of any class and its
    method may fail: its text is shown in any case."""
    if not hasattr(type(value), method):
        return None
    try:
        data = getattr(value, method)()
    except Exception:
        return None
    if isinstance(data, tuple) and data:
        data = data[0]  # the rest is metadata
    return data if isinstance(data, kind) else None


def is_a(value: object, module: str, name: str) -> bool:
    """Reports whether a value is an instance of a module's class, if that module is imported. The program may have a
    module of that name with something else under the class's name."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and issubclass(type(value), kind)


class Display:
    """Saves in the workspace what a notebook would show besides text."""

    def __init__(self) -> None:
        self.workspace = ""
        self.numbers: "dict[str, int]" = {}  # the last number used for each kind of file

    def install(self, workspace: str) -> None:
        """Installs `display`, and a plt.show that saves figures, in this process and its forks."""
        self.workspace = workspace
        sys.modules["builtins"].__dict__["display"] = self.display
        sys.displayhook = self.display_last
        sys.meta_path.insert(0, PyplotHook(self))

    def save(self, data: "bytes | bytearray", kind: str, ending: str) -> None:
        """Saves a file under the next free number. Raises OSError."""
        while True:
            self.numbers[kind] = number = self.numbers.get(kind, 0) + 1
            try:
                with open(f"{self.workspace}/{kind}-{number}.{ending}", "xb") as file:
                    file.write(data)
                return
            except FileExistsError:
                pass

    def save_figure(self, figure: "Any") -> None:
        """Saves a Matplotlib figure. Raises whatever drawing it raises."""
        image = io.BytesIO()
        figure.savefig(image, format="png")
        figure.stale = False  # some of Matplotlib's artists do not; a later change must show
        self.save(image.getvalue(), "figure", "png")
        figure.__dict__["_displayed"] = True

    def save_picture_of(self, value: object) -> None:
        """Saves a picture or HTML for a value that has one. Raises OSError."""
        if is_a(value, "matplotlib.figure", "Figure"):
            try:
                self.save_figure(value)
            except OSError:
                raise
            except Exception:
                pass  # it cannot be drawn
        elif is_a(value, "pandas", "DataFrame"):
            pass  # text is the better form for readers of text
        elif (picture := rendered(value, "_repr_png_", bytes)) is not None:
            self.save(picture, "figure", "png")  # type: ignore[arg-type]
        elif (page := rendered(value, "_repr_html_", str)) is not None:
            self.save(page.encode("utf-8", "replace"), "output", "html")  # type: ignore[union-attr]

    def display(self, *values: object) -> None:
        """Displays values: prints each as a REPL does, and saves what is a picture or HTML in the workspace."""
        for value in values:
            self.save_picture_of(value)
            print(repr(value))

    def display_last(self, value: object) -> None:
        """Displays the value of the program's last statement: sys.displayhook."""
        if value is not None:
            self.save_picture_of(value)
        sys.__displayhook__(value)

    def show_figures(self) -> None:
        """Saves all open figures and closes them."""
        pyplot = sys.modules[PYPLOT]
        for number in pyplot.get_fignums():
            self.save_figure(pyplot.figure(number))
            pyplot.close(number)

    def save_open_figures(self) -> None:
        """Saves the figures that the program left open, except those displayed and unchanged since."""
        pyplot = sys.modules.get(PYPLOT)
        if pyplot is None:
            return
        try:
            for number in pyplot.get_fignums():
                figure = pyplot.figure(number)
                if figure.stale or not hasattr(figure, "_displayed"):
                    self.save_figure(figure)
        except Exception as error:
            print(f"an open figure could not be saved: {type(error).__name__}: {error}", file=sys.stderr)


class PyplotHook:
    """Replaces plt.show when pyplot is imported, by the program or by a library. A Matplotlib backend of our own would
    do that too. But then MPLBACKEND would name it for the Pythons that a program starts, which could not import it."""

    def __init__(self, shown: Display) -> None:
        self.shown = shown

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Optional[ModuleSpec]":
        """Finds pyplot as the other finders do, and nothing else."""
        if name != PYPLOT:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)):
                self.watch(spec.loader)
                return spec
        return None

    def watch(self, loader: "Any") -> None:
        """Makes a loader replace `show` after it has loaded pyplot. Each import has a loader of its own."""
        load = loader.exec_module

        def exec_module(module: "Any") -> None:
            load(module)
            module.show = show  # a function and not a method: Matplotlib sets attributes of it

        def show(*_: object, **__: object) -> None:
            """Saves all open figures as figure-N.png in the workspace and closes them."""
            self.shown.show_figures()

        loader.exec_module = exec_module


screen = Display()
