"""Tests of session.py. They run in a sandbox, like any program."""

import os
import struct
import time
import unittest

from unittest import mock

import channel
import memory
import network
import run
import session
import session_calls
import session_channel
import watches


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + struct.pack(">I", len(payload)) + payload


WATCHES = watches.Watches(
    memory.MemoryWatch(0, (), network.Network(), memory.Residents()),
    watches.KernelWatch(network.Network(), memory.Residents()),
)


class StartTest(unittest.TestCase):
    """Tests of Session.start."""

    def setUp(self) -> None:
        receive_fd, self.server_out = os.pipe()
        self.server_in, send_fd = os.pipe()
        for fd in (receive_fd, self.server_out, self.server_in, send_fd):
            self.addCleanup(os.close, fd)
        sender = session_channel.SessionChannel(
            channel.Channel(channel.Descriptors(receive_fd, send_fd), 1), time.time() + 60
        )
        limits = {"timeout_ms": 1000, "output_bytes": 10}
        program = mock.Mock(stdout=10, stderr=11)
        background = session_calls.Background(0)
        self.run_ = session_calls.Call(sender, program, run.Job(limits), WATCHES, background)
        self.session = mock.Mock(channel=sender)
        self.session.sandbox.pressure.take_counts.return_value = [0, 0]
        self.session.begin = lambda: sender.post(b"A")
        self.session.conclude = lambda facts: sender.send(b"Z")

    def sent(self) -> bytes:
        os.set_blocking(self.server_in, False)
        try:
            return os.read(self.server_in, 1000)
        except BlockingIOError:
            return b""

    def test_a_call_begins(self) -> None:
        os.write(self.server_out, frame(b"P"))
        self.assertTrue(session.Session.start(self.session, self.run_))
        self.assertTrue(self.sent().endswith(frame(b"A")))

    def test_a_cancelled_call_does_not_begin(self) -> None:
        for received in (frame(b"K"), frame(b"P") + frame(b"K"), frame(b"Y", b"nonce")):
            os.write(self.server_out, received)
            self.assertFalse(session.Session.start(self.session, self.run_), received)
            self.assertNotIn(frame(b"A"), self.sent(), received)

    def test_a_call_cancelled_while_this_process_was_frozen_does_not_begin(self) -> None:
        flush = self.session.channel.flush

        def freeze() -> None:
            flush()
            os.write(self.server_out, frame(b"K"))

        with mock.patch.object(self.session.channel, "flush", freeze), mock.patch.object(session, "STALE_SECONDS", 0):
            self.assertFalse(session.Session.start(self.session, self.run_))
        self.assertEqual(self.sent(), frame(b"A") + frame(b"Z"))
