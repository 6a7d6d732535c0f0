"""Tests of compiling.py, magics.py and loops.py. They run in a sandbox, like any program."""

import dis
import sys
import traceback
import unittest
import warnings

import compiling
import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType


class FakeShell:
    """Records what translated programs ask of get_ipython()."""

    def __init__(self) -> None:
        self.calls: "list[str]" = []

    def __enter__(self) -> "FakeShell":
        sys.modules["builtins"].__dict__["get_ipython"] = lambda: self
        return self

    def __exit__(self, *_: object) -> None:
        del sys.modules["builtins"].__dict__["get_ipython"]

    def system(self, text: str) -> None:
        self.calls.append("system " + text)

    def getoutput(self, text: str) -> "list[str]":
        self.calls.append("getoutput " + text)
        return []

    def run_line_magic(self, name: str, line: str) -> "tuple[object, ...]":
        self.calls.append(f"line {name} {line}")
        return (1, 2)

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        self.calls.append(f"cell {name} {line}: {cell}")


def instructions(codes: "list[CodeType]") -> "Iterator[tuple[object, ...]]":
    """Yields what codes do: the instructions, and their lines, but not how statements begin and end, which differs between
    one code and two."""
    for code in codes:
        for step in dis.get_instructions(code):
            if step.opname not in ("RESUME", "RETURN_CONST", "RETURN_VALUE", "NOP") and step.argrepr != "None":
                where = step.argrepr.startswith("to ")  # of a jump
                yield step.opname, not where and step.argrepr.partition(" at 0x")[0], step.starts_line
        yield from instructions([constant for constant in code.co_consts if isinstance(constant, type(code))])


