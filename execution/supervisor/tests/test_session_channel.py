"""Tests of session_channel.py. They run in a sandbox, like any program."""

import os
import struct
import threading
import time
import unittest

import channel
import kernel
import session_channel


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + struct.pack(">I", len(payload)) + payload


WELCOME = frame(b"Y", b"nonce") + frame(b"P")


class SessionChannelTest(unittest.TestCase):
    def setUp(self) -> None:
        self.receive_fd, self.server_out = self.pipe()
        self.server_in, self.send_fd = self.pipe()
        self.channel = session_channel.SessionChannel(
            channel.Channel(channel.Descriptors(self.receive_fd, self.send_fd), 0.2), time.time() + 60
        )

    def pipe(self) -> "tuple[int, int]":
        pair = os.pipe()
        self.addCleanup(kernel.close_all, pair)
        return pair

    def handle_frame(self, data: bytes) -> "list[tuple[bytes, bytes]]":
        """Returns the frames that the channel finds in bytes."""
        self.channel.buffer += data
        frames = []
        while got := self.channel.next_buffered():
            frames.append(got)
        return frames

    def test_invalid_frames_are_dropped_until_a_server_attaches(self) -> None:
        for junk in (b"\0" * 7, b"~", b"AAAAAAAAA", b"C\xff\xff\xff\xff", b"C\0\x01\0\x09"):
            self.assertEqual(self.handle_frame(junk + frame(b"K") + b"Y\0\0"), [(b"L", b"")], junk)
            self.assertEqual(self.handle_frame(frame(b"J")), [], junk)
            self.assertLess(len(self.channel.buffer), 5, junk)
            self.assertEqual(
                self.handle_frame(frame(b"Y", b"nonce") + frame(b"J", b"nonce")), [(b"Y", b"nonce"), (b"J", b"")]
            )
            self.channel.tag = b""

    def test_a_lost_channel_is_reported(self) -> None:
        self.handle_frame(bytes(7))
        self.channel.answer_greeting()
        self.handle_frame(frame(b"Y", b"nonce"))
        self.channel.answer_greeting()
        self.channel.answer_greeting()
        self.assertEqual(os.read(self.server_in, 1000), frame(b"L") + WELCOME)

    def test_frames_of_the_previous_server_are_dropped(self) -> None:
        mine, its = b"12345678 and more", b"87654321 and more"
        self.assertEqual(self.handle_frame(frame(b"Y", its) + frame(b"F", its[:8] + b"f")), [(b"Y", its), (b"F", b"f")])
        sent = frame(b"J", b"12345678j"), frame(b"D", its[:8] + b"x"), frame(b"G"), frame(b"D", b"12345678\0")
        self.assertEqual(
            self.handle_frame(frame(b"Y", mine) + b"".join(sent)), [(b"Y", mine), (b"J", b"j"), (b"D", b"\0")]
        )

    def test_bytes_of_one_server_inside_anothers_frame_are_dropped(self) -> None:
        """The rest of the interrupted frame is not a frame, whatever its content is."""
        tag = b"12345678"
        for content in (bytes(65536), b"D" * 65536, b"\xff" * 65536):
            data = frame(b"D", tag + content)
            for sent in (1, 5, 13, 30_000, len(data) - 1):
                self.channel.lost, self.channel.tag = False, tag
                self.channel.buffer.clear()
                frames = self.handle_frame(data[:sent] + b"\0" * 32768 + data[sent:] + frame(b"G", tag))
                self.assertEqual(frames[-1], (b"L", b""), (content[:1], sent))
                self.assertNotIn((b"G", b""), frames, (content[:1], sent))

    def test_a_server_finds_the_stream_in_order_after_a_partial_frame(self) -> None:
        whole = frame(b"C", b"x" * 60_000)
        for sent in (0, 1, 2, 3, 4, 5, 6, 59_999, len(whole)):
            self.channel.buffer.clear()
            frames = self.handle_frame(whole[:sent] + bytes(5 + 2 * 65536) + frame(b"Y", b"nonce"))
            self.assertEqual(frames[-1], (b"Y", b"nonce"), sent)

    def test_a_new_server_receives_nothing_until_it_is_answered(self) -> None:
        self.handle_frame(frame(b"Y", b"nonce"))
        self.channel.send(b"O", b"another server's")
        self.channel.answer_greeting()
        self.channel.send(b"R")
        self.assertEqual(os.read(self.server_in, 1000), WELCOME + frame(b"R"))

    def test_a_server_that_does_not_read_is_not_waited_for(self) -> None:
        self.channel.send(b"O", bytes(1 << 20))
        self.assertTrue(self.channel.muted)
        began = time.monotonic()
        self.channel.send(b"O", bytes(1 << 20))
        self.assertLess(time.monotonic() - began, 0.2)

    def test_a_server_that_sends_may_be_slow_to_read(self) -> None:
        received = bytearray()

        def serve() -> None:
            for _ in range(12):
                os.write(self.server_out, frame(b"P"))
                time.sleep(self.channel.silence / 4)
            while len(received) < (1 << 20) + 5:
                received.extend(os.read(self.server_in, 1 << 16))

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        self.channel.send(b"D", bytes(1 << 20))
        self.assertFalse(self.channel.muted)
        server.join()
        self.assertEqual(len(received), (1 << 20) + 5)

    def test_frames_received_while_sending_are_kept(self) -> None:
        os.write(self.server_out, frame(b"P") + frame(b"K") + frame(b"C", b"x")[:3])
        self.channel.send(b"D", bytes(1 << 20))  # no server reads
        os.write(self.server_out, frame(b"C", b"x")[3:])
        self.channel.read_available()
        self.assertEqual([self.channel.next_buffered() for _ in range(3)], [(b"K", b""), (b"C", b"x"), None])

    def test_a_new_server_does_not_wait_for_the_previous_one(self) -> None:
        os.write(self.server_out, frame(b"Y", b"nonce"))
        self.channel.silence = 60
        self.channel.send(b"D", bytes(1 << 20))  # no server reads
        self.assertEqual(self.channel.next_buffered(), (b"Y", b"nonce"))
        os.read(self.server_in, 1 << 20)
        self.channel.answer_greeting()
        self.assertEqual(os.read(self.server_in, 1000), WELCOME)

    def test_a_server_that_waits_for_its_answer_gets_pongs(self) -> None:
        self.handle_frame(frame(b"Y", b"nonce"))
        self.channel.pong()
        self.assertEqual(os.read(self.server_in, 1000), frame(b"P"))

    def test_a_muted_server_gets_no_pongs(self) -> None:
        self.channel.send(b"D", bytes(1 << 20))  # no server reads: half of it is in the pipe
        os.read(self.server_in, 1 << 20)
        self.channel.pong()
        os.set_blocking(self.server_in, False)
        with self.assertRaises(BlockingIOError):
            os.read(self.server_in, 1)

    def test_a_server_moves_the_end(self) -> None:
        later = f"expires_ms={int(time.time() * 1000) + 3600_000}\n".encode()
        self.assertEqual(self.handle_frame(frame(b"U", later) + frame(b"K")), [(b"K", b"")])
        self.assertAlmostEqual(self.channel.time_left(), 3600, delta=60)
        for partial in (b"", b"expires_ms=", b"expires_ms=x", b"\xff"):
            self.assertEqual(self.handle_frame(frame(b"U", partial)), [], partial)
        self.assertAlmostEqual(self.channel.time_left(), 3600, delta=60)

    def test_another_server_does_not_move_the_end(self) -> None:
        self.handle_frame(frame(b"Y", b"12345678 and more"))
        before = self.channel.end
        self.assertEqual(self.handle_frame(frame(b"U", b"expires_ms=0\n")), [])
        self.assertEqual(self.channel.end, before)

    def test_an_end_that_was_moved_while_this_process_was_frozen_counts(self) -> None:
        os.write(
            self.server_out, frame(b"K") + frame(b"U", f"expires_ms={int(time.time() * 1000) + 60_000}\n".encode())
        )
        self.channel.end -= 60.1
        self.assertGreater(self.channel.silence_left(), 0)
        self.assertEqual(self.channel.next_buffered(), (b"K", b""))

    def test_the_session_expires(self) -> None:
        self.assertLess(self.channel.silence_left(), 60.1)
        self.channel.end -= 60.1
        with self.assertRaisesRegex(channel.Gone, "expired"):
            self.channel.silence_left()
