"""The changes that libraries get when a program imports them. Each function changes one module."""

import os
import sys

from hooks import wrapping
from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gallery import Gallery
    from typing import Any

OURS.append(globals())

# What is read has no terminal: pandas would assume one of 80 columns. Each line is short enough to be read.
PANDAS_OPTIONS = {"display.max_columns": 200, "display.width": 200, "display.max_colwidth": 200}


def show_plots(gallery: "Gallery", pyplot: "Any") -> None:
    """Replaces plt.show. A Matplotlib backend of our own would do that too. But then MPLBACKEND would name it for the
    Pythons that a program starts, which could not import it."""

    def show(*_: object, **__: object) -> None:
        """Saves all open figures as figure-N.png in the workspace and closes them."""
        gallery.show_figures()

    pyplot.show = show  # a function and not a method: Matplotlib sets attributes of it


def notice_saved_figures(gallery: "Gallery", module: "Any") -> None:
    """Notices which figures the program saves, so that they are not saved again."""

    save = module.Figure.savefig

    def savefig(figure: "Any", fname: "Any", *args: "Any", **kwargs: "Any") -> "Any":
        begin = fname.tell() if hasattr(fname, "getvalue") else 0
        result = save(figure, fname, *args, **kwargs)
        gallery.figure_saved(figure, fname, begin, kwargs.get("format"))
        return result

    module.Figure.savefig = wrapping(save, savefig)


def fall_back(_: "Gallery", module: "Any") -> None:
    """Makes all texts of Matplotlib fall back to the fonts that its defaults list, character by character. Programs and
    styles name a font, or `serif`, in place of the list."""
    find = module.FontManager._find_fonts_by_props

    def find_fonts(manager: "Any", prop: "Any", *args: "Any", **kwargs: "Any") -> "Any":
        families = prop.get_family()
        more = [name for name in sys.modules["matplotlib"].rcParamsDefault["font.family"][1:] if name not in families]
        if more and prop.get_file() is None:
            prop = prop.copy()
            prop.set_family([*families, *more])
        return find(manager, prop, *args, **kwargs)

    module.FontManager._find_fonts_by_props = wrapping(find, find_fonts)


def show_animations(gallery: "Gallery", module: "Any") -> None:
    """Shows animations as a page that plays them, and their frames nowhere else."""

    sys.modules["matplotlib"].rcParams["animation.html"] = "jshtml"
    save = module.Animation.save

    def save_animation(animation: "Any", *args: "Any", **kwargs: "Any") -> "Any":
        with gallery.ignoring_figures(animation._fig):
            return save(animation, *args, **kwargs)

    module.Animation.save = wrapping(save, save_animation)


def show_images(gallery: "Gallery", module: "Any") -> None:
    """Makes Pillow's Image.show save a picture."""

    def show(_: object, image: "Any", **__: object) -> bool:
        gallery.save_image(image)
        return True

    module.register(type("Viewer", (module.Viewer,), {"show": show})(), 0)


def show_opencv(gallery: "Gallery", cv2: "Any") -> None:
    """Makes OpenCV's windows pictures."""

    def imshow(_: str, image: "Any") -> None:
        """Saves an image as figure-N.png in the workspace."""
        gallery.save_picture(cv2.imencode(".png", image)[1].tobytes(), "png")

    cv2.imshow = imshow
    cv2.waitKey = cv2.waitKeyEx = lambda *_: -1
    cv2.namedWindow = cv2.destroyWindow = cv2.destroyAllWindows = lambda *_, **__: None


def open_pages(gallery: "Gallery", module: "Any") -> None:
    """Makes webbrowser.open keep a file that it is given."""

    browse = module.open

    def open(url: str, new: int = 0, autoraise: bool = True) -> bool:
        """Saves a file as output-N.html in the workspace, unless it is there."""
        from urllib.parse import unquote, urlsplit

        path = unquote(urlsplit(url).path) if url.startswith("file:") else url
        if not os.path.isfile(path):
            return bool(browse(url, new, autoraise))
        gallery.keep_page(path)
        return True

    module.open = open


def show_plotly(gallery: "Gallery", module: "Any") -> None:
    """Makes Plotly's figures pages, and pictures where Kaleido can draw them."""

    def show(fig: "Any", *_: object, **__: object) -> None:
        """Saves a figure as output-N.html in the workspace, and as figure-N.png where Kaleido is installed."""
        if not hasattr(fig, "to_json"):
            fig = sys.modules["plotly.graph_objects"].Figure(fig)  # a dictionary will do
        gallery.record({"text/plain": "<Plotly figure>", **gallery.save_rich(fig)})
        try:
            gallery.save_picture(fig.to_image(format="png"), "png")
        except Exception:
            pass  # without Kaleido

    module.show = show


def describe_plotly(_: "Gallery", module: "Any") -> None:
    """Makes Plotly's figures describe themselves alike, whatever its default renderer is."""

    def bundle(figure: "Any", *_: object, **__: object) -> "dict[str, object]":
        page = figure.to_html(include_plotlyjs=True, full_html=True)
        return {"application/vnd.plotly.v1+json": figure.to_json(), "text/html": page}

    module.BaseFigure._repr_mimebundle_ = bundle


def keep_graphs(_: "Gallery", module: "Any") -> None:
    """Makes Graphviz's view write its file alone: it would start a desktop's viewer."""
    module.view_unixoid = module.view.linux = lambda *_, **__: None


def print_formulas(_: "Gallery", module: "Any") -> None:
    """Makes SymPy set up its printing for plain Python: it finds get_ipython, and expects more of it."""
    module.get_ipython = lambda: None


def widen_pandas(_: "Gallery", pandas: "Any") -> None:
    """Makes pandas print all columns of most tables."""
    for name, value in PANDAS_OPTIONS.items():
        pandas.set_option(name, value)
