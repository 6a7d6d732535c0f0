"""Code that awaits outside of functions, beside code that runs event loops of its own."""

from compiling import COROUTINE_FLAG
from hooks import wrapping
from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, Optional

OURS.append(globals())


def import_asyncio() -> "Any":
    """Imports asyncio, which takes 30 ms and only programs that await need. Code that runs in an event loop may then run
    others, as asyncio.run does: the first one waits meanwhile."""
    asyncio: "Any" = __import__("asyncio")
    if not hasattr(asyncio, "_vivarium"):
        asyncio._vivarium = True
        for name in ("run_until_complete", "run_forever"):
            setattr(asyncio.BaseEventLoop, name, set_apart(asyncio, getattr(asyncio.BaseEventLoop, name)))
        asyncio.run = asyncio.runners.run = set_apart(asyncio, asyncio.run)
        if hasattr(asyncio, "Runner"):
            asyncio.Runner.run = set_apart(asyncio, asyncio.Runner.run)
    return asyncio


def set_apart(asyncio: "Any", run: "Callable[..., Any]") -> "Callable[..., Any]":
    """Returns a function that runs a loop, also within another one."""

    def run_apart(*args: "Any", **kwargs: "Any") -> "Any":
        outer = asyncio._get_running_loop()
        if outer is None or args and args[0] is outer:
            return run(*args, **kwargs)
        swap = getattr(asyncio.tasks, "_swap_current_task", None)  # from Python 3.12 on
        task = swap(outer, None) if swap else None
        asyncio._set_running_loop(None)
        try:
            return run(*args, **kwargs)
        finally:
            asyncio._set_running_loop(outer)
            if swap and task is not None:
                swap(outer, task)

    return wrapping(run, run_apart)


async def run_coroutines(codes: "list[CodeType]", namespace: "dict[str, object]") -> "Optional[BaseException]":
    """Runs code, some of which awaits, and returns what it raises. Returned from here, it has no frames of the event
    loop in its traceback. A cancellation is left to the loop."""
    try:
        for code in codes:
            coroutine = eval(code, namespace)
            if code.co_flags & COROUTINE_FLAG:
                await coroutine
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return error
    return None
