"""Tests of results.py. They run in a sandbox, like any program."""

import os
import tempfile
import unittest

from unittest import mock

import results

from handover import RESULT_ITEM


class FakeChannel:
    """Records the frames that are sent."""

    def __init__(self) -> None:
        self.frames: "list[tuple[bytes, bytes]]" = []

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        self.frames.append((kind, payload))

    post = send


def item(begins: bool, kind: bytes, data: bytes) -> bytes:
    return RESULT_ITEM.pack(begins, len(kind), len(data)) + kind + data


class ResultsTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = folder.name + "/results"
        patch = mock.patch.object(results, "RESULTS_FILE", self.path)
        self.addCleanup(patch.stop)
        patch.start()

    def sent(self, content: bytes, room: int = 1000) -> "list[tuple[bytes, bytes]]":
        with open(self.path, "wb") as file:
            file.write(content)
        channel = FakeChannel()
        results.send_results(channel, room)  # type: ignore[arg-type]
        self.assertFalse(os.path.exists(self.path))
        return channel.frames

    def test_all_is_sent(self) -> None:
        content = item(True, b"a/b", b"x") + item(False, b"c/d", b"") + item(True, b"a/b", b"y")
        self.assertEqual(
            self.sent(content), [(b"B", b"1a/b"), (b"D", b"x"), (b"B", b"0c/d"), (b"B", b"1a/b"), (b"D", b"y")]
        )

    def test_what_does_not_fit_is_left_out(self) -> None:
        content = item(True, b"a/b", b"x" * 50) + item(False, b"c/d", b"y") + item(False, b"e/f", b"z" * 10)
        self.assertEqual(self.sent(content, 10), [(b"B", b"1c/d"), (b"D", b"y")])

    def test_it_ends_where_the_file_does(self) -> None:
        for content in (b"", b"x", RESULT_ITEM.pack(True, 3, 1), RESULT_ITEM.pack(True, 3, 1 << 30) + b"a/bx"):
            self.assertEqual(self.sent(content), [])
        self.assertEqual(len(self.sent(item(True, b"a/b", b"") * 3000)), results.MAX_ITEMS)

    def test_only_a_file_is_read(self) -> None:
        channel = FakeChannel()
        results.send_results(channel, 10)  # type: ignore[arg-type]
        os.mkfifo(self.path)
        results.send_results(channel, 10)  # type: ignore[arg-type]
        self.assertFalse(os.path.exists(self.path))
        os.symlink("/etc/passwd", self.path)
        results.send_results(channel, 10)  # type: ignore[arg-type]
        self.assertEqual(channel.frames, [])
