"""The object that get_ipython() returns, and its magics: what notebooks do besides Python."""

import os
import sys

from capture import Capturing
from compiling import compile_program
from timing import measure, timed
from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, Optional

OURS.append(globals())

# They set up a notebook's page, or reload what does not change here.
IGNORED = set(
    "matplotlib pylab config load_ext reload_ext unload_ext autoreload precision colors xmode autosave".split()
)
INSTALLERS = set("pip pip3 conda mamba uv apt apt-get npm wget curl git".split())
NO_NETWORK = (
    "This sandbox has no network, so nothing can be installed or downloaded: use the packages that are installed, or send"
    " files with the request."
)
NO_PIP = "This image has no pip, so nothing can be installed: use the packages that are installed."


class UsageError(Exception):
    """A magic that is unknown, or is used wrongly."""

    __module__ = "IPython.core.error"


def has_network() -> bool:
    """Reports whether the sandbox has a network besides its own loopback."""
    try:
        with open("/proc/net/dev") as devices:
            return any(":" in line and line.split(":")[0].strip() != "lo" for line in devices)
    except OSError:
        return True  # it is not known


class Unused:
    """A part of IPython that has nothing to do here. Whatever is asked of it does nothing."""

    def __getattr__(self, name: str) -> "Unused":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, _: object) -> "Unused":
        return self

    def __call__(self, *_: object, **__: object) -> "Unused":
        return self


