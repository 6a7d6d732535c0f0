"""Tests of outputs.py. They run in a sandbox, like any program."""

import io
import os
import sys
import tempfile
import unittest

import outputs


class BrokenStream:
    """A stream that raises when asked whether it is closed."""

    @property
    def closed(self) -> bool:
        raise ValueError("underlying buffer has been detached")


class OutputsTest(unittest.TestCase):
    def setUp(self) -> None:
        saved = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
        self.addCleanup(self.restore, *saved)
        self.outputs = outputs.Outputs()
        self.addCleanup(self.close)

    def close(self) -> None:
        for pipe in self.outputs.pipes.values():
            try:
                os.close(pipe)
            except OSError:
                pass  # the test has closed it

    def restore(self, *streams: "io.TextIOWrapper") -> None:
        sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]

    def test_broken_streams_are_repaired(self) -> None:
        detached = io.TextIOWrapper(io.BytesIO())
        detached.detach()
        for broken in (detached, BrokenStream(), None):
            sys.stdout = sys.stderr = broken  # type: ignore[assignment]
            self.outputs.repair()
            self.assertEqual((sys.stdout.fileno(), sys.stderr.fileno()), (1, 2), broken)
        del sys.stdout, sys.stderr
        self.outputs.repair()
        self.assertEqual((sys.stdout.fileno(), sys.stderr.fileno()), (1, 2))

    def test_the_programs_own_stream_stays(self) -> None:
        sys.stdout = mine = io.StringIO()
        self.outputs.repair()
        self.assertIs(sys.stdout, mine)

    def test_cells_run_without_their_pipes(self) -> None:
        sys.stdout = None  # type: ignore[assignment]
        for fd, pipe in self.outputs.pipes.items():
            os.close(pipe)
            self.outputs.pipes[fd] = 1 << 20  # not a descriptor
        self.outputs.repair()

    def test_a_collected_wrapper_closes_nothing(self) -> None:
        for _ in range(3):
            sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
        self.assertFalse(sys.stdout.closed)

    def test_wrappers_and_files_are_flushed(self) -> None:
        read, write = os.pipe()
        saved = os.dup(1)
        self.addCleanup(os.dup2, saved, 1)
        os.dup2(write, 1)
        mine = outputs.Outputs()
        self.assertFalse(mine.is_wrapped())
        wrapper = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
        self.assertTrue(mine.is_wrapped())
        file = tempfile.NamedTemporaryFile("w")
        for stream in (wrapper, file):
            stream.write("kept")
        mine.flush()
        self.assertEqual(os.read(read, 10), b"kept")
        with open(file.name) as written:
            self.assertEqual(written.read(), "kept")

    def test_full_pipes_are_not_waited_for(self) -> None:
        _, write = os.pipe()
        with open(write, "wb") as stream:
            self.assertFalse(self.outputs.is_due(write))
            stream.write(b"x")
            self.outputs.flush()

    def test_a_file_in_the_place_of_another_descriptor_is_found(self) -> None:
        spare = os.open(os.devnull, os.O_WRONLY)
        mine = outputs.Outputs()
        self.assertFalse(mine.has_due())
        file = tempfile.NamedTemporaryFile("w")
        self.addCleanup(file.close)
        os.close(spare)  # as many descriptors are open as before
        file.write("kept")
        mine.flush()
        with open(file.name) as written:
            self.assertEqual(written.read(), "kept")
