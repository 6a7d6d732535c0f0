"""The end of a program: what the interpreter does at exit, and the exit notice."""

import atexit
import ctypes
import gc
import io
import os
import resource
import sys

from display import screen
from handover import EXIT_NOTICE, DONE_FD
from kernel import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import NoReturn, Optional
else:
    import _signal


def drop_variables(namespace: "dict[str, object]") -> None:
    """Deletes a module's variables, the newest first: a finalizer may still use older ones."""
    for name in reversed(list(namespace)):
        if not name.startswith("__"):
            namespace.pop(name, None)


def flush_files(is_due: "Callable[[int], bool]" = lambda _: True) -> None:
    """Flushes open files whose descriptor is due. The collector alone may close a file in a reference cycle before its
    buffer, which loses data."""
    files = io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom
    # By identity: a program's classes may have no hash, or code of its own for it.
    kinds = {id(kind): kind for kind in map(type, gc.get_objects())}
    kinds = {number: kind for number, kind in kinds.items() if issubclass(kind, files)}
    if not kinds:
        return  # mostly; a loop over all objects takes 0.1 ms even for a small program
    for thing in gc.get_objects():
        if id(type(thing)) in kinds:
            try:
                if is_due(thing.fileno()):
                    thing.flush()
            except Exception:
                pass  # it is closed, or no longer writable


def wind_down(workspace: str, inherited: str) -> bool:
    """Does what the interpreter does at exit, for a program whose only thread is this one. It runs the atexit functions
    and deletes the program's variables, so that files left open are written. It skips the rest, which would take 2 to 4
    ms to free what the kernel frees anyway.

    Returns whether all output could be written. `inherited` is the last module that was imported before the program
    began. It and those before it are left alone: each access to one would cost a copy of its memory page."""
    try:
        atexit._run_exitfuncs()
    except BaseException:
        pass  # Python 3.9 has printed the error, and raises it again
    flush_files()
    prefix = workspace + "/"
    for name in ["__main__", *iter(reversed(sys.modules).__next__, inherited)]:
        module = sys.modules.get(name)
        namespace = module.__dict__ if isinstance(module, type(sys)) else {}
        if name == "__main__" or str(namespace.get("__file__")).startswith(prefix):
            drop_variables(namespace)
    gc.collect()
    libc.fflush(None)  # writes what C code has buffered
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            written = False
    return written


def prepare_end() -> None:
    """Goes through parts of the end, for a process that has nothing to end yet: they are then in memory."""
    screen.finish()
    flush_files()
    drop_variables({})


class ExitNotice:
    """Sends the exit notice: the program is over and can be killed. The supervisor then does not wait until the kernel
    has torn this process down, which takes 1 ms of a small program's 4 ms. The program can forge its own notice, but
    that only forges an exit status that it chooses anyway."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.pipe = os.fstat(DONE_FD).st_ino

    def send(self, status: int) -> None:
        """Sends the notice. Does nothing in a fork of the program, or if the program closed or replaced the pipe."""
        if os.getpid() != self.process:
            return
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        try:
            if os.fstat(DONE_FD).st_ino == self.pipe:
                os.write(DONE_FD, EXIT_NOTICE.pack(status, int(cpu * 1e6), max(own.ru_maxrss, children.ru_maxrss)))
        except OSError:
            pass


def end_program(status: int, workspace: str, inherited: str, notice: "Optional[ExitNotice]") -> "NoReturn":
    """Ends the program's process. A negative status is the signal that it dies of."""
    if threading := sys.modules.get("threading"):
        threading._shutdown()
    screen.finish()
    if len(sys._current_frames()) > 1:  # daemon threads: only the interpreter's own exit stops them from printing
        ctypes.pythonapi.Py_Exit(128 - status if status < 0 else status)
    if not wind_down(workspace, inherited) and status == 0:
        status = 120  # what the interpreter returns when stdout cannot be flushed
    if status < 0:
        _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    if notice is not None:
        notice.send(status)
    os._exit(status)
