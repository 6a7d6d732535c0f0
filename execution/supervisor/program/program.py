"""The program's own process: it waits for code, compiles it, runs it in a fresh `__main__` and reports exceptions."""

import gc
import io
import os
import resource
import select
import sys

import ipython
import loops
import shell

from compiling import awaits, compile_program
from display import screen
from ending import end_program, prepare_end
from environment import change_variables, parse_arguments, parse_variables
from handover import Pipes, RELEASE, take_over
from kernel import (
    Filter,
    PLAIN_MODULES,
    be_first_victim,
    default_signals,
    limit,
    make_landlock_rules,
    read_to_end,
    restrict_self,
    set_dumpable,
)
from tracebacks import OURS, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from ending import ExitNotice
    from hooks import ImportHooks
    from types import CodeType, ModuleType
    from typing import NoReturn, Optional
else:
    import _signal

MAIN_FILE = "__main__.py"  # the program itself, in the workspace; the name is reserved
# For each process of a program; the zygote may have more (see Zygote.serve). Removed from the environment, as is
# VIVARIUM_WATCH_MEMORY, so that programs do not see it.
OPEN_FILES = int(os.environ.pop("VIVARIUM_OPEN_FILES", "1024"))
WARM_UP_SECONDS = 0.01  # how long a program's process waits for its code before it warms up
# Modules that ipython.py provides.
IPYTHON = (
    *("IPython", "IPython.core", "IPython.lib", "IPython.utils", "IPython.utils.capture"),
    *("IPython.display", "IPython.core.display", "IPython.core.display_functions", "IPython.lib.display"),
    *("IPython.core.getipython", "IPython.core.interactiveshell", "IPython.core.magic", "IPython.core.pylabtools"),
)
OURS.append(globals())


class Job:
    """What the supervisor sends to a program's process: a record, and then texts."""

    def __init__(self, record: bytes) -> None:
        fields = RELEASE.unpack(record)
        self.interactive, self.has_files, self.cpu_seconds, self.arguments_at, arguments, self.last_number = fields
        self.source_at = self.arguments_at + arguments
        self.variables = self.arguments = self.source = b""

    def add_texts(self, texts: bytes) -> None:
        """Adds the variables, the arguments and the source, which come in this order."""
        self.variables = texts[: self.arguments_at]
        self.arguments = texts[self.arguments_at : self.source_at]
        self.source = texts[self.source_at :]


def make_main(path: str) -> "ModuleType":
    """Creates the `__main__` that the program runs in, as `python3 FILE` would."""
    main = type(sys)("__main__")
    main.__dict__.update(__builtins__=sys.modules["builtins"], __file__=path, __cached__=None)
    sys.modules["__main__"] = main
    sys.argv[:] = [path]
    sys.path.insert(0, os.path.dirname(path))
    sys.dont_write_bytecode = True  # a staged module must not leave a __pycache__ among the results
    return main


def unbuffered(fd: int, errors: str) -> io.TextIOWrapper:
    """Opens a text stream as `python3 -u` does, so that the output of a program that is killed is not lost."""
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, newline="\n", write_through=True)


def exit_status_of(stop: SystemExit) -> int:
    """Returns the exit status that sys.exit(x) asks for. Prints a message, as the interpreter does."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF if -(1 << 31) <= stop.code < 1 << 31 else 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def run_codes(codes: "list[CodeType]", namespace: "dict[str, object]") -> None:
    """Runs code. If any of it awaits, all of it runs in one event loop."""
    if awaits(codes):
        if error := loops.import_asyncio().run(loops.run_coroutines(codes, namespace)):
            raise error
        return
    for code in codes:
        exec(code, namespace)


def execute(source: bytes, path: str, interactive: bool, arguments: "list[str]") -> int:
    """Runs the program in a fresh `__main__` and returns its exit status, or the negative number of a signal."""
    namespace = make_main(path).__dict__
    sys.argv += arguments
    try:
        run_codes(compile_program(source, path, interactive), namespace)
    except SystemExit as stop:
        return exit_status_of(stop)
    except KeyboardInterrupt as interrupt:
        report(interrupt)
        return -_signal.SIGINT
    except BaseException as error:
        report(error)
        return 1
    return 0


def make_screen(workspace: str) -> None:
    """Installs what programs display with, and what they import of IPython, in this process and its forks."""
    provide_ipython(screen.install(workspace), run_codes)
    lift_digit_limit()


def provide_ipython(hooks: "ImportHooks", run_codes: "Callable[[list[CodeType], dict[str, object]], None]") -> None:
    """Provides IPython to programs in this process and its forks, and get_ipython as a builtin. What that returns runs
    code with a function."""
    made: "list[shell.Shell]" = []

    def get_ipython() -> "shell.Shell":
        """Returns the object that runs magics and commands."""
        if not made:
            made.append(shell.Shell(run_codes))
        return made[0]

    hooks.provided.update(dict.fromkeys(IPYTHON, lambda module: ipython.fill(module, get_ipython)))
    sys.modules["builtins"].__dict__["get_ipython"] = get_ipython


def lift_digit_limit() -> None:
    """Lets programs print numbers of any length. Python's limit protects servers; here CPU time is limited."""
    if hasattr(sys, "set_int_max_str_digits"):  # from Python 3.11 on, and in later releases of older ones
        sys.set_int_max_str_digits(0)


