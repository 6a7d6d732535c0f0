"""The tests of session.py's parts; see test_supervisor.py."""

import inspect
import io
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import types
import unittest

from errno import EMFILE
from typing import TextIO
from unittest import mock

import session
import supervisor


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + struct.pack(">I", len(payload)) + payload


WELCOME = frame(b"Y", b"nonce") + frame(b"P")


WATCHES = supervisor.Watches(
    supervisor.MemoryWatch(0, (), supervisor.Network()), supervisor.KernelWatch(supervisor.Network())
)


class SessionChannelTest(unittest.TestCase):
    def setUp(self) -> None:
        self.receive_fd, self.server_out = self.pipe()
        self.server_in, self.send_fd = self.pipe()
        self.channel = session.SessionChannel(self.receive_fd, self.send_fd, 0.05, time.time() + 60)

    def pipe(self) -> "tuple[int, int]":
        pair = os.pipe()
        self.addCleanup(supervisor.close_all, pair)
        return pair

    def hear(self, data: bytes) -> "list[tuple[bytes, bytes]]":
        """What the channel makes of bytes."""
        self.channel.buffer += data
        frames = []
        while got := self.channel.next_buffered():
            frames.append(got)
        return frames

    def test_what_is_no_frame_is_dropped_until_a_server_comes(self) -> None:
        for junk in (b"\0" * 7, b"~", b"AAAAAAAAA", b"C\xff\xff\xff\xff", b"C\0\x01\0\x09"):
            self.assertEqual(self.hear(junk + frame(b"K") + b"Y\0\0"), [(b"L", b"")], junk)
            self.assertEqual(self.hear(frame(b"J")), [], junk)
            self.assertLess(len(self.channel.buffer), 5, junk)
            self.assertEqual(self.hear(frame(b"Y", b"nonce") + frame(b"J", b"nonce")), [(b"Y", b"nonce"), (b"J", b"")])
            self.channel.tag = b""

    def test_a_server_is_told_that_it_is_not_heard(self) -> None:
        self.hear(bytes(7))
        self.channel.welcome()
        self.hear(frame(b"Y", b"nonce"))
        self.channel.welcome()
        self.channel.welcome()
        self.assertEqual(os.read(self.server_in, 1000), frame(b"L") + WELCOME)

    def test_what_the_last_server_still_says_is_dropped(self) -> None:
        mine, its = b"12345678 and more", b"87654321 and more"
        self.assertEqual(self.hear(frame(b"Y", its) + frame(b"F", its[:8] + b"f")), [(b"Y", its), (b"F", b"f")])
        said = frame(b"J", b"12345678j"), frame(b"D", its[:8] + b"x"), frame(b"G"), frame(b"D", b"12345678\0")
        self.assertEqual(self.hear(frame(b"Y", mine) + b"".join(said)), [(b"Y", mine), (b"J", b"j"), (b"D", b"\0")])

    def test_what_one_server_says_inside_of_anothers_frame_makes_no_frame(self) -> None:
        """Whatever the frame has in it: what it lacks in the end is no frame."""
        tag = b"12345678"
        for content in (bytes(65536), b"D" * 65536, b"\xff" * 65536):
            data = frame(b"D", tag + content)
            for said in (1, 5, 13, 30_000, len(data) - 1):
                self.channel.lost, self.channel.tag = False, tag
                self.channel.buffer.clear()
                frames = self.hear(data[:said] + b"\0" * 32768 + data[said:] + frame(b"G", tag))
                self.assertEqual(frames[-1], (b"L", b""), (content[:1], said))
                self.assertNotIn((b"G", b""), frames, (content[:1], said))

    def test_a_server_finds_the_stream_in_order_wherever_the_last_one_stopped(self) -> None:
        whole = frame(b"C", b"x" * 60_000)
        for said in (0, 1, 2, 3, 4, 5, 6, 59_999, len(whole)):
            self.channel.buffer.clear()
            frames = self.hear(whole[:said] + bytes(5 + 2 * 65536) + frame(b"Y", b"nonce"))
            self.assertEqual(frames[-1], (b"Y", b"nonce"), said)

    def test_a_new_server_hears_nothing_until_it_is_welcome(self) -> None:
        self.hear(frame(b"Y", b"nonce"))
        self.channel.send(b"O", b"somebody else's")
        self.channel.welcome()
        self.channel.send(b"R")
        self.assertEqual(os.read(self.server_in, 1000), WELCOME + frame(b"R"))

    def test_a_server_that_does_not_read_is_not_waited_for(self) -> None:
        self.channel.send(b"O", bytes(1 << 20))
        self.assertTrue(self.channel.unheard)
        began = time.monotonic()
        self.channel.send(b"O", bytes(1 << 20))
        self.assertLess(time.monotonic() - began, 0.05)

    def test_a_server_that_speaks_may_be_slow_to_read(self) -> None:
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
        self.assertFalse(self.channel.unheard)
        server.join()
        self.assertEqual(len(received), (1 << 20) + 5)

    def test_what_comes_while_it_sends_is_kept(self) -> None:
        os.write(self.server_out, frame(b"P") + frame(b"K") + frame(b"C", b"x")[:3])
        self.channel.send(b"D", bytes(1 << 20))  # nobody reads
        os.write(self.server_out, frame(b"C", b"x")[3:])
        self.channel.read_available()
        self.assertEqual([self.channel.next_buffered() for _ in range(3)], [(b"K", b""), (b"C", b"x"), None])

    def test_a_server_that_comes_need_not_wait_for_the_last_one(self) -> None:
        os.write(self.server_out, frame(b"Y", b"nonce"))
        self.channel.silence = 60
        self.channel.send(b"D", bytes(1 << 20))  # nobody reads
        self.assertEqual(self.channel.next_buffered(), (b"Y", b"nonce"))
        os.read(self.server_in, 1 << 20)
        self.channel.welcome()
        self.assertEqual(os.read(self.server_in, 1000), WELCOME)

    def test_who_waits_for_the_answer_gets_pongs(self) -> None:
        self.hear(frame(b"Y", b"nonce"))
        self.channel.pong()
        self.assertEqual(os.read(self.server_in, 1000), frame(b"P"))

    def test_a_server_that_is_not_spoken_to_any_more_gets_none(self) -> None:
        self.channel.send(b"D", bytes(1 << 20))  # nobody reads: half of it is in the pipe
        os.read(self.server_in, 1 << 20)
        self.channel.pong()
        os.set_blocking(self.server_in, False)
        with self.assertRaises(BlockingIOError):
            os.read(self.server_in, 1)

    def test_its_time_comes(self) -> None:
        self.assertLess(self.channel.silence_left(), 60.1)
        self.channel.end -= 60.1
        with self.assertRaisesRegex(supervisor.Gone, "expired"):
            self.channel.silence_left()


