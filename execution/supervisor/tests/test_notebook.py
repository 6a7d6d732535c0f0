"""Tests of notebook.py. They run in a sandbox, like any program."""

import inspect
import io
import os
import signal
import subprocess
import sys
import tempfile
import tracemalloc
import unittest

from errno import EMFILE
from typing import TextIO
from unittest import mock

import display
import notebook


class StdinTest(unittest.TestCase):
    def setUp(self) -> None:
        saved = os.dup(0)
        self.addCleanup(os.close, saved)
        self.addCleanup(os.dup2, saved, 0)

    def make(self, data: bytes) -> TextIO:
        """Makes a standard input from a source that has more bytes."""
        with tempfile.TemporaryFile() as source:
            source.write(data + b"code")
            source.seek(0)
            stdin = notebook.make_stdin(source.fileno(), len(data))
            self.assertEqual(os.read(source.fileno(), 10), b"code")
        return stdin

    def test_stdin_is_not_copied(self) -> None:
        data = bytes(1 << 22)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.make(data) as stdin:
            copies = tracemalloc.get_traced_memory()[1] - len(data)  # the test itself joins that much
            self.assertLess(copies, 1 << 20)
            self.assertEqual(stdin.read(), data.decode())

    def test_children_inherit_stdin(self) -> None:
        with self.make(b"a\nb\xff"):
            self.assertEqual(subprocess.run(["cat"], capture_output=True).stdout, b"a\nb\xff")
        with self.make("é\n".encode()) as stdin:
            self.assertEqual((stdin.fileno(), stdin.readline(), stdin.readline()), (0, "é\n", ""))
        with self.make(b""):
            self.assertEqual(subprocess.run(["cat"], capture_output=True).stdout, b"")

    def test_stdin_works_without_a_file(self) -> None:
        with mock.patch.object(os, "memfd_create", side_effect=OSError(EMFILE, "too many")):
            self.assertEqual(self.make(b"a").read(), "a")