class Shell:
    """What notebooks know as get_ipython(). Magics are its methods, named magic_NAME and cell_NAME."""

    def __init__(self, run_codes: "Callable[[list[CodeType], dict[str, object]], None]") -> None:
        self.run_codes = run_codes
        self.own: "dict[tuple[str, str], Callable[..., object]]" = {}  # magics that the program has registered
        self.config: "dict[str, object]" = {}
        self.events = self.display_formatter = self.enable_gui = Unused()  # libraries set them up

    @property
    def user_ns(self) -> "dict[str, object]":
        """The variables of the program."""
        return sys.modules["__main__"].__dict__

    def run_line_magic(self, name: str, line: str, _stack_depth: int = 1) -> object:
        """Runs `%name line`. Raises UsageError for an unknown magic."""
        if name in IGNORED:
            return None
        magic = self.own.get(("line", name)) or getattr(self, "magic_" + name, None)
        if magic is None:
            raise UsageError(f"Line magic function `%{name}` not found.") from None
        return magic(self.expand(line) if name not in ("time", "timeit", "pinfo") else line)

    def run_cell_magic(self, name: str, line: str, cell: str) -> object:
        """Runs `%%name line` with the rest of the cell. Raises UsageError for an unknown magic."""
        magic = self.own.get(("cell", name)) or getattr(self, "cell_" + name, None)
        if magic is None:
            raise UsageError(f"Cell magic `%%{name}` not found.") from None
        return magic(line, cell)

    def magic(self, line: str) -> object:
        """Runs `%line`."""
        name, _, argument = line.partition(" ")
        return self.run_line_magic(name.lstrip("%"), argument)

    def register_magic_function(self, function: "Any", magic_kind: str = "line", magic_name: str = "") -> "Any":
        """Makes a function of the program a magic, and returns it."""
        for kind in ("line", "cell") if magic_kind == "line_cell" else (magic_kind,):
            self.own[kind, magic_name or function.__name__] = function
        return function

    def run_cell(self, raw_cell: str, **_: object) -> None:
        """Runs a cell of code."""
        self.execute(raw_cell, "<cell>")

    ex = run_cell

    def execute(self, code: str, path: str, first_line: int = 0) -> None:
        """Compiles code, whose lines are counted from one in a file, and runs it with the program's variables."""
        source = ("\n" * first_line + code).encode("utf-8", "surrogateescape")
        self.run_codes(compile_program(source, path, True), self.user_ns)

    def expand(self, text: str) -> str:
        """Replaces `{expression}`, and `$name` where it is a variable of the program."""
        import re

        def value(match: "re.Match[str]") -> str:
            if match[0] in ("$$", "{{", "}}"):
                return match[0][0]
            try:
                return str(eval(match[1], self.user_ns) if match[1] else self.user_ns[match[2]])
            except Exception:
                return match[0]

        return re.sub(r"\$\$|\{\{|\}\}|\{([^{}]+)\}|\$([A-Za-z_]\w*)", value, text)

    # Commands.

    def shell_command(self, text: str) -> "list[str]":
        """Returns the command line for a shell that runs a text."""
        shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
        return [shell, "-c", self.expand(text)]

    def system(self, text: str) -> None:
        """Runs a command. Its output is the program's."""
        words = text.split()
        if words[:1] in (["pip"], ["pip3"]) or words[1:3] == ["-m", "pip"]:
            self.pip(self.expand(text).partition("pip")[2].lstrip("3"))
        else:
            self.call(self.shell_command(text), not INSTALLERS.isdisjoint(words[:2]))

    def call(self, command: "list[str]", installs: bool, **environment: str) -> int:
        """Runs a command and returns its exit status. Explains the failure of one that needs a network."""
        import subprocess

        self.flush()
        status = subprocess.call(command, env={**os.environ, **environment})
        self.user_ns["_exit_code"] = status
        if status and installs and not has_network():
            print(NO_NETWORK, file=sys.stderr)
        return status

    def getoutput(self, text: str, **_: object) -> "list[str]":
        """Runs a command and returns the lines of its output."""
        import subprocess

        self.flush()
        done = subprocess.run(self.shell_command(text), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.user_ns["_exit_code"] = done.returncode
        return done.stdout.decode("utf-8", "replace").splitlines()

    def flush(self) -> None:
        """Writes what the program has printed, ahead of a command's output."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass  # it is closed

    def pip(self, arguments: str) -> None:
        """Runs pip, if the image has it, and makes what it installs importable."""
        import importlib
        import importlib.util
        import shlex
        import site

        words = shlex.split(arguments)
        if importlib.util.find_spec("pip") is None:
            print(*self.missing(words) or [NO_PIP], sep="\n", file=sys.stderr)
            return
        environment = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_BREAK_SYSTEM_PACKAGES": "1"}
        if "install" in words[:1]:
            environment["PIP_USER"] = "1"
        if not has_network():
            environment["PIP_NO_INDEX"] = "1"  # or it would try for a quarter of a minute
        command = [sys.executable, "-m", "pip", *words]
        if any(word[-1:] == ";" or word[:1] in "|&;<>" or word[:2] in ("1>", "2>") for word in words):
            command = [self.shell_command("")[0], "-c", f"{sys.executable} -m pip {arguments}"]
        self.call(command, True, **environment)
        folder = site.getusersitepackages()
        if os.path.isdir(folder) and folder not in sys.path:
            sys.path.append(folder)
        importlib.invalidate_caches()

    def missing(self, words: "list[str]") -> "list[str]":
        """Returns what pip would say of packages that are all installed, or nothing."""
        import importlib.metadata

        said = []
        for word in words[1:]:
            if not word.startswith("-"):
                try:
                    said.append(f"Requirement already satisfied: {word} ({importlib.metadata.version(word)})")
                except Exception:
                    return []
        return said if words[:1] == ["install"] else []

    magic_pip = pip

    def magic_conda(self, _: str) -> None:
        """Explains that there is no conda."""
        print("This sandbox has no conda: use the packages that are installed.", file=sys.stderr)

    magic_mamba = magic_conda

    def magic_sx(self, line: str) -> "list[str]":
        """Runs a command and returns the lines of its output."""
        return self.getoutput(line)

    magic_system = magic_sx

    # Folders and the environment.

    def magic_cd(self, line: str) -> None:
        """Changes the working directory."""
        os.chdir(os.path.expanduser(line.strip("'\" ") or "~"))
        print(os.getcwd())

    def magic_pwd(self, _: str) -> str:
        """Returns the working directory."""
        return os.getcwd()

    def magic_ls(self, line: str) -> None:
        """Lists files."""
        self.system("ls " + line)

    def magic_env(self, line: str) -> object:
        """Returns the environment or one variable, or sets one: `%env`, `%env NAME`, `%env NAME=value`."""
        name, equals, value = line.partition("=") if "=" in line else line.partition(" ")
        name = name.strip()
        if equals:
            os.environ[name] = value.strip()
            print(f"env: {name}={value.strip()}")
            return None
        if name and name not in os.environ:
            raise UsageError(f"Environment does not have key: {name}")
        return os.environ[name] if name else dict(os.environ)

    def magic_set_env(self, line: str) -> None:
        """Sets a variable of the environment."""
        if not line.strip():
            raise UsageError("usage: %set_env NAME=value")
        self.magic_env(line)

    def cell_writefile(self, line: str, cell: str) -> None:
        """Writes the cell to a file, or appends it with `-a`."""
        words = line.split()
        append = words[:1] in (["-a"], ["--append"])
        path = " ".join(words[append:]).strip("'\"")
        if not path:
            raise UsageError("usage: %%writefile [-a] FILE")
        print(("Appending to " if append else "Overwriting " if os.path.exists(path) else "Writing ") + path)
        with open(path, "a" if append else "w", encoding="utf-8") as file:
            file.write(cell if cell.endswith("\n") else cell + "\n")

    cell_file = cell_writefile

    # Code.

    def caller(self) -> "tuple[str, int]":
        """Returns the file and the line of the program that calls a magic."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals is globals():
            frame = frame.f_back
        return frame.f_code.co_filename, frame.f_lineno

    def run_here(self, cell: str) -> None:
        """Runs the rest of a cell, with the line numbers that it has in the cell."""
        path, line = self.caller()
        self.execute(cell, path, line)

    def magic_time(self, line: str) -> object:
        """Runs a statement and prints the time that it takes. Returns the value of an expression."""
        try:
            code = compile(line, "<timed>", "eval", dont_inherit=True)
        except SyntaxError:
            return timed(lambda: self.execute(line, "<timed>"))
        return timed(lambda: eval(code, self.user_ns))

    def cell_time(self, line: str, cell: str) -> None:
        """Runs the cell and prints the time that it takes."""
        timed(lambda: self.run_here(cell))

    def magic_timeit(self, line: str, cell: "Optional[str]" = None) -> None:
        """Measures a statement: `%timeit [-n N] [-r R] statement`."""
        import getopt

        options, rest = getopt.getopt(line.split(" "), "n:r:qo")
        asked = dict(options)
        measure(" ".join(rest), cell, self.user_ns, int(asked.get("-n", 0)), int(asked.get("-r", 7)))

    cell_timeit = magic_timeit

    def cell_capture(self, line: str, cell: str) -> None:
        """Runs the cell without its output, which the named variable gets."""
        with Capturing() as captured:
            self.run_here(cell)
        names = [word for word in line.split() if not word.startswith("-")]
        if names:
            self.user_ns[names[0]] = captured

    def cell_bash(self, line: str, cell: str) -> None:
        """Runs the cell in a shell."""
        self.call([self.shell_command("")[0], "-c", cell], False)

    cell_sh = cell_script = cell_bash

    def cell_python(self, line: str, cell: str) -> None:
        """Runs the cell in another Python."""
        self.call([sys.executable, "-c", cell], False)

    cell_python3 = cell_python

    def magic_run(self, line: str) -> None:
        """Runs a file of Python and keeps its variables."""
        import runpy

        words = line.split()
        if not words:
            raise UsageError("usage: %run FILE [ARGUMENT]...")
        before, sys.argv = sys.argv, words
        try:
            self.user_ns.update(
                {
                    name: value
                    for name, value in runpy.run_path(words[0], run_name="__main__").items()
                    if name[:2] != "__"
                }
            )
        finally:
            sys.argv = before

    def magic_who(self, _: str) -> None:
        """Prints the names of the program's variables."""
        print(
            *sorted(name for name, value in self.user_ns.items() if name[0] != "_" and not isinstance(value, type(sys)))
        )

    magic_whos = magic_who

    def magic_reset(self, _: str) -> None:
        """Deletes the program's variables."""
        for name in [name for name in self.user_ns if name[:1] != "_"]:
            del self.user_ns[name]

    def magic_pinfo(self, line: str) -> None:
        """Prints the help of an object."""
        import pydoc

        print(pydoc.plain(pydoc.render_doc(eval(line, self.user_ns))))


def show_as(kind: str) -> "Callable[[Shell, str, str], None]":
    """Returns a cell magic that displays the cell as HTML, Markdown and so on."""

    def show(_: Shell, line: str, cell: str) -> None:
        module = __import__("IPython.display").display
        module.display(getattr(module, kind)(cell))

    return show


for kind in ("HTML", "Markdown", "Latex", "SVG", "Javascript"):
    setattr(Shell, "cell_" + kind, show_as(kind))
    setattr(Shell, "cell_" + kind.lower(), show_as(kind))