class BackgroundTest(unittest.TestCase):
    def setUp(self) -> None:
        self.background = session.Background(3)

    def pipes(self, count: int) -> "list[int]":
        reads = []
        for _ in range(count):
            read, write = os.pipe()
            self.addCleanup(os.close, write)
            reads.append(read)
        self.addCleanup(self.close, reads)
        return reads

    def close(self, fds: "list[int]") -> None:
        for fd in fds:
            if fd in self.background.kept:
                self.background.close(fd)

    def test_as_many_jobs_as_there_may_be_processes_can_print(self) -> None:
        reads = self.pipes(7)
        self.assertEqual([self.background.add(fd, False) for fd in reads], [None] * 6 + [reads[0]])

    def test_last_words_are_those_in_the_pipe_as_well(self) -> None:
        read, write = os.pipe()
        self.addCleanup(supervisor.close_all, (read, write))
        os.set_blocking(read, False)
        self.background.add(read, True)
        os.write(write, b"a")
        self.background.drain(read)
        os.write(write, b"b")
        self.assertEqual(self.background.take_last(read), b"ab")
        self.assertEqual(self.background.take_last(read), b"")  # nobody listens

    def test_what_is_kept_is_never_closed_for_others(self) -> None:
        kept, *others = self.pipes(8)
        self.background.add(kept, True)
        self.assertEqual([self.background.add(fd, False) for fd in others], [None] * 6 + [others[0]])


class StagingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.root = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, self.root)
        self.staging = session.Staging(self.root)

    def write(self, path: str, content: bytes) -> None:
        self.staging.begin(path)
        self.staging.add(content)

    def read(self, path: str) -> bytes:
        with open(f"{self.folder}/{path}", "rb") as file:
            return file.read()

    def test_files_are_put_in_place_together(self) -> None:
        self.write("a", b"1")
        self.write("b/c/d", b"2")
        self.assertTrue(all(name.startswith(".vivarium-") for name in os.listdir(self.folder)))
        self.staging.commit()
        self.assertIsNone(self.staging.error)
        self.assertEqual(
            (self.read("a"), self.read("b/c/d"), sorted(os.listdir(self.folder))), (b"1", b"2", ["a", "b"])
        )

    def test_what_is_dropped_is_gone(self) -> None:
        self.write("a", b"1")
        self.staging.drop()
        self.assertEqual(os.listdir(self.folder), [])

    def test_no_link_is_followed(self) -> None:
        outside = tempfile.mkdtemp()
        os.symlink(outside, f"{self.folder}/link")
        self.write("fine", b"1")
        self.write("link/x", b"2")
        self.staging.commit()
        self.assertIsInstance(self.staging.error, OSError)
        self.assertEqual((self.staging.at, os.listdir(outside)), (1, []))
        self.assertEqual(os.listdir(self.folder), ["link"])  # all of them or none

    def test_a_link_is_replaced_itself(self) -> None:
        os.symlink("/etc/passwd", f"{self.folder}/link")
        self.write("link", b"mine")
        self.staging.commit()
        self.assertEqual((self.read("link"), os.path.islink(f"{self.folder}/link")), (b"mine", False))


class StartTest(unittest.TestCase):
    """The beginning of calls."""

    def setUp(self) -> None:
        receive_fd, self.server_out = os.pipe()
        self.server_in, send_fd = os.pipe()
        for fd in (receive_fd, self.server_out, self.server_in, send_fd):
            self.addCleanup(os.close, fd)
        channel = session.SessionChannel(receive_fd, send_fd, 1, time.time() + 60)
        limits = {"timeout_ms": 1000, "output_bytes": 10}
        program = mock.Mock(stdout=10, stderr=11)
        background = session.Background(0)
        self.run_ = session.Call(channel, program, supervisor.Job(limits), WATCHES, background)
        self.session = mock.Mock(channel=channel)
        self.session.sandbox.pressure.look.return_value = [0, 0]
        self.session.begin = lambda: channel.post(b"A")
        self.session.conclude = lambda facts: channel.send(b"Z")

    def said(self) -> bytes:
        os.set_blocking(self.server_in, False)
        try:
            return os.read(self.server_in, 1000)
        except BlockingIOError:
            return b""

    def test_a_call_begins(self) -> None:
        os.write(self.server_out, frame(b"P"))
        self.assertTrue(session.Session.start(self.session, self.run_))
        self.assertTrue(self.said().endswith(frame(b"A")))

    def test_one_that_was_called_off_does_not(self) -> None:
        for said in (frame(b"K"), frame(b"P") + frame(b"K"), frame(b"Y", b"nonce")):
            os.write(self.server_out, said)
            self.assertFalse(session.Session.start(self.session, self.run_), said)
            self.assertNotIn(frame(b"A"), self.said(), said)

    def test_nor_does_one_that_was_called_off_while_this_process_was_frozen(self) -> None:
        flush = self.session.channel.flush

        def freeze() -> None:
            flush()
            os.write(self.server_out, frame(b"K"))

        with mock.patch.object(self.session.channel, "flush", freeze), mock.patch.object(session, "STALE_SECONDS", 0):
            self.assertFalse(session.Session.start(self.session, self.run_))
        self.assertEqual(self.said(), frame(b"A") + frame(b"Z"))


class Odd:
    """A stream with something wrong."""

    @property
    def closed(self) -> bool:
        raise ValueError("underlying buffer has been detached")


