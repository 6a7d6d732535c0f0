"""Tests of shell.py and ipython.py. They run in a sandbox, like any program."""

import builtins
import io
import os
import sys
import tempfile
import unittest

from unittest import mock

import gallery
import hooks
import ipython
import program
import shell


class ShellTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)
        self.shell = shell.Shell(program.run_codes)
        main = type(sys)("__main__")
        for patch in (
            mock.patch.object(sys, "stdout", io.StringIO()),
            mock.patch.object(sys, "stderr", io.StringIO()),
            mock.patch.dict(sys.modules, __main__=main),
            mock.patch.dict(os.environ),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.variables = main.__dict__

    def printed(self) -> str:
        text: str = sys.stdout.getvalue()  # type: ignore[attr-defined]
        sys.stdout.truncate(0)
        sys.stdout.seek(0)
        return text

    def test_variables_are_expanded(self) -> None:
        self.variables.update(n=3, name="a b")
        for text, want in (
            ("{n+1} $n ${n} $nosuch {nosuch}", "4 3 $3 $nosuch {nosuch}"),
            ("$$n {{n}} '{name}'", "$n {n} 'a b'"),
            ("awk '{print $1}'", "awk '{print $1}'"),
        ):
            self.assertEqual(self.shell.expand(text), want)

    def test_commands(self) -> None:
        self.assertEqual(self.shell.getoutput("echo a; echo b >&2"), ["a", "b"])
        self.shell.system("exit 3")
        self.assertEqual(self.variables["_exit_code"], 3)

    def test_what_needs_a_network_is_explained(self) -> None:
        for network, said in ((True, ""), (False, shell.NO_NETWORK)):
            has_network = mock.patch.object(shell, "has_network", lambda: network)
            with has_network, mock.patch("importlib.util.find_spec", lambda _: True):
                for command in ("pip install --no-index no-such-package", "apt-get install -no", "sudo conda x"):
                    self.shell.system(command)
                    told = sys.stderr.getvalue()  # type: ignore[attr-defined]
                    self.assertIn(said, told, command)
                    sys.stderr.truncate(0)
        self.shell.run_line_magic("conda", "install x")
        self.assertIn("no conda", sys.stderr.getvalue())  # type: ignore[attr-defined]

    def test_without_pip(self) -> None:
        with mock.patch("importlib.util.find_spec", lambda _: None):
            self.shell.system("pip install no-such-package")
        self.assertIn(shell.NO_PIP, sys.stderr.getvalue())  # type: ignore[attr-defined]

    def test_time(self) -> None:
        self.assertEqual(self.shell.run_line_magic("time", "6*7"), 42)
        self.shell.run_line_magic("time", "x = 1")
        self.assertEqual(self.variables["x"], 1)
        self.shell.run_cell_magic("time", "", "y = 2")
        self.assertEqual(self.variables["y"], 2)
        self.assertEqual(self.printed().count("Wall time: "), 3)
        self.shell.run_line_magic("timeit", "-n 2 -r 3 x + 1")
        self.assertIn("3 runs, 2 loops each", self.printed())

    def test_the_environment(self) -> None:
        self.shell.run_line_magic("env", "A=b c")
        self.assertEqual((os.environ["A"], self.shell.run_line_magic("env", "A")), ("b c", "b c"))
        self.shell.run_line_magic("set_env", "A d")
        self.assertEqual(os.environ["A"], "d")
        with self.assertRaises(shell.UsageError):
            self.shell.run_line_magic("env", "NO_SUCH")

    def test_files(self) -> None:
        self.shell.run_cell_magic("writefile", "a.py", "x = 5")
        self.shell.run_cell_magic("writefile", "-a a.py", "y = 6")
        self.shell.run_line_magic("run", "a.py")
        self.assertEqual((self.variables["x"], self.variables["y"]), (5, 6))
        os.mkdir("d")
        self.shell.run_line_magic("cd", "d")
        self.assertTrue(str(self.shell.run_line_magic("pwd", "")).endswith("/d"))

    def test_magics_of_the_program(self) -> None:
        self.shell.register_magic_function(lambda line: line + "!", "line", "shout")
        self.assertEqual(self.shell.magic("%shout hey"), "hey!")
        for run in (lambda: self.shell.magic("%no"), lambda: self.shell.run_cell_magic("no", "", "")):
            with self.assertRaises(shell.UsageError):
                run()

    def test_the_package_is_provided(self) -> None:
        hook = hooks.ImportHooks()
        sys.meta_path.insert(0, hook)
        self.addCleanup(sys.meta_path.remove, hook)
        self.addCleanup(vars(builtins).pop, "get_ipython", None)
        program.provide_ipython(hook, program.run_codes)
        for name in [name for name in sys.modules if name.partition(".")[0] == "IPython"]:
            del sys.modules[name]
        from IPython import get_ipython  # type: ignore[import]
        from IPython.core.display import HTML  # type: ignore[import]
        from IPython.display import Image, Math, display as shown  # type: ignore[import]

        self.assertIs(type(get_ipython()), shell.Shell)
        self.assertIs(get_ipython(), get_ipython())
        self.assertEqual(gallery.bundle_of(HTML("<b>")), {"text/html": b"<b>"})
        self.assertEqual(gallery.bundle_of(Image(b"\xff\xd8x")), {"image/jpeg": b"\xff\xd8x"})
        self.assertEqual(gallery.bundle_of(Math("x")), {"text/latex": b"$\\displaystyle x$"})
        self.assertIs(shown, ipython.display)