class NotebookTest(unittest.TestCase):
    def setUp(self) -> None:
        saved = sys.modules["__main__"], sys.argv[:], sys.path[:], sys.stdout, sys.stderr
        self.addCleanup(self.restore, *saved)
        for number in (signal.SIGINT, signal.SIGXCPU, signal.SIGALRM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.notebook = notebook.Notebook(tempfile.mkdtemp())
        sys.stdout, sys.stderr = self.out, self.err = io.StringIO(), io.StringIO()

    def restore(self, main: object, argv: "list[str]", path: "list[str]", out: object, err: object) -> None:
        sys.modules["__main__"] = main  # type: ignore[assignment]
        sys.argv[:], sys.path[:] = argv, path
        sys.stdout, sys.stderr = out, err  # type: ignore[assignment]

    def test_state_stays(self) -> None:
        self.assertEqual([self.notebook.run_cell(code, True) for code in (b"x = 6", b"x * 7")], [0, 0])
        self.assertEqual(self.out.getvalue(), "42\n")

    def test_statuses(self) -> None:
        cells = (b"1 / 0", b"raise SystemExit(3)", b"raise KeyboardInterrupt", b"(")
        self.assertEqual([self.notebook.run_cell(code, True) >> 8 for code in cells], [1, 3, 130, 1])

    def test_tracebacks_show_only_the_cells_lines(self) -> None:
        self.notebook.run_cell(b"def f():\n    1 / 0\nf()", True)
        self.assertRegex(self.err.getvalue(), r'(?s)File "<cell 1>", line 3.*f\(\).*line 2, in f.*1 / 0')
        self.assertNotRegex(self.err.getvalue(), "(notebook|program|tracebacks)[.]py")

    def test_what_a_cell_writes_is_flushed(self) -> None:
        path = tempfile.mktemp()
        self.notebook.run_cell(f"f = open({path!r}, 'w')\nf.write('written')".encode(), False)
        with open(path) as file:
            self.assertEqual(file.read(), "written")

    def test_await_and_run_in_one_cell(self) -> None:
        code = b"import asyncio\nasync def f(): return 5\nx = await f()\nx + asyncio.run(f())"
        self.assertEqual(self.notebook.run_cell(code, True), 0)
        self.assertEqual(self.out.getvalue(), "10\n")

    def test_an_interrupt_is_shown_where_a_cell_awaits(self) -> None:
        code = b"""
import asyncio, signal
async def f():
    asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
    await asyncio.sleep(60)
await f()"""
        self.assertEqual(self.notebook.run_cell(code, False), 130 << 8)
        self.assertRegex(
            self.err.getvalue(), r"(?s)^Traceback[^\n]*\n  File \"<cell 1>\", line 6, in <module>.*line 5, in f\n"
        )
        self.assertTrue(self.err.getvalue().endswith("\nKeyboardInterrupt\n"), self.err.getvalue())

    def test_lines_are_split_as_by_the_compiler(self) -> None:
        code = "a = '\x0c\x1c\x85\u2028'\r\n\x0cb = 2\rdef f():\n    return 'found'\n1 / 0"
        self.notebook.run_cell(code.encode(), False)
        self.assertIn("line 5, in <module>\n    1 / 0\n", self.err.getvalue())
        self.assertEqual(inspect.getsource(self.notebook.namespace["f"]), "def f():\n    return 'found'\n")

    def test_what_a_handler_raises_between_cells_is_printed(self) -> None:
        self.notebook.run_cell(b"import signal\ndef ring(*_):\n    1 / 0\nsignal.signal(signal.SIGALRM, ring)", False)
        signal.raise_signal(signal.SIGALRM)
        self.assertRegex(self.err.getvalue(), r"(?s)line 3, in ring.*ZeroDivisionError")
        cells = (b"signal.getsignal(signal.SIGALRM) is ring", b"signal.raise_signal(signal.SIGALRM)")
        self.assertEqual([self.notebook.run_cell(code, True) for code in cells], [0, 1 << 8])
        self.assertEqual(self.out.getvalue(), "True\n")

    def test_a_handler_may_reinstall_itself(self) -> None:
        self.notebook.run_cell(
            b"import signal\ndef ring(*_):\n    signal.signal(signal.SIGALRM, ring)\n    1 / 0\nring()", False
        )
        for _ in range(3):
            signal.raise_signal(signal.SIGALRM)
        self.assertEqual(self.err.getvalue().count("ZeroDivisionError"), 4)

    def test_each_cell_can_be_interrupted(self) -> None:
        self.notebook.run_cell(b"import signal\nsignal.signal(signal.SIGINT, lambda *_: None)", False)
        self.assertEqual(self.notebook.run_cell(b"signal.raise_signal(signal.SIGINT)", False), 130 << 8)

    def test_interrupts_reach_only_cells(self) -> None:
        self.notebook.interrupt()
        self.notebook.busy = True
        with self.assertRaises(KeyboardInterrupt):
            self.notebook.interrupt()

    def test_an_interrupted_cell_saves_no_figures(self) -> None:
        saved: "list[str]" = []
        with mock.patch.object(display.screen, "finish", lambda: saved.append("figures")):
            for code in (b"1", b"1 / 0", b"raise KeyboardInterrupt"):
                self.notebook.run_cell(code, False)
        self.assertEqual(len(saved), 2)

    def test_a_fork_saves_no_figures(self) -> None:
        saved: "list[str]" = []
        with mock.patch.object(display.screen, "finish", lambda: saved.append("figures")):
            self.notebook.process += 1  # as in a fork
            self.notebook.run_cell(b"1", False)
        self.assertEqual(saved, [])

    def test_interrupts_are_repeated_after_a_while(self) -> None:
        self.notebook.busy = True
        with self.assertRaises(KeyboardInterrupt):
            self.notebook.interrupt()
        self.notebook.interrupt()  # the cell may be cleaning up
        self.notebook.interrupted -= notebook.INTERRUPT_INTERVAL_SECONDS
        with self.assertRaises(KeyboardInterrupt):
            self.notebook.interrupt()
