"""Tests of run.py. They run in a sandbox, like any program."""

import os
import select
import struct
import time
import unittest

import channel
import handover
import memory
import network
import process
import program
import run
import watches


class JobTest(unittest.TestCase):
    def test_parts_arrive_in_pieces(self) -> None:
        job = run.Job({})
        for kind in (b"C", b"I", b"V", b"W"):
            job.add(kind, kind)
            job.add(kind, b"!")
        self.assertEqual((job.code, job.stdin, job.variables, job.arguments), (b"C!", b"I!", b"V!", b"W!"))
        job.clear()
        self.assertFalse(job.code or job.stdin or job.variables or job.arguments)


class EndingProgram(process.Program):
    """A program that prints, and ends after some checks whether it has."""

    def __init__(self, pipes: handover.Pipes, checks: int) -> None:
        super().__init__(pipes.ours, pipes.done)
        self.checks = checks

    def ended(self, ready: "list[int]") -> bool:
        self.checks -= 1
        return self.checks == 0


class RunTest(unittest.TestCase):
    def setUp(self) -> None:
        received, send_fd = os.pipe()
        self.pipes = handover.Pipes()
        for fd in (received, send_fd, *self.pipes.ours, *self.pipes.theirs):
            self.addCleanup(os.close, fd)
        self.sender = channel.Channel(channel.Descriptors(received, send_fd), 1)

    def run_of(self, program: process.Program) -> run.Run:
        limits = {"output_bytes": 150_000, "timeout_ms": 1000}
        kept = watches.Watches(
            memory.MemoryWatch(0, (), network.Network(), memory.Residents()),
            watches.KernelWatch(network.Network(), memory.Residents()),
        )
        return run.Run(self.sender, program, run.Job(limits), kept)

    def test_output_waits_a_moment_for_the_end(self) -> None:
        _, stdout, *_ = self.pipes.theirs
        for checks, held in ((1, True), (10, False)):
            running = self.run_of(EndingProgram(self.pipes, checks))
            running.deadline = time.monotonic() + 60
            running.poll.register(running.program.stdout, select.POLLIN)
            os.write(stdout, b"42")
            running.await_end()
            self.assertEqual(bool(self.sender.posted), held, checks)
            self.sender.posted.clear()

    def test_no_frame_is_larger_than_the_server_accepts(self) -> None:
        program = process.Program(self.pipes.ours, self.pipes.done)
        running = self.run_of(program)
        running.post_output(program.stdout, b"x" * 200_000)
        sizes = []
        while self.sender.posted:
            (size,) = struct.unpack_from(">I", self.sender.posted, 1)
            sizes.append(size)
            del self.sender.posted[: 5 + size]
        self.assertEqual(sizes, [65536, 65536, 150_000 - 2 * 65536, 0])  # the last reports that more was printed
