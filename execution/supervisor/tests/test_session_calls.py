"""Tests of session_calls.py. They run in a sandbox, like any program."""

import os
import tracemalloc
import types
import unittest

import handover
import kernel
import memory
import network
import notebook
import run
import session_calls
import watches


WATCHES = watches.Watches(
    memory.MemoryWatch(0, (), network.Network(), memory.Residents()),
    watches.KernelWatch(network.Network(), memory.Residents()),
)


class BackgroundTest(unittest.TestCase):
    def setUp(self) -> None:
        self.background = session_calls.Background(3)

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

    def test_each_allowed_process_can_print(self) -> None:
        reads = self.pipes(7)
        self.assertEqual([self.background.add(fd, False) for fd in reads], [None] * 6 + [reads[0]])

    def test_last_output_includes_the_pipe(self) -> None:
        read, write = os.pipe()
        self.addCleanup(kernel.close_all, (read, write))
        os.set_blocking(read, False)
        self.background.add(read, True)
        os.write(write, b"a")
        self.background.drain(read)
        os.write(write, b"b")
        self.assertEqual(self.background.take_last(read), b"ab")
        self.assertEqual(self.background.take_last(read), b"")  # the pipe was removed

    def test_kept_pipes_are_never_closed_for_others(self) -> None:
        kept, *others = self.pipes(8)
        self.background.add(kept, True)
        self.assertEqual([self.background.add(fd, False) for fd in others], [None] * 6 + [others[0]])


class CellCallTest(unittest.TestCase):
    def setUp(self) -> None:
        self.stdin, self.program_in = os.pipe()
        self.addCleanup(kernel.close_all, (self.stdin, self.program_in))

    def call(self, stdin: bytes, code: bytes, variables: bytes = b"", arguments: bytes = b"") -> session_calls.CellCall:
        """Returns a call that has sent nothing yet."""
        job = run.Job({"output_bytes": 1, "timeout_ms": 1, "interactive": 1, "cpu_seconds": 5})
        job.variables, job.arguments = bytearray(variables), bytearray(arguments)
        job.stdin, job.code = bytearray(stdin), bytearray(code)
        program = types.SimpleNamespace(stdin=self.program_in, stdout=1, stderr=2)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        call = session_calls.CellCall(None, program, job, WATCHES, session_calls.Background(0))  # type: ignore[arg-type]
        call.poll.register(self.program_in)
        return call

    def test_all_of_a_cell_is_sent(self) -> None:
        call = self.call(b"in", b"code", b"A=1\0", b"-v\0-\0")
        while call.stdin:
            call.feed()
        head = handover.CELL.unpack(notebook.read_exactly(self.stdin, handover.CELL.size))
        self.assertEqual(head, (True, 5, 2, 4, 5, 4))
        self.assertEqual(notebook.read_exactly(self.stdin, 2), b"in")
        self.assertEqual(notebook.read_exactly(self.stdin, 4), b"A=1\0")
        self.assertEqual(notebook.read_exactly(self.stdin, 5), b"-v\0-\0")
        self.assertEqual(notebook.read_exactly(self.stdin, 4), b"code")

    def test_an_unread_cell_is_untaken(self) -> None:
        for read, untaken in ((False, True), (True, False)):
            call = self.call(b"in", b"code")
            while call.stdin:
                call.feed()
            if read:
                os.read(self.stdin, 1000)
            call.close()
            self.assertEqual(call.untaken, untaken)
            os.read(self.stdin, 0 if read else 1000)

    def test_a_cell_without_a_reader_is_untaken(self) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, self.stdin)
        os.close(null)
        call = self.call(b"in", b"code")
        while call.stdin:
            call.feed()
        call.close()
        self.assertTrue(call.untaken)

    def test_a_cell_is_not_copied(self) -> None:
        call = self.call(bytes(1 << 23), bytes(1 << 23))
        while call.stdin:
            call.feed()
            os.read(self.stdin, 1 << 16)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)
