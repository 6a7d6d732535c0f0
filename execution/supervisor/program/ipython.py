"""IPython as far as programs written for notebooks import it: IPython.display and get_ipython. An image may have the
package; then its other modules are its own. Importing these from it would take half a second, and they would show
nothing outside of a notebook."""

import os
import sys

from capture import Captured, Capturing
from display import screen
from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from shell import Shell
    from typing import Any, Optional

OURS.append(globals())


class DisplayObject:
    """Something to display that is given as data, or as a file."""

    read_mode = "r"

    def __init__(
        self, data: "Any" = None, url: "Optional[str]" = None, filename: "Any" = None, **options: "Any"
    ) -> None:
        if isinstance(data, (str, os.PathLike)) and filename is None and self.is_file(data):
            data, filename = None, data
        self.data = data
        self.url = url
        self.filename = filename
        self.metadata = options.pop("metadata", {})
        self.options = options
        if filename is not None:
            with open(filename, self.read_mode, encoding=None if "b" in self.read_mode else "utf-8") as file:
                self.data = file.read()

    def is_file(self, data: "Any") -> bool:
        """Reports whether data names a file. For text it never does."""
        return False

    def __repr__(self) -> str:
        return f"<IPython.core.display.{type(self).__name__} object>"


class Pretty(DisplayObject):
    """Plain text."""

    def __repr__(self) -> str:
        return str(self.data)


class HTML(DisplayObject):
    """HTML."""

    def _repr_html_(self) -> "Any":
        return self.data

    __html__ = _repr_html_


class Markdown(DisplayObject):
    """Markdown."""

    def _repr_markdown_(self) -> "Any":
        return self.data


class Latex(DisplayObject):
    """LaTeX."""

    def _repr_latex_(self) -> "Any":
        return self.data


class Math(Latex):
    """A formula of LaTeX."""

    def _repr_latex_(self) -> str:
        return "$\\displaystyle {}$".format(str(self.data).strip("$"))


class SVG(DisplayObject):
    """A picture as SVG."""

    def is_file(self, data: "Any") -> bool:
        return not str(data).lstrip().startswith("<")

    def _repr_svg_(self) -> "Any":
        return self.data


class JSON(DisplayObject):
    """Data that JSON can express."""

    def _repr_json_(self) -> "Any":
        return self.data


class GeoJSON(JSON):
    """Places on a map, as JSON."""


class Javascript(DisplayObject):
    """A script for a page. No page runs it here."""

    def _repr_javascript_(self) -> "Any":
        return self.data


class Code(DisplayObject):
    """The source of a program."""

    def __repr__(self) -> str:
        return str(self.data)


class Image(DisplayObject):
    """A picture: data, the name of a file, or a URL."""

    read_mode = "rb"

    def __init__(
        self, data: "Any" = None, url: "Optional[str]" = None, filename: "Any" = None, **options: "Any"
    ) -> None:
        if isinstance(data, str) and data.startswith(("http://", "https://")):
            data, url = None, data
        super().__init__(data, url, filename, **options)

    def is_file(self, data: "Any") -> bool:
        return True

    def kind(self) -> str:
        """Returns the media type of the data."""
        starts = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}
        return next((kind for start, kind in starts.items() if bytes(self.data[:8]).startswith(start)), "image/png")

    def _repr_mimebundle_(self, include: "Any" = None, exclude: "Any" = None) -> "dict[str, object]":
        if self.data is None:
            return {"text/html": f'<img src="{self.url}">'}
        return {self.kind(): self.data}


class Player(DisplayObject):
    """Sound or a film, in a page that plays it."""

    read_mode = "rb"
    tag, media = "audio", "audio/wav"

    def is_file(self, data: "Any") -> bool:
        return isinstance(data, str) and os.path.exists(data)

    def _repr_html_(self) -> str:
        import base64

        source = self.url or self.data
        if isinstance(source, (bytes, bytearray)):
            source = f"data:{self.options.get('mimetype') or self.media};base64,{base64.b64encode(source).decode()}"
        return f'<{self.tag} controls src="{source}"></{self.tag}>'


class Audio(Player):
    """Sound: data, a file, a URL, or samples with their rate."""

    def __init__(
        self, data: "Any" = None, filename: "Any" = None, url: "Optional[str]" = None, **options: "Any"
    ) -> None:
        if data is not None and "rate" in options and not isinstance(data, (str, bytes)):
            data = self.wave(data, int(options["rate"]))
        super().__init__(data, url, filename, **options)

    def wave(self, samples: "Any", rate: int) -> bytes:
        """Returns samples as a WAV file: those of one channel, or a list of channels."""
        import io
        import wave

        numpy = __import__("numpy")  # mypy finds no types where it is not installed

        array = numpy.atleast_2d(numpy.asarray(samples, dtype=float))
        largest = float(numpy.abs(array).max()) if array.size else 0.0
        scaled = (array / (largest or 1.0) * 32767).astype("<i2").T
        data = io.BytesIO()
        with wave.open(data, "wb") as file:
            file.setnchannels(array.shape[0])
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(scaled.tobytes())
        return data.getvalue()