def warm_up() -> None:
    """Runs a tiny program that fails, and discards its output. It goes through what every program goes through: the process
    then has the pages and modules that most programs need, so a run takes a third of the time (see docs/performance.md).
    """
    streams = sys.stdout, sys.stderr
    with open(os.devnull, "w") as null:
        sys.stdout = sys.stderr = null
        try:
            job = Job(RELEASE.pack(True, False, 0, 0, 0, 0))
            job.add_texts(b"class A: pass\nprint(6 * 7, A())\n1 / 0")
            change_variables(parse_variables(job.variables))
            parse_arguments(job.arguments)
            run_codes(compile_program(job.source, "", job.interactive), {"__name__": "__main__"})
        except ZeroDivisionError as error:
            report(error)  # imports traceback, which takes 10 ms
        finally:
            sys.stdout, sys.stderr = streams
    prepare_end()
    gc.freeze()  # or the collection at the program's end would visit all of it


def make_streams() -> None:
    """Opens the streams for print and input. The pipes must be fds 0, 1 and 2 by then: the objects examine them."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout, sys.stderr = unbuffered(1, "surrogateescape"), unbuffered(2, "backslashreplace")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def reseed() -> None:
    """Seeds NumPy in this fork, so that its random numbers are its own. The random module does that itself."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()


def forget_shadowed(workspace: str) -> None:
    """Forgets preloaded modules that have the same name as one in the workspace. The workspace comes first on the
    program's path, so the program must import the module there."""
    ours = set()
    for name in os.listdir(workspace):
        if name.endswith(".py"):
            ours.add(name[:-3])
        elif os.path.isfile(f"{workspace}/{name}/__init__.py"):  # a folder of data does not shadow a module
            ours.add(name)
    for module in list(sys.modules):
        if module.partition(".")[0] in ours and module not in PLAIN_MODULES and module != "__main__":
            del sys.modules[module]


def await_and_run(
    workspace: str,
    begin: "Callable[[int], None]" = lambda _: None,
    notice: "Optional[ExitNotice]" = None,
    rehearse: "Callable[[], object]" = lambda: None,
) -> "NoReturn":
    """Waits for the code on the control pipe, runs it and exits. Before it reads anything of the program it calls `begin`
    with Job.last_number. If it has to wait, it warms up and calls `rehearse`."""
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    waiting = select.poll()
    waiting.register(3, select.POLLIN)
    if not waiting.poll(WARM_UP_SECONDS * 1000):  # under load there is no time to warm up
        warm_up()
        rehearse()
    record = os.read(3, RELEASE.size)
    if not record:
        os._exit(0)  # the supervisor is gone
    job = Job(record)
    begin(job.last_number)
    job.add_texts(read_to_end(3))
    limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    limit(resource.RLIMIT_CPU, job.cpu_seconds, job.cpu_seconds + 1)
    if job.has_files:
        forget_shadowed(workspace)
    inherited = next(reversed(sys.modules))
    change_variables(parse_variables(job.variables))
    arguments = parse_arguments(job.arguments)
    status = execute(job.source, f"{workspace}/{MAIN_FILE}", job.interactive, arguments)
    end_program(status, workspace, inherited, notice)


def become_only_program(pipes: Pipes, workspace: str, program_filter: Filter) -> "NoReturn":
    """Turns a fresh fork of the supervisor into the process of a sandbox's only program."""
    try:
        os.setsid()
        take_over(pipes)
        default_signals()
        set_dumpable(True)
        be_first_victim()
        restrict_self(make_landlock_rules())
        os.chdir(workspace)
        make_streams()
        program_filter.install()
        make_screen(workspace)
        await_and_run(workspace)
    finally:
        os._exit(70)  # reached only if setting up the process failed
