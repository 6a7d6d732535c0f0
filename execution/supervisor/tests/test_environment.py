"""Tests of environment.py and of what uses it. They run in a sandbox, like any program."""

import os
import subprocess
import sys
import time
import unittest

from unittest import mock

import child
import environment
import program


class EnvironmentTest(unittest.TestCase):
    def setUp(self) -> None:
        saved, argv = dict(os.environ), sys.argv
        self.addCleanup(setattr, sys, "argv", argv)
        self.addCleanup(os.environ.update, saved)
        self.addCleanup(os.environ.clear)
        for name in ("A", "B", "C"):
            os.environ.pop(name, None)


class ParseTest(unittest.TestCase):
    def test_variables(self) -> None:
        self.assertEqual(environment.parse_variables(b""), {})
        self.assertEqual(environment.parse_variables(b"A=1\0B=\0C=x=y\n\0"), {b"A": b"1", b"B": b"", b"C": b"x=y\n"})

    def test_arguments(self) -> None:
        self.assertEqual(environment.parse_arguments(b""), [])
        self.assertEqual(environment.parse_arguments(b"\0-v\0\xc3\xbc\n\0"), ["", "-v", "ü\n"])


class CallEnvironmentTest(EnvironmentTest):
    def test_variables_hold_for_the_call(self) -> None:
        os.environ["A"] = "old"
        call = environment.CallEnvironment(b"A=new\0B=\xc3\xbc\0", b"")
        self.assertEqual((os.environ["A"], os.environ["B"]), ("new", "ü"))
        shell = ["sh", "-c", 'echo "$A$B"']
        self.assertEqual(subprocess.check_output(shell).decode(), "newü\n")
        call.undo()
        self.assertEqual((os.environ["A"], os.environ.get("B")), ("old", None))
        self.assertEqual(subprocess.check_output(shell).decode(), "old\n")

    def test_what_the_call_replaces_stays(self) -> None:
        os.environ["A"] = os.environ["B"] = "old"
        call = environment.CallEnvironment(b"A=1\0B=1\0C=1\0", b"")
        os.environ["A"] = "mine"
        del os.environ["B"]
        os.environ["C"] = "mine too"
        call.undo()
        self.assertEqual([os.environ.get(name) for name in ("A", "B", "C")], ["mine", None, "mine too"])

    def test_the_program_may_replace_os_environ(self) -> None:
        call = environment.CallEnvironment(b"A=1\0", b"")
        with mock.patch.object(os, "environ", {}):
            call.undo()
        self.assertNotIn("A", os.environ)

    def test_the_time_zone_holds_for_the_call(self) -> None:
        zone = time.tzname
        call = environment.CallEnvironment(b"TZ=XYZ-5\0", b"")
        self.assertEqual((time.tzname[0], time.localtime(0).tm_hour), ("XYZ", 5))
        call.undo()
        self.assertEqual(time.tzname, zone)

    def test_arguments_hold_for_the_call(self) -> None:
        sys.argv = [""]
        call = environment.CallEnvironment(b"", b"-v\0\0")
        self.assertEqual(sys.argv, ["", "-v", ""])
        sys.argv.pop()
        call.undo()
        self.assertEqual(sys.argv, [""])

    def test_argv_that_the_call_replaces_stays(self) -> None:
        call = environment.CallEnvironment(b"", b"x\0")
        sys.argv = ["mine"]
        call.undo()
        self.assertEqual(sys.argv, ["mine"])
        call = environment.CallEnvironment(b"A=1\0", b"")
        self.assertEqual(sys.argv, ["mine"])
        del sys.argv
        call.undo()
        environment.CallEnvironment(b"", b"x\0").undo()
        self.assertEqual(sys.argv, [""])


class ExecuteTest(EnvironmentTest):
    def test_a_program_has_its_arguments(self) -> None:
        main = sys.modules["__main__"]
        self.addCleanup(sys.modules.__setitem__, "__main__", main)
        self.addCleanup(sys.path.pop, 0)
        source = b"import sys; assert sys.argv == ['/w/f.py', '-v', ''], sys.argv"
        self.assertEqual(program.execute(source, "/w/f.py", False, ["-v", ""]), 0)


class ShellTest(EnvironmentTest):
    def shell(self, command: bytes, arguments: bytes = b"", variables: bytes = b"") -> bytes:
        """Returns what a command prints."""
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(into, 1)
            try:
                child.execute_command(command, arguments, variables)
            finally:
                os._exit(1)
        os.close(into)
        with open(out, "rb") as pipe:
            text = pipe.read()
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        return text

    def test_a_command_has_its_arguments_and_variables(self) -> None:
        os.environ["B"] = "kept"
        got = self.shell(b'echo "$#$1$2,$A$B"', b"-n\0x y\0", b"A=1 2\0")
        self.assertEqual(got, b"2-nx y,1 2kept\n")
        self.assertNotIn("A", os.environ)

    def test_the_name_of_the_shell_does_not_depend_on_arguments(self) -> None:
        self.assertEqual(self.shell(b"echo $0 $#"), self.shell(b"echo $0 0", b"x\0"))
