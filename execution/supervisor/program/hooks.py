"""Changes that modules get when a program, or a library, imports them."""

import os
import sys

from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec

    from display import Display
    from typing import Any, Optional

    Change = Callable[[Any], None]

OURS.append(globals())

# What is read has no terminal: pandas would assume one of 80 columns. Each line is short enough to be read.
PANDAS_OPTIONS = {"display.max_columns": 200, "display.width": 200, "display.max_colwidth": 200}


class ImportHooks:
    """A finder that changes modules after they are loaded, and provides some that an image may lack."""

    def __init__(self) -> None:
        self.changes: "dict[str, list[Change]]" = {}
        self.provided: "dict[str, Change]" = {}  # what fills a module that is ours

    def change(self, name: str, change: "Change") -> None:
        """Changes a module, now or when it is imported."""
        self.changes.setdefault(name, []).append(change)
        if name in sys.modules:
            self.apply(sys.modules[name])

    def apply(self, module: "Any") -> None:
        """Makes the changes of a module. A module of another version that they do not fit stays as it is."""
        for change in self.changes[module.__name__]:
            try:
                change(module)
            except Exception:
                pass

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Optional[ModuleSpec]":
        """Finds the modules that have changes as the other finders do, and those that are provided."""
        if name not in self.changes and name not in self.provided:
            return None
        found = None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            if found := finder.find_spec(name, path, target):
                break
        if name in self.provided:
            new_spec: "Any" = type(sys.__spec__)
            spec: "ModuleSpec" = new_spec(name, Provider(self.provided[name]), is_package=True)
            spec.submodule_search_locations = (found and found.submodule_search_locations) or []
            return spec
        if found is not None:
            self.watch(found.loader)
        return found

    def watch(self, loader: "Any") -> None:
        """Makes a loader apply the changes after it has loaded its module. Each import has a loader of its own."""
        load = loader.exec_module

        def exec_module(module: "Any") -> None:
            load(module)
            self.apply(module)

        loader.exec_module = exec_module


class Provider:
    """The loader of a module that is ours."""

    def __init__(self, fill: "Change") -> None:
        self.fill = fill

    def create_module(self, _: "ModuleSpec") -> None:
        """Leaves it to the import system to create the module."""

    def exec_module(self, module: "Any") -> None:
        """Fills the module."""
        self.fill(module)


def wrapping(original: "Any", replacement: "Callable[..., Any]") -> "Callable[..., Any]":
    """Returns a function that replaces another, with the other's names: libraries look at them."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(replacement, name, getattr(original, name))
    setattr(replacement, "__wrapped__", original)
    return replacement


def show_plots(screen: "Display") -> "Change":
    """Replaces plt.show. A Matplotlib backend of our own would do that too. But then MPLBACKEND would name it for the
    Pythons that a program starts, which could not import it."""

    def change(pyplot: "Any") -> None:
        def show(*_: object, **__: object) -> None:
            """Saves all open figures as figure-N.png in the workspace and closes them."""
            screen.show_figures()

        pyplot.show = show  # a function and not a method: Matplotlib sets attributes of it

    return change


def notice_saved_figures(screen: "Display") -> "Change":
    """Notices which figures the program saves, so that they are not saved again."""

    def change(module: "Any") -> None:
        save = module.Figure.savefig

        def savefig(figure: "Any", fname: "Any", *args: "Any", **kwargs: "Any") -> "Any":
            begin = fname.tell() if hasattr(fname, "getvalue") else 0
            result = save(figure, fname, *args, **kwargs)
            screen.figure_saved(figure, fname, begin, kwargs.get("format"))
            return result

        module.Figure.savefig = wrapping(save, savefig)

    return change


def show_animations(screen: "Display") -> "Change":
    """Shows animations as a page that plays them, and their frames nowhere else."""

    def change(module: "Any") -> None:
        sys.modules["matplotlib"].rcParams["animation.html"] = "jshtml"
        save = module.Animation.save

        def save_animation(animation: "Any", *args: "Any", **kwargs: "Any") -> "Any":
            with screen.ignoring_figures(animation._fig):
                return save(animation, *args, **kwargs)

        module.Animation.save = wrapping(save, save_animation)

    return change


def show_images(screen: "Display") -> "Change":
    """Makes Pillow's Image.show save a picture."""

    def change(module: "Any") -> None:
        def show(_: object, image: "Any", **__: object) -> bool:
            screen.save_image(image)
            return True

        module.register(type("Viewer", (module.Viewer,), {"show": show})(), 0)

    return change