class OutputsTest(unittest.TestCase):
    def setUp(self) -> None:
        saved = sys.stdout, sys.stderr
        self.addCleanup(self.restore, *saved)
        self.outputs = session.Outputs()
        self.addCleanup(self.close)

    def close(self) -> None:
        for pipe in self.outputs.pipes.values():
            try:
                os.close(pipe)
            except OSError:
                pass  # the test has

    def restore(self, out: "io.TextIOBase", err: "io.TextIOBase") -> None:
        sys.stdout, sys.stderr = out, err  # type: ignore[assignment]

    def test_streams_are_mended_whatever_is_wrong_with_them(self) -> None:
        detached = io.TextIOWrapper(io.BytesIO())
        detached.detach()
        for broken in (detached, Odd(), None):
            sys.stdout = sys.stderr = broken  # type: ignore[assignment]
            self.outputs.mend()
            self.assertEqual((sys.stdout.fileno(), sys.stderr.fileno()), (1, 2), broken)
        del sys.stdout, sys.stderr
        self.outputs.mend()
        self.assertEqual((sys.stdout.fileno(), sys.stderr.fileno()), (1, 2))

    def test_a_stream_of_the_programs_own_stays(self) -> None:
        sys.stdout = mine = io.StringIO()
        self.outputs.mend()
        self.assertIs(sys.stdout, mine)

    def test_pipes_that_are_gone_stop_no_cell(self) -> None:
        sys.stdout = None  # type: ignore[assignment]
        for fd, pipe in self.outputs.pipes.items():
            os.close(pipe)
            self.outputs.pipes[fd] = 1 << 20  # no descriptor
        self.outputs.mend()


class StdinTest(unittest.TestCase):
    def setUp(self) -> None:
        saved = os.dup(0)
        self.addCleanup(os.close, saved)
        self.addCleanup(os.dup2, saved, 0)

    def make(self, data: bytes) -> TextIO:
        """A standard input, of a source that has more."""
        with tempfile.TemporaryFile() as source:
            source.write(data + b"code")
            source.seek(0)
            stdin = session.make_stdin(source.fileno(), len(data))
            self.assertEqual(os.read(source.fileno(), 10), b"code")
        return stdin

    def test_there_is_one_copy_of_it(self) -> None:
        data = bytes(1 << 22)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.make(data) as stdin:
            copies = tracemalloc.get_traced_memory()[1] - len(data)  # what the test itself joins
            self.assertLess(copies, 1 << 20)
            self.assertEqual(stdin.read(), data.decode())

    def test_it_is_the_childrens_as_well(self) -> None:
        with self.make(b"a\nb\xff"):
            self.assertEqual(subprocess.run(["cat"], capture_output=True).stdout, b"a\nb\xff")
        with self.make("é\n".encode()) as stdin:
            self.assertEqual((stdin.fileno(), stdin.readline(), stdin.readline()), (0, "é\n", ""))
        with self.make(b""):
            self.assertEqual(subprocess.run(["cat"], capture_output=True).stdout, b"")

    def test_it_is_there_without_a_file_too(self) -> None:
        with mock.patch.object(os, "memfd_create", side_effect=OSError(EMFILE, "too many")):
            self.assertEqual(self.make(b"a").read(), "a")


class Undying(session.Child):
    """A process that was killed and takes its time to go."""

    def __init__(self, family: session.Family, end_fd: int) -> None:
        self.family, self.end_fd = family, end_fd
        self.ending = None
        self.signals: "list[int]" = []

    def signal(self, number: int) -> None:
        self.signals.append(number)


class FamilyTest(unittest.TestCase):
    def setUp(self) -> None:
        for patch in (mock.patch.object(session, "BURY_SECONDS", 0.05), mock.patch.object(os, "kill")):
            patch.start()
            self.addCleanup(patch.stop)
        self.family = session.Family()
        self.never, ring = os.pipe()
        self.addCleanup(supervisor.close_all, (self.never, ring, self.family.bell))
        self.addCleanup(signal.set_wakeup_fd, -1)
        self.addCleanup(signal.signal, signal.SIGCHLD, signal.SIG_DFL)

    def test_a_killed_process_that_does_not_go_ends_nothing_else(self) -> None:
        child = Undying(self.family, self.never)
        self.assertEqual(child.end().status, signal.SIGKILL)
        self.assertIsNotNone(child.ending)
        self.assertIn(signal.SIGKILL, child.signals)

    def test_nor_do_all_of_them(self) -> None:
        self.family.kill()


