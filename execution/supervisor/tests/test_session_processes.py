"""Tests of session_processes.py. They run in a sandbox, like any program."""

import os
import signal
import unittest

from unittest import mock

import child
import kernel
import session_processes


class Undying(session_processes.Child):
    """A process that was killed and does not exit."""

    def __init__(self, family: session_processes.Family, end_fd: int) -> None:
        self.family, self.end_fd = family, end_fd
        self.ending = None
        self.signals: "list[int]" = []

    def signal(self, number: int) -> None:
        self.signals.append(number)


class FamilyTest(unittest.TestCase):
    def setUp(self) -> None:
        for patch in (mock.patch.object(session_processes, "REAP_SECONDS", 0.05), mock.patch.object(os, "kill")):
            patch.start()
            self.addCleanup(patch.stop)
        self.family = session_processes.Family()
        self.never, write_fd = os.pipe()
        self.addCleanup(kernel.close_all, (self.never, write_fd, self.family.wakeup_fd))
        self.addCleanup(signal.set_wakeup_fd, -1)
        self.addCleanup(signal.signal, signal.SIGCHLD, signal.SIG_DFL)

    def test_end_does_not_wait_forever_for_a_killed_process(self) -> None:
        child = Undying(self.family, self.never)
        self.assertEqual(child.end().status, signal.SIGKILL)
        self.assertIsNotNone(child.ending)
        self.assertIn(signal.SIGKILL, child.signals)

    def test_kill_does_not_wait_forever(self) -> None:
        self.family.kill()
