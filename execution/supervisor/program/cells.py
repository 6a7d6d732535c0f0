"""The sources of a session's cells: for tracebacks, for inspect, and for the processes that cells spawn."""

import io
import linecache
import os

from hooks import wrapping
from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Iterator
    from hooks import ImportHooks
    from typing import Any

OURS.append(globals())


class Cells:
    """The sources of the cells so far."""

    def __init__(self) -> None:
        self.texts: "dict[str, str]" = {}  # by the name of the cell's file
        self.written = 0, ""  # how many of the cells a module has the definitions of, and its path

    def add(self, source: bytes) -> str:
        """Adds a cell. Returns the name of its file, which exists in tracebacks alone."""
        text = source.decode("utf-8", "replace")
        name = f"<cell {len(self.texts) + 1}>"
        self.texts[name] = text
        # Split as the compiler does; splitlines splits at more. The last line ends too, as in linecache.
        lines = io.StringIO(text + "\n" * (text[-1:] not in ("\n", "")), newline=None).readlines()
        linecache.cache[name] = len(source), None, lines, name
        return name

    def install(self, hooks: "ImportHooks") -> None:
        """Makes inspect find classes of cells, and multiprocessing spawn processes that know what cells define."""
        hooks.change("inspect", self.find_classes)
        hooks.change("multiprocessing.spawn", self.tell_spawned)

    def find_classes(self, inspect: "Any") -> None:
        """Makes inspect.getfile return the cell of a class. Functions have it in their code."""
        find = inspect.getfile

        def getfile(thing: "Any") -> str:
            if isinstance(thing, type) and thing.__module__ == "__main__":
                return self.cell_of(thing) or str(find(thing))
            return str(find(thing))

        inspect.getfile = wrapping(find, getfile)

    def cell_of(self, kind: type) -> str:
        """Returns the name of the newest cell that defines a class, or ''."""
        import ast

        for name, text in reversed(self.texts.items()):
            if kind.__name__ not in text:
                continue
            try:
                tree = ast.parse(text)
            except SyntaxError:
                continue
            if any(isinstance(node, ast.ClassDef) and node.name == kind.__name__ for node in ast.walk(tree)):
                return name
        return ""

    def tell_spawned(self, spawn: "Any") -> None:
        """Gives spawned processes a `__main__` with what cells define. A script would be run again for that, but cells
        have effects: only imports, definitions and plain values are."""
        prepare = spawn.get_preparation_data

        def get_preparation_data(name: str) -> "dict[str, object]":
            data: "dict[str, object]" = prepare(name)
            if "init_main_from_path" not in data and "init_main_from_name" not in data:
                data["init_main_from_path"] = self.write_definitions()
            return data

        spawn.get_preparation_data = wrapping(prepare, get_preparation_data)

    def write_definitions(self) -> str:
        """Writes a module with what cells define, unless there is one. Returns its path."""
        import tempfile

        count, path = self.written
        if count != len(self.texts) or not os.path.exists(path):
            fd, path = tempfile.mkstemp(".py", ".cells-")
            with open(fd, "w", encoding="utf-8") as file:
                file.write(definitions(self.texts.values()))
            self.written = len(self.texts), path
        return path


def definitions(texts: "Iterable[str]") -> str:
    """Returns the source of a module with the imports, definitions and plain values of cells. What fails is left out,
    as it may have failed in its cell."""
    import ast

    module = ast.parse("")
    for node in [node for text in texts for node in statements(text)]:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            module.body.insert(0, node)
        else:
            failed = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [ast.Pass()])
            module.body.append(ast.Try([node], [failed], [], []))
    return ast.unparse(ast.fix_missing_locations(module))


def statements(text: str) -> "Iterator[ast.stmt]":
    """Yields the imports, definitions and assignments of plain values at the top of a cell."""
    import ast

    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    effects = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and not any(isinstance(n, effects) for n in ast.walk(node)):
            yield node
