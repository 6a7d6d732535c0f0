"""Uses preloaded libraries, so that programs find what the first use loads and computes, and pages of their own."""

import sys

# What to do with a library, by the module that must be imported. Nothing of it may be noticed: not pyplot, which numbers
# figures, and not Figure.savefig, which is ours.
REHEARSALS = {
    "pandas": """
import io, pandas
frame = pandas.read_csv(io.StringIO("a,b\\n1,x\\n2,y\\n"))
repr(frame), repr(frame.describe()), repr(frame.groupby("b")["a"].mean()), repr(frame.sort_values("a").merge(frame, on="b"))
""",
    "matplotlib.pyplot": """
import io
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
figure = Figure()
FigureCanvasAgg(figure)
axes = figure.subplots()
axes.plot([1, 2], [3, 4], label="a")
axes.set(title="b", xlabel="c", ylabel="d")
axes.legend()
figure.canvas.print_png(io.BytesIO())
""",
}

# The same for each program's process, which then has its own copies of the pages that most programs write. The zygote
# runs it first, so that a program's process imports nothing for it: meanwhile a program of the other zygote may run, and
# put modules into the workspace.
BRIEF_REHEARSALS = {
    "pandas": """
import pandas
frame = pandas.DataFrame({"a": [1, 2], "b": [0.5, 2.5]})
repr(frame), frame.sum()["a"]
""",
}


def rehearse_briefly() -> None:
    """Does a little with the libraries that are imported."""
    rehearse(BRIEF_REHEARSALS)


def rehearse(rehearsals: "dict[str, str]" = REHEARSALS) -> "list[str]":
    """Rehearses with the libraries that are imported. Returns an error for each that fails, which programs may get too."""
    failed = []
    for name, source in rehearsals.items():
        if name in sys.modules:
            try:
                exec(source, {})
            except BaseException as error:
                failed.append(f"{name} does not work: {type(error).__name__}: {error}".replace("\n", " "))
    return failed
