"""Tests of channel.py. They run in a sandbox, like any program."""

import os
import struct
import tempfile
import threading
import time
import unittest

import channel
import handover
import run
import workspace


class ChannelTest(unittest.TestCase):
    def setUp(self) -> None:
        self.receive_fd, self.server_out = self.pipe()
        self.server_in, self.send_fd = self.pipe()
        self.channel = channel.Channel(channel.Descriptors(self.receive_fd, self.send_fd), 0.2)
        self.never, _ = self.pipe()  # readable only if a program's process ended

    def pipe(self) -> "tuple[int, int]":
        pair = os.pipe()
        self.addCleanup(os.closerange, min(pair), min(pair) + 1)  # a test may have closed it
        self.addCleanup(os.closerange, max(pair), max(pair) + 1)
        return pair

    def test_frames_are_assembled_from_pieces(self) -> None:
        stream = b"".join(k + struct.pack(">I", len(p)) + p for k, p in [(b"C", b"x" * 300), (b"P", b""), (b"G", b"")])
        got = []
        for byte in stream:
            os.write(self.server_out, bytes([byte]))
            self.channel.read_available()
            while frame := self.channel.next_buffered():
                got.append(frame)
        self.assertEqual(got, [(b"C", b"x" * 300), (b"P", b""), (b"G", b"")])

    def test_receive_skips_pings(self) -> None:
        os.write(self.server_out, b"P\0\0\0\0G\0\0\0\0")
        self.assertEqual(self.channel.receive((self.never,)), (b"G", b""))

    def test_silence_raises_gone(self) -> None:
        with self.assertRaisesRegex(channel.Gone, "silent"):
            self.channel.receive((self.never,))

    def test_a_closed_connection_raises_gone(self) -> None:
        os.close(self.server_out)
        with self.assertRaisesRegex(channel.Gone, "closed"):
            self.channel.receive((self.never,))

    def test_a_huge_frame_raises_gone(self) -> None:
        os.write(self.server_out, b"C\xff\xff\xff\xff")
        with self.assertRaisesRegex(channel.Gone, "4294967295 bytes"):
            self.channel.receive((self.never,))

    def test_a_server_that_neither_reads_nor_sends_raises_gone(self) -> None:
        with self.assertRaisesRegex(channel.Gone, "silent"):
            self.channel.send(b"O", b"x" * (1 << 20))

    def test_a_server_that_closes_without_reading_raises_gone(self) -> None:
        os.close(self.server_out)
        with self.assertRaisesRegex(channel.Gone, "closed"):
            self.channel.send(b"O", b"x" * (1 << 20))

    def test_a_server_that_sends_may_be_slow_to_read(self) -> None:
        began = time.monotonic()
        received = bytearray()

        def serve() -> None:
            while time.monotonic() < began + 3 * self.channel.silence:
                os.write(self.server_out, b"P\0\0\0\0")
                time.sleep(self.channel.silence / 4)
            while len(received) < (1 << 20) + 5:
                received.extend(os.read(self.server_in, 1 << 16))

        server = threading.Thread(target=serve)
        server.start()
        self.channel.send(b"D", b"x" * (1 << 20))
        server.join()
        self.assertEqual(received, b"D\0\x10\0\0" + b"x" * (1 << 20))

    def test_frames_that_wait_to_be_read_count(self) -> None:
        os.write(self.server_out, b"P\0\0\0\0")
        self.channel.last_received -= 10
        self.assertEqual(self.channel.silence_left(), 0)
        self.channel.read_available()
        self.assertGreater(self.channel.silence_left(), 0)

    def test_queued_frames_are_sent_first(self) -> None:
        self.channel.post(b"F", b"a")
        self.channel.send(b"Z")
        self.assertEqual(os.read(self.server_in, 100), b"F\0\0\0\x01aZ\0\0\0\0")

    def received(self) -> bytes:
        """Returns what the server has received by now, without waiting."""
        os.set_blocking(self.server_in, False)
        try:
            return os.read(self.server_in, 1 << 20)
        except BlockingIOError:
            return b""

    def test_a_ping_is_answered(self) -> None:
        os.write(self.server_out, b"P\0\0\0\0G\0\0\0\0")
        self.channel.receive((self.never,))
        self.assertEqual(self.received(), b"P\0\0\0\0")

    def test_no_sign_of_life_follows_output(self) -> None:
        self.channel.send(b"O", b"x")
        self.channel.show_life()
        self.assertEqual(self.received(), b"O\0\0\0\1x")

    def test_silence_is_followed_by_one_sign_of_life(self) -> None:
        self.channel.last_sent -= 1
        for _ in self.channel.showing_life([workspace.Found("a", "")] * 3):
            pass
        self.assertEqual(self.received(), b"P\0\0\0\0")

    def test_queued_frames_replace_a_pong(self) -> None:
        self.channel.post(b"X", b"y")
        self.channel.pong()
        self.assertEqual(self.received(), b"X\0\0\0\1y")

    def test_a_pong_neither_waits_nor_fails_when_the_pipe_is_full(self) -> None:
        filled = 0
        while True:
            try:
                filled += os.write(self.send_fd, b"x" * 4096)
            except BlockingIOError:
                break
        for _ in range(3):
            self.channel.pong()
        self.assertEqual(self.received(), b"x" * filled)
        self.channel.flush()
        self.assertEqual(self.received(), b"P\0\0\0\0")  # once

    def test_a_pong_does_not_fail_when_the_server_is_gone(self) -> None:
        os.close(self.server_in)
        self.channel.pong()
        with self.assertRaises(channel.Gone):
            self.channel.flush()

    def test_a_pong_does_not_break_a_frame(self) -> None:
        payload = b"x" * (1 << 20)
        self.channel.post(b"D", payload)
        self.channel.pong()  # as much of it as there is room for
        received = bytearray(self.received())
        self.assertLess(len(received), len(payload))
        while len(received) < 5 + len(payload):
            self.channel.pong()
            received += self.received()
        self.channel.pong()
        self.assertEqual(received, b"D\0\x10\0\0" + payload)
        self.assertEqual(self.received(), b"P\0\0\0\0")

    def test_a_short_run_sends_only_its_report(self) -> None:
        self.channel.last_sent -= 1  # it was idle
        with tempfile.TemporaryDirectory() as workspace:
            job = b"".join(k + struct.pack(">I", len(p)) + p for k, p in [(b"J", b"a=1\n"), (b"C", b"1"), (b"G", b"")])
            os.write(self.server_out, job)
            run.receive_job(self.channel, (self.never,), workspace)
        self.assertEqual(self.received(), b"")

    def test_a_sign_of_life_is_sent_while_a_large_frame_arrives(self) -> None:
        os.write(self.server_out, b"C\0\0\0\2x")
        self.channel.read_available()
        self.channel.last_sent -= 1
        server = threading.Timer(0.05, os.write, (self.server_out, b"y"))
        server.start()
        self.assertEqual(self.channel.receive((self.never,)), (b"C", b"xy"))
        server.join()
        self.assertEqual(self.received(), b"P\0\0\0\0")

    def test_fields(self) -> None:
        self.channel.send(b"X", handover.fields(exit_code=3, full=0))
        self.assertEqual(os.read(self.server_in, 100), b"X\0\0\0\x13exit_code=3\nfull=0\n")
        self.assertEqual(handover.parse_fields(b"a=1\nb=22\n"), {"a": 1, "b": 22})
