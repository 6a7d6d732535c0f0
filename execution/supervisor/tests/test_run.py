"""Tests of run.py. They run in a sandbox, like any program."""

import os
import struct
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


class RunTest(unittest.TestCase):
    def test_no_frame_is_larger_than_the_server_accepts(self) -> None:
        received, send_fd = os.pipe()
        pipes = handover.Pipes()
        for fd in (received, send_fd, *pipes.ours, *pipes.theirs):
            self.addCleanup(os.close, fd)
        sender = channel.Channel(received, send_fd, 1)
        program = process.Program(pipes.ours, pipes.done)
        running = run.Run(
            sender,
            program,
            run.Job({"output_bytes": 150_000, "timeout_ms": 1000}),
            watches.Watches(memory.MemoryWatch(0, (), network.Network()), watches.KernelWatch(network.Network())),
        )
        running.post_output(program.stdout, b"x" * 200_000)
        sizes = []
        while sender.posted:
            (size,) = struct.unpack_from(">I", sender.posted, 1)
            sizes.append(size)
            del sender.posted[: 5 + size]
        self.assertEqual(sizes, [65536, 65536, 150_000 - 2 * 65536, 0])  # the last reports that more was printed