class Video(Player):
    """A film: data, a file or a URL."""

    tag, media = "video", "video/mp4"


class IFrame:
    """A page within a page."""

    def __init__(self, src: str, width: "Any" = "100%", height: "Any" = 400, **_: "Any") -> None:
        self.src, self.width, self.height = src, width, height

    def _repr_html_(self) -> str:
        return f'<iframe src="{self.src}" width="{self.width}" height="{self.height}"></iframe>'

    def __repr__(self) -> str:
        return f"<IFrame of {self.src}>"


class FileLink:
    """The name of a file, which is among the results if it lies in the workspace."""

    def __init__(self, path: "Any", **_: "Any") -> None:
        self.path = str(path)

    def __repr__(self) -> str:
        return self.path


class FileLinks(FileLink):
    """The names of the files in a folder."""

    def __repr__(self) -> str:
        return "\n".join(os.path.join(at, name) for at, _, names in os.walk(self.path) for name in sorted(names))


class ProgressBar:
    """A number of steps, one of which is the current one."""

    def __init__(self, total: int) -> None:
        self.total, self.progress = total, 0

    def display(self) -> None:
        """Displays the number of the current step."""
        screen.display(self)

    update = display

    def __iter__(self) -> "Any":
        for self.progress in range(self.total):
            yield self.progress

    def __repr__(self) -> str:
        return f"{self.progress}/{self.total}"


class DisplayHandle:
    """What updates a display: it displays the new value, because what was printed stays."""

    def __init__(self, display_id: "Any" = None) -> None:
        self.display_id = display_id

    def display(self, value: object, **options: "Any") -> None:
        """Displays a value."""
        screen.display(value, **options)

    update = display


def display(*values: object, display_id: "Any" = None, **options: "Any") -> "Optional[DisplayHandle]":
    """Displays values. Returns a handle if one is asked for."""
    screen.display(*values, **options)
    return DisplayHandle(display_id) if display_id else None


def update_display(value: object, **options: "Any") -> None:
    """Displays a value again."""
    screen.display(value, **options)


def publish_display_data(data: "dict[str, object]", metadata: "Any" = None, **_: "Any") -> None:
    """Displays a dictionary of representations."""
    screen.display(data, raw=True)


def clear_output(wait: bool = False) -> None:
    """Does nothing: what was printed stays."""


def set_matplotlib_formats(*_: object, **__: object) -> None:
    """Does nothing: figures are PNG."""


set_matplotlib_close = set_matplotlib_formats


def display_as(kind: "Any") -> "Any":
    """Returns a function that displays values as one kind of object."""

    def show(*values: object, raw: bool = False, **_: object) -> None:
        screen.display(*(kind(value) if raw else value for value in values))

    return show


NAMES: "dict[str, Any]" = {
    str(getattr(thing, "__name__")): thing
    for thing in (
        *(DisplayObject, Pretty, HTML, Markdown, Latex, Math, SVG, JSON, GeoJSON, Javascript, Code, Image, Audio, Video),
        *(IFrame, FileLink, FileLinks, ProgressBar, DisplayHandle, display, update_display, publish_display_data),
        *(clear_output, set_matplotlib_formats),
    )
}  # fmt: skip


def fill(module: "Any", get_ipython: "Callable[[], Shell]") -> None:
    """Fills one of the modules that hooks.py lists in IPYTHON."""
    names = module.__dict__
    name = module.__name__
    if name in ("IPython", "IPython.core.getipython"):
        names.update(get_ipython=get_ipython)
    if name == "IPython":
        names.update(__version__="8.30.0", version_info=(8, 30, 0, ""))
        __import__("IPython.display")  # as the package does
    elif "display" in name:
        names.update(NAMES, set_matplotlib_close=set_matplotlib_formats)
        for kind in ("HTML", "Markdown", "Latex", "SVG", "JSON", "Javascript", "Pretty"):
            names["display_" + kind.lower()] = display_as(NAMES[kind])
    elif name == "IPython.core.interactiveshell":
        names.update(InteractiveShell=type(get_ipython()))
    elif name == "IPython.core.magic":
        for kind in ("line", "cell", "line_cell"):
            names[f"register_{kind}_magic"] = register(get_ipython(), kind)
    elif name == "IPython.core.pylabtools":
        names.update(backend2gui={})
    elif name == "IPython.utils.capture":
        names.update(capture_output=Capturing, CapturedIO=Captured)


def register(shell: "Shell", kind: str) -> "Any":
    """Returns the decorator that makes a function a magic: with or without a name for it."""

    def decorate(function: "Any") -> "Any":
        if isinstance(function, str):
            return lambda named: shell.register_magic_function(named, kind, function)
        return shell.register_magic_function(function, kind)

    return decorate
