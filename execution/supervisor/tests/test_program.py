"""Tests of program.py. They run in a sandbox, like any program."""

import unittest

import program


class StatusTest(unittest.TestCase):
    def test_exit_status(self) -> None:
        for code, status in [(None, 0), (0, 0), (3, 3), (-1, 255), (256, 0), (1 << 40, 255), (True, 1)]:
            self.assertEqual(program.exit_status_of(SystemExit(code)), status, code)