def show_opencv(screen: "Display") -> "Change":
    """Makes OpenCV's windows pictures."""

    def change(cv2: "Any") -> None:
        def imshow(_: str, image: "Any") -> None:
            """Saves an image as figure-N.png in the workspace."""
            screen.save_picture(cv2.imencode(".png", image)[1].tobytes(), "png")

        cv2.imshow = imshow
        cv2.waitKey = cv2.waitKeyEx = lambda *_: -1
        cv2.namedWindow = cv2.destroyWindow = cv2.destroyAllWindows = lambda *_, **__: None

    return change


def open_pages(screen: "Display") -> "Change":
    """Makes webbrowser.open keep a file that it is given."""

    def change(module: "Any") -> None:
        browse = module.open

        def open(url: str, new: int = 0, autoraise: bool = True) -> bool:
            """Saves a file as output-N.html in the workspace, unless it is there."""
            from urllib.parse import unquote, urlsplit

            path = unquote(urlsplit(url).path) if url.startswith("file:") else url
            if not os.path.isfile(path):
                return bool(browse(url, new, autoraise))
            screen.keep_page(path)
            return True

        module.open = open

    return change


def show_plotly(screen: "Display") -> "Change":
    """Makes Plotly's figures pages, and pictures where Kaleido can draw them."""

    def change(module: "Any") -> None:
        def show(fig: "Any", *_: object, **__: object) -> None:
            """Saves a figure as output-N.html in the workspace, and as figure-N.png where Kaleido is installed."""
            if not hasattr(fig, "to_json"):
                fig = sys.modules["plotly.graph_objects"].Figure(fig)  # a dictionary will do
            screen.record({"text/plain": "<Plotly figure>", **screen.save_rich(fig)})
            try:
                screen.save_picture(fig.to_image(format="png"), "png")
            except Exception:
                pass  # without Kaleido

        module.show = show

    return change


def describe_plotly(module: "Any") -> None:
    """Makes Plotly's figures describe themselves alike, whatever its default renderer is."""

    def bundle(figure: "Any", *_: object, **__: object) -> "dict[str, object]":
        page = figure.to_html(include_plotlyjs=True, full_html=True)
        return {"application/vnd.plotly.v1+json": figure.to_json(), "text/html": page}

    module.BaseFigure._repr_mimebundle_ = bundle


def print_formulas(module: "Any") -> None:
    """Makes SymPy set up its printing for plain Python: it finds get_ipython, and expects more of it."""
    module.get_ipython = lambda: None


def widen_pandas(pandas: "Any") -> None:
    """Makes pandas print all columns of most tables."""
    for name, value in PANDAS_OPTIONS.items():
        pandas.set_option(name, value)


def install(screen: "Display") -> ImportHooks:
    """Installs the hooks in this process and its forks."""
    hooks = ImportHooks()
    sys.meta_path.insert(0, hooks)
    hooks.change("matplotlib.pyplot", show_plots(screen))
    hooks.change("matplotlib.figure", notice_saved_figures(screen))
    hooks.change("matplotlib.animation", show_animations(screen))
    hooks.change("PIL.ImageShow", show_images(screen))
    hooks.change("cv2", show_opencv(screen))
    hooks.change("webbrowser", open_pages(screen))
    hooks.change("plotly.io", show_plotly(screen))
    hooks.change("plotly.basedatatypes", describe_plotly)
    hooks.change("pandas", widen_pandas)
    hooks.change("sympy.interactive.printing", print_formulas)
    return hooks
