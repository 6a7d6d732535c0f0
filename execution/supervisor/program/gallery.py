"""Pictures and pages: the forms in which notebooks show values, and the files in the workspace that they are saved in."""

import io
import os
import sys

from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional

OURS.append(globals())

PYPLOT = "matplotlib.pyplot"
# The display methods of notebooks, the best form for a file first.
METHODS = {
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "image/svg+xml": "_repr_svg_",
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_",
    "application/json": "_repr_json_",
}
PICTURES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg", "image/gif": "gif", "image/webp": "webp"}
FORMATS = ("png", "jpg", "jpeg", "svg", "webp", "gif")  # of a buffer that has a picture
READABLE = ("text/markdown", "text/latex", "application/json")  # text for values whose repr says nothing
CHARSET = '<meta charset="utf-8">'
PAGE = "<!doctype html>\n<html>\n<head>" + CHARSET + "</head>\n<body>\n%s\n</body>\n</html>\n"


def is_a(value: object, module: str, name: str) -> bool:
    """Reports whether a value is an instance of a module's class, if that module is imported. The program may have a
    module of that name with something else under the class's name."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and issubclass(type(value), kind)


def called(value: object, method: str) -> "Any":
    """Returns what a display method of a value returns, or None. The value may be of any class and its method may
    fail: its text is shown in any case."""
    if not hasattr(type(value), method):
        return None
    try:
        data = getattr(value, method)()
    except Exception:
        return None
    if isinstance(data, tuple):
        data = data[0] if data else None  # the rest is metadata
    return data


def encoded(kind: str, data: "Any") -> "Optional[bytes]":
    """Returns the bytes of a representation, or None for what is not one."""
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    if isinstance(data, str):
        if kind in ("image/png", "image/jpeg", "image/gif"):  # as Jupyter sends them
            import binascii

            try:
                return binascii.a2b_base64(data)
            except ValueError:
                return None
        return data.encode("utf-8", "replace")
    if kind.endswith("json") and isinstance(data, (dict, list)):
        import json

        try:
            return json.dumps(data).encode()
        except (TypeError, ValueError):
            return None
    return None


def bundle_of(value: object) -> "dict[str, bytes]":
    """Returns the representations of a value besides its text, by media type, the best form for a file first."""
    raw = called(value, "_repr_mimebundle_")
    found = dict(raw) if isinstance(raw, dict) else {}
    for kind, method in METHODS.items():
        if kind not in found and (data := called(value, method)) is not None:
            found[kind] = data
    order = [*METHODS, *found]
    pairs = {kind: encoded(str(kind), found[kind]) for kind in sorted(found, key=order.index)}
    return {kind: data for kind, data in pairs.items() if data is not None}


def page_of(html: str) -> str:
    """Returns a complete document, which browsers read as UTF-8 from a file too."""
    start = html[:2000].lower()
    if not start.lstrip().startswith(("<!doctype", "<html", "<?xml")):
        return PAGE % html
    if "charset" in start:
        return html
    head = start.find("<head>") + len("<head>")
    return html[:head] + CHARSET + html[head:] if head >= len("<head>") else "\ufeff" + html


class Gallery:
    """Saves in the workspace what a notebook would show besides text."""

    def __init__(self, workspace: str, record: "Callable[[dict[str, bytes | str]], None]") -> None:
        self.workspace = workspace
        self.record = record  # records a bundle for the answer
        self.numbers: "dict[str, int]" = {}  # the last number used for each kind of file
        self.saved: "dict[str, int]" = {}  # the files that were saved, and their sizes
        self.buffered: "list[tuple[bytes, str]]" = []  # pictures that the program drew into buffers, and their endings
        self.ignoring = False  # figures that are saved now are parts of something else

    def save_rich(self, value: object) -> "dict[str, bytes]":
        """Saves a picture or a page for a value that has one. Returns the value's representations besides text. Raises
        OSError."""
        if is_a(value, "matplotlib.figure", "Figure"):
            try:
                return {"image/png": self.save_figure(value) if self.is_new(value) else self.draw(value)}
            except OSError:
                raise
            except Exception:
                return {}  # it cannot be drawn
        bundle = bundle_of(value)
        if is_a(value, "matplotlib.animation", "Animation"):
            self.mark(value._fig, "")  # type: ignore[attr-defined]
        if is_a(value, "pandas", "DataFrame"):
            return bundle  # text is the better form for readers of text
        for kind, data in bundle.items():
            if kind in PICTURES:
                self.save_picture(data, PICTURES[kind])
                break
            if kind == "text/html":
                self.save(page_of(data.decode("utf-8", "replace")).encode(), "output", "html")
                break
        return bundle

    # Files.

    def save(self, data: "bytes | bytearray", kind: str, ending: str) -> str:
        """Saves a file under the next free number. Returns its path. Raises OSError."""
        while True:
            self.numbers[kind] = number = self.numbers.get(kind, 0) + 1
            path = f"{self.workspace}/{kind}-{number}.{ending}"
            try:
                with open(path, "xb") as file:
                    file.write(data)
            except FileExistsError:
                continue
            self.saved[path] = len(data)
            return path

    def save_picture(self, data: "bytes | bytearray", ending: str) -> None:
        """Saves a picture. Raises OSError."""
        self.save(data, "figure", ending)

    def save_image(self, image: "Any") -> None:
        """Saves a picture of Pillow. Raises OSError."""
        data = io.BytesIO()
        image.save(data, "PNG")
        self.save_picture(data.getvalue(), "png")
        self.record({"text/plain": repr(image), "image/png": data.getvalue()})

    def keep_page(self, path: str) -> None:
        """Saves a file that a browser should show, unless the workspace has it. Raises OSError."""
        if not os.path.realpath(path).startswith(self.workspace + "/"):
            with open(path, "rb") as page:
                self.save(page.read(), "output", os.path.splitext(path)[1].lstrip(".") or "html")

    # Matplotlib's figures. One that was saved and has not changed since is not saved again.

    def mark(self, figure: "Any", path: str) -> None:
        """Marks a figure as saved, in a file of ours or elsewhere ("")."""
        figure.stale = False
        figure.__dict__["_displayed"] = path

    def is_new(self, figure: "Any") -> bool:
        """Reports whether a figure has changed since it was saved, or was not."""
        return figure.stale or not hasattr(figure, "_displayed")

    def draw(self, figure: "Any") -> bytes:
        """Returns a picture of a figure. Raises whatever drawing it raises."""
        image = io.BytesIO()
        with self.ignoring_figures():
            figure.savefig(image, format="png")
        figure.stale = False  # drawing does not reset it for some of Matplotlib's artists; a later change must show
        return image.getvalue()

    def save_figure(self, figure: "Any") -> bytes:
        """Saves a Matplotlib figure and returns the picture. Raises whatever drawing it raises."""
        image = self.draw(figure)
        self.mark(figure, self.save(image, "figure", "png"))
        return image

    def figure_saved(self, figure: "Any", target: "Any", begin: int, kind: "Optional[str]") -> None:
        """Notes that the program has saved a figure. A picture in a buffer will be shown."""
        if self.ignoring:
            return
        name = target if isinstance(target, (str, os.PathLike)) else getattr(target, "name", None)
        if isinstance(name, (str, os.PathLike)):
            if os.path.realpath(name).startswith(self.workspace + "/"):
                self.discard(figure)
                self.mark(figure, "")
            return
        ending = (kind or sys.modules["matplotlib"].rcParams["savefig.format"]).lower()
        if hasattr(target, "getvalue") and ending in FORMATS:
            self.buffered.append((target.getvalue()[begin:], ending))
            self.mark(figure, "")

    def discard(self, figure: "Any") -> None:
        """Deletes the picture that was saved of a figure, if the figure has not changed since."""
        path = getattr(figure, "_displayed", "")
        if path and not figure.stale and self.saved.pop(path, None) is not None:
            try:
                os.unlink(path)
            except OSError:
                pass

    def ignoring_figures(self, figure: "Any" = None) -> "Ignoring":
        """Returns a context in which figures are saved as parts of something else. At its end one figure is marked."""
        return Ignoring(self, figure)

    def show_if_new(self, figure: "Any") -> None:
        """Saves and records a figure, unless it was saved and has not changed since."""
        if self.is_new(figure):
            self.record({"text/plain": repr(figure), "image/png": self.save_figure(figure)})

    def show_figures(self) -> None:
        """Saves all open figures and closes them."""
        pyplot = sys.modules[PYPLOT]
        for number in pyplot.get_fignums():
            self.show_if_new(pyplot.figure(number))
            pyplot.close(number)

    def save_open_figures(self) -> None:
        """Saves the figures that the program left open, except those displayed and unchanged since."""
        pyplot = sys.modules.get(PYPLOT)
        if pyplot is None:
            return
        try:
            for number in pyplot.get_fignums():
                self.show_if_new(pyplot.figure(number))
        except Exception as error:
            print(f"an open figure could not be saved: {type(error).__name__}: {error}", file=sys.stderr)

    # The end of a program or a cell.

    def finish(self) -> None:
        """Saves what the program has drawn and not saved. Deletes pictures of ours that it has saved too."""
        self.save_open_figures()
        buffered, self.buffered = self.buffered, []
        try:
            for data, ending in buffered:
                self.save_picture(data, ending)
            if self.saved:
                self.delete_doubles()
        except OSError as error:
            print(f"a picture could not be saved: {error}", file=sys.stderr)
        self.saved.clear()

    def delete_doubles(self) -> None:
        """Deletes each file of ours that another file in the workspace equals. Raises OSError."""
        sizes = set(self.saved.values())
        with os.scandir(self.workspace) as entries:
            others = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
        others = [path for path in others if path not in self.saved and os.stat(path).st_size in sizes]
        for other in others:
            with open(other, "rb") as file:
                data = file.read()
            for path in [path for path, size in self.saved.items() if size == len(data) and has_content(path, data)]:
                del self.saved[path]
                os.unlink(path)


class Ignoring:
    """A context in which saved figures are parts of something else, such as an animation."""

    def __init__(self, gallery: Gallery, figure: "Any") -> None:
        self.gallery = gallery
        self.figure = figure

    def __enter__(self) -> None:
        self.before, self.gallery.ignoring = self.gallery.ignoring, True

    def __exit__(self, *error: object) -> None:
        self.gallery.ignoring = self.before
        if self.figure is not None:
            self.gallery.mark(self.figure, "")


def has_content(path: str, data: "bytes | bytearray") -> bool:
    """Reports whether a file has some content."""
    try:
        with open(path, "rb") as file:
            return file.read() == data
    except OSError:
        return False  # the program has deleted it
