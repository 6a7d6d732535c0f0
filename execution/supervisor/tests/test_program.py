"""Tests of program.py. They run in a sandbox, like any program."""

import sys
import unittest

import program


class CompileTest(unittest.TestCase):
    def run_program(self, source: bytes, interactive: bool = True) -> "list[object]":
        shown: "list[object]" = []
        hook, sys.displayhook = sys.displayhook, shown.append
        try:
            namespace: "dict[str, object]" = {}
            program.run_codes(program.compile_program(source, "f.py", interactive), namespace)
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
        codes = program.compile_program(b"from __future__ import annotations\n1", "f.py", True)
        self.assertEqual(codes[0].co_flags & 0x1000000, codes[1].co_flags & 0x1000000)

    def test_await_runs_in_its_own_event_loop(self) -> None:
        source = b"import asyncio\nloop = asyncio.get_running_loop()\nasync def f(): return 3\nx = await f()\n"
        self.assertEqual(self.run_program(source + b"(await f(), asyncio.get_running_loop() is loop)"), [(3, True)])
        self.assertEqual(self.run_program(source + b"x"), [3])
        self.assertEqual(self.run_program(b"import asyncio\nasync def f(): return 3\nasyncio.run(f())"), [3])

    def test_exceptions_of_coroutines_are_raised(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            self.run_program(b"import asyncio\nawait asyncio.sleep(0)\n1 / 0")

    def test_exit_status(self) -> None:
        for code, status in [(None, 0), (0, 0), (3, 3), (-1, 255), (256, 0), (1 << 40, 255), (True, 1)]:
            self.assertEqual(program.exit_status_of(SystemExit(code)), status, code)