class CompileTest(unittest.TestCase):
    def run_program(self, source: bytes, interactive: bool = True) -> "list[object]":
        shown: "list[object]" = []
        hook, sys.displayhook = sys.displayhook, shown.append
        try:
            namespace: "dict[str, object]" = {}
            program.run_codes(compiling.compile_program(source, "f.py", interactive), namespace)
        finally:
            sys.displayhook = hook
        return shown

    def test_the_last_expression_is_displayed(self) -> None:
        self.assertEqual(self.run_program(b"1\nx = 2\nx + 1"), [3])

    def test_a_statement_displays_nothing(self) -> None:
        self.assertEqual(self.run_program(b"x = 2"), [])
        self.assertEqual(self.run_program(b""), [])

    def test_nothing_is_displayed_unless_interactive(self) -> None:
        self.assertEqual(self.run_program(b"3", interactive=False), [])

    def test_a_coding_line_applies(self) -> None:
        self.assertEqual(self.run_program(b"# coding: latin-1\n'\xe9'"), ["é"])

    def test_future_flags_reach_the_last_expression(self) -> None:
        codes = compiling.compile_program(b"from __future__ import annotations\n1", "f.py", True)
        self.assertEqual(codes[0].co_flags & 0x1000000, codes[1].co_flags & 0x1000000)

    def test_await_runs_in_its_own_event_loop(self) -> None:
        source = b"import asyncio\nloop = asyncio.get_running_loop()\nasync def f(): return 3\nx = await f()\n"
        self.assertEqual(self.run_program(source + b"(await f(), asyncio.get_running_loop() is loop)"), [(3, True)])
        self.assertEqual(self.run_program(source + b"x"), [3])
        self.assertEqual(self.run_program(b"import asyncio\nasync def f(): return 3\nasyncio.run(f())"), [3])

    def test_exceptions_of_coroutines_are_raised(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            self.run_program(b"import asyncio\nawait asyncio.sleep(0)\n1 / 0")

    def test_loops_run_within_the_loop(self) -> None:
        source = b"""
import asyncio
async def f(): return 5
async def g(): return asyncio.new_event_loop().run_until_complete(f())
task = asyncio.create_task(f())
loop = asyncio.get_running_loop()
found = await f(), asyncio.run(g()), await task, asyncio.get_running_loop() is loop
found"""
        self.assertEqual(self.run_program(source), [(5, 5, 5, True)])

    def test_parts_are_the_same_as_the_tree(self) -> None:
        """What is compiled in parts has the code that the tree gives, line by line. `parts` tells whether it is in parts."""
        for parts, text in (
            (True, "print(6 * 7)"),
            (True, "x = 1\n\nx + 1\n"),
            (True, "import os\nos.sep  # text\n# more\n\n"),
            (True, "'doc'\nx: int = 3\nprint(\n    x,\n)\n"),
            (False, "from __future__ import annotations\ndef f(x: y): pass\nf"),
            (False, "for x in (1, 2):\n    x\n"),
            (False, "x = 1\nif(x): x\n"),
            (False, "x = [\n1,\n]\nwhile(x):\n    x.pop()\n"),
            (False, "class A:\n    def f(self): return 1\n\n    f(1)\n"),
            (True, "async def f(): pass\nawait f()"),
            (True, "format = str\nformat(1)"),
            (True, "_ = 1\n_"),
            (True, "x = '''\n'''\nprint(x)"),
            (True, "lambda: 1"),
            (False, ""),
            (False, "# nothing"),
            (False, "'text'"),
            (False, "(1,\n2)"),
            (False, "x = '''\nprint(1)'''"),
            (False, "'''\nfor y in x'''"),
            (False, "print(\nx for x in y)"),
            (False, "x = 1 + \\\nlen('')"),
            (False, "try:\n    x\nexcept: y\n"),
            (False, "if x: 1\nelse: 2"),
            (False, "@f\ndef g(): pass"),
            (False, "match x:\n    case 1: x\n"),
            (False, "x = 1\nx; 1"),
            (False, "x = 1\rx"),
            (False, "# coding: latin-1\nprint(1)"),
            (False, "x = 1\nfrom __future__ import division"),
            (False, "x = 1\ny: int = 1"),
            (False, "x = 1\nglobal x"),
            (False, "x = 1\nif x:\n    global x\n"),
        ):
            source = text.encode()
            found = compiling.compile_in_parts(source, "f.py", True)
            self.assertEqual(bool(found), parts, text)
            if parts:
                tree = compiling.compile_tree(source, "f.py", True)
                self.assertEqual(list(instructions(found)), list(instructions(tree)), text)

    def test_warnings_are_printed_once(self) -> None:
        for text in (
            "p = 1 is 1\nx = p",
            "p = 1 is 1\nx: int = p",
            "p = 1 is 1\nprint('''\nDear\nreader''')",
            "p = 1 is 1\n@staticmethod\ndef f(): pass",
        ):
            for interactive in (True, False):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    compiling.compile_program(text.encode(), "f.py", interactive)
                self.assertEqual(len(caught), 1, text)

    def test_all_of_a_program_is_compiled(self) -> None:
        for text in ("x = 1\nprint('x', x)\n    y = 2", "print('a')\n)"):
            with self.assertRaises(SyntaxError):
                compiling.compile_program(text.encode(), "f.py", True)

    def test_a_semicolon_silences(self) -> None:
        for source in ("1;", "1 ; # a", "(1); # a;", "(1\n# a\n);", "'é;'; ", "x = 2; 1;", "1; \r\n\r\n"):
            self.assertEqual(self.run_program(source.encode()), [], source)
        for source in ("1", "1 # a;", "(1) # ;", "';'[1:] or 1", "x = 2; 1", "1\n# ;\n"):
            self.assertEqual(self.run_program(source.encode()), [1], source)

    def test_fences_are_left_out(self) -> None:
        for source in (
            "```python\n6*7\n```",
            "\n```\n6*7\n```\n",
            "```python\n6*7",
            "````\r\n6*7\r\n````",
            "```python\nx = 6\n```\n\n```python\nx*7\n```",
        ):
            self.assertEqual(self.run_program(source.encode()), [42], source)
        self.assertEqual(self.run_program(b"```python\n'''\n```\n'''\n```"), ["\n```\n"])
        self.assertEqual(self.run_program(b"'''\n```python\n'''"), ["\n```python\n"])

    def test_lines_keep_their_numbers(self) -> None:
        for source, line in (("```\n1 / 0\n```", 2), ("%matplotlib inline\n!a \\\n  b\n1 / 0", 4)):
            try:
                with FakeShell():
                    self.run_program(source.encode())
            except ZeroDivisionError as error:
                self.assertEqual(traceback.extract_tb(error.__traceback__)[-1].lineno, line, source)
            else:
                self.fail(source)

    def test_errors_are_those_of_python(self) -> None:
        for source, line in (
            ("x = (1\ny", 1),
            ("%matplotlib inline\nx = = 1", 2),
            ("x = %\n", 1),
            ("```\nx =\n```", 2),
        ):
            with self.assertRaises(SyntaxError) as caught:
                compiling.compile_program(source.encode(), "f.py", True)
            self.assertEqual(caught.exception.lineno, line, source)
        with self.assertRaises(SyntaxError):
            compiling.compile_program(b"\xff(", "f.py", True)

    def test_the_syntax_of_notebooks_is_translated(self) -> None:
        for source, calls in (
            ("%matplotlib inline", ["line matplotlib inline"]),
            ("if 1:\n    !ls -l 'a b'\n", ["system ls -l 'a b'"]),
            ("x = !ls", ["getoutput ls"]),
            ("a, c = %env", ["line env "]),
            ("!!ls", ["getoutput ls"]),
            ("pip install six", ["line pip install six"]),
            ("%pip install six\r\n", ["line pip install six"]),
            ("len?", ["line pinfo len"]),
            ("?len", ["line pinfo len"]),
            ("!echo it's", ["system echo it's"]),
            ("!echo (", ["system echo ("]),
            ("!a \\\n b\n%cd x", ["system a  b", "line cd x"]),
            ("```python\n%cd x\n!ls\n```", ["line cd x", "system ls"]),
            ("\n%%bash -e\nfor i in 1; do\ndone", ["cell bash -e: for i in 1; do\ndone"]),
        ):
            with FakeShell() as shell:
                self.run_program(source.encode())
            self.assertEqual(shell.calls, calls, source)

    def test_python_comes_first(self) -> None:
        with FakeShell() as shell:
            self.assertEqual(self.run_program(b"x = 7\ny = (x\n%2)\ny"), [1])
        self.assertEqual(shell.calls, [])
