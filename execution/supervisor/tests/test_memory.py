"""Tests of memory.py. They run in a sandbox, like any program."""

import tempfile
import time
import unittest

from unittest import mock

import memory
import network


class MemoryWatchTest(unittest.TestCase):
    """Checks processes under a limit of 100. They are given as {(pid, parent): memory}."""

    def setUp(self) -> None:
        self.watch = memory.MemoryWatch(100, (), network.Network(), memory.Residents())
        self.now = 1000.0

    def look(
        self, processes: "dict[tuple[int, int], int]", later: float = 0.05, gone: "tuple[int, ...]" = ()
    ) -> "list[int]":
        """Checks after a while. Returns the processes that it has killed, or has tried to kill."""
        self.now += later
        killed: "list[int]" = []
        with (
            mock.patch.object(memory, "SMALL", 10),
            mock.patch.object(time, "monotonic", lambda: self.now),
            mock.patch.object(memory, "pids", lambda: [pid for pid, _ in processes]),
            mock.patch.object(memory, "parent_of", dict(processes.keys()).__getitem__),
            mock.patch.object(memory, "memory_of", lambda pid: {p: has for (p, _), has in processes.items()}[pid]),
            mock.patch.object(memory, "share_of", lambda pid, most: most),
            mock.patch.object(memory, "kill_quietly", lambda pid: killed.append(pid) or pid not in gone),
        ):
            self.watch.check()
        return killed

    def test_what_belongs_to_no_run_is_spared(self) -> None:
        residents = self.watch.residents
        residents.zygotes, residents.program = frozenset((7, 8)), 12
        others = {
            (7, 1): 60,
            (8, 7): 90,
            (9, 7): 60,
            (10, 8): 90,
            (11, 8): 90,
        }  # zygotes, inits, and a program that waits
        self.assertEqual(self.look({**others, (12, 7): 90}), [])
        self.assertEqual(self.look({**others, (12, 7): 40, (13, 12): 61, (14, 9): 1}), [13])

    def test_within_the_limit(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 40}), [])

    def test_the_largest_is_killed(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 1): 41}), [7])

    def test_checks_are_spaced(self) -> None:
        self.assertEqual(self.look({(7, 1): 60}), [])
        self.assertEqual(self.look({(7, 1): 101}, later=0.01), [])
        self.assertEqual(self.look({(7, 1): 101}), [7])

    def test_a_process_that_starts_another_program_is_spared(self) -> None:
        for pid in range(8, 20):
            self.assertEqual(self.look({(7, 1): 60, (pid, 7): 60}), [])

    def test_it_is_spared_only_briefly(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 60}), [])
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 60}, later=0.3), [7])

    def test_each_parent_has_one_starting_child(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 60, (9, 7): 60}), [7])
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 60, (9, 8): 60}), [7])  # the parent of 9 is one itself

    def test_all_are_killed_if_the_largest_escapes(self) -> None:
        self.assertEqual(self.look({(7, 1): 12, (8, 1): 101, (9, 1): 2}, gone=(8,)), [8] * memory.KILL_ROUNDS + [7, 8])
        self.assertEqual(self.watch.kills, 1)

    def test_a_process_that_passes_its_memory_on_is_killed(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 1): 60}), [7])
        self.setUp()
        self.assertEqual(self.look({(9, 1): 60}), [])
        self.assertEqual(self.look({(11, 1): 60, (12, 1): 60}), [11])


class CounterTest(unittest.TestCase):
    def test_the_first_existing_file_is_read(self) -> None:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("low 1\noom_kill 7\n")
            file.flush()
            oom = memory.Counter(("/nowhere", file.name), "oom_kill")
            self.assertEqual(oom.read(), 7)
            self.assertEqual(memory.Counter((file.name,), "max").read(), 0)
            self.assertEqual(memory.Counter(("/nowhere",), "max").read(), 0)
            file.seek(0)
            file.write("low 1\noom_kill 9\n")
            file.flush()
            self.assertEqual(oom.read(), 9)
