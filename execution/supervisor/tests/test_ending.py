"""Tests of ending.py. They run in a sandbox, like any program."""

import os
import tempfile
import unittest

import ending
import handover


class FlushTest(unittest.TestCase):
    def test_classes_without_a_hash_do_not_matter(self) -> None:
        kind = type("M", (type,), {"__eq__": lambda self, other: self is other, "__hash__": None})
        thing = kind("A", (), {})()
        with tempfile.NamedTemporaryFile("w") as file, open(file.name) as written:
            file.write("kept")
            ending.flush_files()
            self.assertEqual(written.read(), "kept")
        self.assertIsNotNone(thing)


class ExitNoticeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.read_fd, write_fd = os.pipe()
        os.dup2(write_fd, handover.DONE_FD)
        os.close(write_fd)
        self.addCleanup(os.close, self.read_fd)
        os.set_blocking(self.read_fd, False)
        self.notice = ending.ExitNotice()

    def sent(self) -> bytes:
        try:
            return os.read(self.read_fd, 100)
        except BlockingIOError:
            return b""

    def test_the_notice_has_the_status(self) -> None:
        self.notice.send(3)
        self.assertEqual(handover.EXIT_NOTICE.unpack(self.sent())[0], 3)
        os.close(handover.DONE_FD)

    def test_a_fork_sends_nothing(self) -> None:
        self.notice.process += 1
        self.notice.send(0)
        self.assertEqual(self.sent(), b"")
        os.close(handover.DONE_FD)

    def test_another_file_at_the_descriptor_is_not_written(self) -> None:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), handover.DONE_FD)
            self.notice.send(0)
            self.assertEqual(os.fstat(file.fileno()).st_size, 0)
        os.close(handover.DONE_FD)
        self.notice.send(0)  # does not raise
