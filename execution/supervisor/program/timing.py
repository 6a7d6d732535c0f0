"""How long code takes, as %time and %timeit print it."""

import os
import time

from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional

OURS.append(globals())


def in_words(seconds: float) -> str:
    """Returns a duration with its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{max(0.0, seconds) * 1e9:.0f} ns"


def timed(run: "Callable[[], object]") -> object:
    """Calls a function and prints the time that it took. Returns what the function returns."""
    wall, before = time.perf_counter(), os.times()
    try:
        return run()
    finally:
        after, wall = os.times(), time.perf_counter() - wall
        user = after.user + after.children_user - before.user - before.children_user
        system = after.system + after.children_system - before.system - before.children_system
        print(f"CPU times: user {in_words(user)}, sys: {in_words(system)}, total: {in_words(user + system)}")
        print(f"Wall time: {in_words(wall)}")


def measure(statement: str, cell: "Optional[str]", namespace: "dict[str, object]", loops: int, repeats: int) -> None:
    """Runs a statement many times and prints how long one takes. Before a cell, the statement prepares it. 0 loops are as
    many as take a while."""
    import statistics
    import timeit

    setup, code = ("pass", statement) if cell is None else (statement, cell)
    timer = timeit.Timer(code, setup or "pass", globals=namespace)
    loops = loops or timer.autorange()[0]
    runs = [seconds / loops for seconds in timer.repeat(repeats, loops)]
    print(
        f"{in_words(statistics.mean(runs))} ± {in_words(statistics.pstdev(runs))} per loop"
        f" (mean ± std. dev. of {len(runs)} runs, {loops:,} loop{'s' * (loops > 1)} each)"
    )
