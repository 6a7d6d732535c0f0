"""Compiles programs: as Python, and where Python rejects them, as the text that notebooks and chats make of Python."""

import _ast
import sys

import magics

from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

OURS.append(globals())

FUTURE_FLAGS = 0x1FE0000  # CO_FUTURE_*: what "from __future__ import" sets in a code object
COROUTINE_FLAG = 0x80  # CO_COROUTINE: set in a code object that awaits
AWAIT_FLAG: int = _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
MAX_KEYWORD = 10  # bytes, more than any keyword has
# Words that begin statements with a body, or their parts, or a statement that concerns the whole module. The interactive mode
# would display all expressions of a body.
UNCLEAR = frozenset(b"if for while with async def class try else elif except finally match global nonlocal".split())
# Names in statements with annotations, which concern the whole module.
WHOLE = frozenset(("__annotations__", "__annotate__", "__conditional_annotations__"))
ONE_LINE = sys.version_info < (3, 10)  # the interactive mode then ignores what follows some lines
CONTINUED = b" ", b"\t", b"\n", b")", b"]", b"}", b"#"  # how the lines begin that are passed over


def parse(source: bytes, path: str) -> "_ast.Module":
    """Parses Python. Raises SyntaxError or ValueError."""
    tree: "_ast.Module" = compile(source, path, "exec", _ast.PyCF_ONLY_AST | AWAIT_FLAG, dont_inherit=True)
    return tree


def compile_program(source: bytes, path: str, interactive: bool) -> "list[CodeType]":
    """Compiles the program. When interactive, a last statement that is an expression is compiled as a REPL would, unless
    it ends with a semicolon. Code that awaits outside of functions becomes a coroutine. Raises SyntaxError or
    ValueError."""
    return compile_in_parts(source, path, interactive) or compile_tree(source, path, interactive)


def compile_in_parts(source: bytes, path: str, interactive: bool) -> "list[CodeType]":
    """Compiles what comes before the last statement, and that. Returns nothing where this is not certain to be the same as
    compile_tree. To make the objects of a syntax tree takes half of the time of a compilation.

    The last statement is compiled first, because that fails where it is a part of something. The warnings of what is
    before it would be printed twice."""
    start = start_of_last(source) if interactive else len(source)
    if start < 0:
        return []
    try:
        last = []
        if start < len(source):
            text = b"\n" * source.count(b"\n", 0, start) + source[start:]  # at the same line
            last = [compile(text, path, "single", AWAIT_FLAG, dont_inherit=True)]
            if not WHOLE.isdisjoint(last[0].co_names):
                return []
        return [compile(source[:start], path, "exec", AWAIT_FLAG, dont_inherit=True), *last]
    except (SyntaxError, ValueError):
        return []


def start_of_last(source: bytes) -> int:
    """Returns where the last statement starts, provided that what is before it compiles, and it alone as well: at the last
    line that does not begin with a space, a bracket or a comment. Returns -1 where that line may be something else."""
    start = len(source)
    while start > 0:
        start = source.rfind(b"\n", 0, start - 1) + 1
        if source[start : start + 1] not in CONTINUED:
            break
    last, two_lines = source[start:], source[: source.find(b"\n", source.find(b"\n") + 1)]
    word = last[:MAX_KEYWORD]
    word = word[: len(word) - len(word.lstrip(LETTERS))]
    if not word or word[:1].isdigit() or word in UNCLEAR or b";" in last:
        return -1
    if b"\r" in source or b"coding" in two_lines or b"__future__" in source:
        return -1
    return -1 if ONE_LINE and b"\n" in last.rstrip() else start


def compile_tree(source: bytes, path: str, interactive: bool) -> "list[CodeType]":
    """Does the same with a syntax tree, for every program. Raises SyntaxError or ValueError."""
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