class CellCallTest(unittest.TestCase):
    def setUp(self) -> None:
        self.stdin, self.program_in = os.pipe()
        self.addCleanup(supervisor.close_all, (self.stdin, self.program_in))

    def call(self, stdin: bytes, code: bytes) -> session.CellCall:
        """A call of which nothing is sent yet."""
        job = supervisor.Job({"output_bytes": 1, "timeout_ms": 1, "interactive": 1, "cpu_seconds": 5})
        job.stdin, job.code = bytearray(stdin), bytearray(code)
        program = types.SimpleNamespace(stdin=self.program_in, stdout=1, stderr=2)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        call = session.CellCall(None, program, job, WATCHES, session.Background(0))  # type: ignore[arg-type]
        call.poll.register(self.program_in)
        return call

    def test_all_of_a_cell_is_sent(self) -> None:
        call = self.call(b"in", b"code")
        while call.stdin:
            call.feed()
        self.assertEqual(session.CELL.unpack(session.read_exactly(self.stdin, session.CELL.size)), (True, 5, 2, 4))
        self.assertEqual(session.read_exactly(self.stdin, 2), b"in")
        self.assertEqual(session.read_exactly(self.stdin, 4), b"code")

    def test_it_is_known_whether_it_was_taken(self) -> None:
        for read, untaken in ((False, True), (True, False)):
            call = self.call(b"in", b"code")
            while call.stdin:
                call.feed()
            if read:
                os.read(self.stdin, 1000)
            call.close()
            self.assertEqual(call.untaken, untaken)
            os.read(self.stdin, 0 if read else 1000)

    def test_one_that_nobody_reads_is_not(self) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, self.stdin)
        os.close(null)
        call = self.call(b"in", b"code")
        while call.stdin:
            call.feed()
        call.close()
        self.assertTrue(call.untaken)

    def test_none_of_it_is_copied(self) -> None:
        call = self.call(bytes(1 << 23), bytes(1 << 23))
        while call.stdin:
            call.feed()
            os.read(self.stdin, 1 << 16)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)


class NotebookTest(unittest.TestCase):
    def setUp(self) -> None:
        saved = sys.modules["__main__"], sys.argv[:], sys.path[:], sys.stdout, sys.stderr
        self.addCleanup(self.restore, *saved)
        for number in (signal.SIGINT, signal.SIGXCPU, signal.SIGALRM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.notebook = session.Notebook(tempfile.mkdtemp())
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

    def test_tracebacks_have_lines_and_no_frames_of_ours(self) -> None:
        self.notebook.run_cell(b"def f():\n    1 / 0\nf()", True)
        self.assertRegex(self.err.getvalue(), r'(?s)File "<cell 1>", line 3.*f\(\).*line 2, in f.*1 / 0')
        self.assertNotIn("session.py", self.err.getvalue())

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

    def test_lines_end_where_they_do_for_the_interpreter(self) -> None:
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

    def test_a_handler_that_puts_itself_back_is_no_worse(self) -> None:
        self.notebook.run_cell(
            b"import signal\ndef ring(*_):\n    signal.signal(signal.SIGALRM, ring)\n    1 / 0\nring()", False
        )
        for _ in range(3):
            signal.raise_signal(signal.SIGALRM)
        self.assertEqual(self.err.getvalue().count("ZeroDivisionError"), 4)

    def test_each_cell_can_be_interrupted(self) -> None:
        self.notebook.run_cell(b"import signal\nsignal.signal(signal.SIGINT, lambda *_: None)", False)
        self.assertEqual(self.notebook.run_cell(b"signal.raise_signal(signal.SIGINT)", False), 130 << 8)

    def test_interrupts_reach_cells_alone(self) -> None:
        self.notebook.interrupt()
        self.notebook.busy = True
        with self.assertRaises(KeyboardInterrupt):
            self.notebook.interrupt()

    def test_an_interrupted_cell_saves_no_figures(self) -> None:
        saved: "list[str]" = []
        with mock.patch.object(session.shows, "save_open_figures", lambda: saved.append("figures")):
            for code in (b"1", b"1 / 0", b"raise KeyboardInterrupt"):
                self.notebook.run_cell(code, False)
        self.assertEqual(len(saved), 2)

    def test_a_fork_saves_no_figures(self) -> None:
        saved: "list[str]" = []
        with mock.patch.object(session.shows, "save_open_figures", lambda: saved.append("figures")):
            self.notebook.process += 1  # as if this were one
            self.notebook.run_cell(b"1", False)
        self.assertEqual(saved, [])

    def test_interrupts_come_again_but_leave_time_to_heed_them(self) -> None:
        self.notebook.busy = True
        with self.assertRaises(KeyboardInterrupt):
            self.notebook.interrupt()
        self.notebook.interrupt()  # it may be cleaning up
        self.notebook.interrupted -= session.HEED_SECONDS
        with self.assertRaises(KeyboardInterrupt):
            self.notebook.interrupt()


if __name__ == "__main__":
    unittest.main()
