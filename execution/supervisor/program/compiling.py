"""Compiles programs: as Python, and where Python rejects them, as the text that notebooks and chats make of Python."""

import _ast

import magics

from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

OURS.append(globals())

FUTURE_FLAGS = 0x1FE0000  # CO_FUTURE_*: what "from __future__ import" sets in a code object
COROUTINE_FLAG = 0x80  # CO_COROUTINE: set in a code object that awaits
AWAIT_FLAG: int = _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def parse(source: bytes, path: str) -> "_ast.Module":
    """Parses Python. Raises SyntaxError or ValueError."""
    tree: "_ast.Module" = compile(source, path, "exec", _ast.PyCF_ONLY_AST | AWAIT_FLAG, dont_inherit=True)
    return tree


def compile_program(source: bytes, path: str, interactive: bool) -> "list[CodeType]":
    """Compiles the program. When interactive, a last statement that is an expression is compiled as a REPL would, unless
    it ends with a semicolon. Code that awaits outside of functions becomes a coroutine. Raises SyntaxError or
    ValueError."""
    try:
        tree = parse(source, path)
    except SyntaxError as error:
        source = python_of(source, path, error)
        tree = parse(source, path)
    last = tree.body[-1] if interactive and tree.body else None
    if not isinstance(last, _ast.Expr) or is_silenced(source, last):
        return [compile(tree, path, "exec", AWAIT_FLAG, dont_inherit=True)]
    tree.body.pop()
    body: "CodeType" = compile(tree, path, "exec", AWAIT_FLAG, dont_inherit=True)
    flags = AWAIT_FLAG | body.co_flags & FUTURE_FLAGS
    return [body, compile(_ast.Interactive([last]), path, "single", flags, dont_inherit=True)]


def awaits(codes: "list[CodeType]") -> bool:
    """Reports whether any of the code awaits outside of functions."""
    return any(code.co_flags & COROUTINE_FLAG for code in codes)


def is_silenced(source: bytes, last: "_ast.Expr") -> bool:
    """Reports whether a semicolon follows the last expression, perhaps after brackets and comments."""
    if b";" not in source:
        return False
    lines = source.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    rest = [lines[(last.end_lineno or 1) - 1][last.end_col_offset :], *lines[last.end_lineno :]]
    return any(line.partition(b"#")[0].strip(b" \t\f)\\").startswith(b";") for line in rest)


def python_of(source: bytes, path: str, error: SyntaxError) -> bytes:
    """Translates the lines that Python rejects, one after the other, while they are the syntax of notebooks or chats.
    No line gets another number. Raises the SyntaxError of the first line that is not."""
    try:
        lines = source.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise error from None
    if magics.translate_cell(lines):
        return "\n".join(lines).encode()
    while magics.translate_line(lines, (error.lineno or 0) - 1):
        source = "\n".join(lines).encode()
        try:
            parse(source, path)
        except SyntaxError as next_error:
            error = next_error
        else:
            return source
    raise error from None
