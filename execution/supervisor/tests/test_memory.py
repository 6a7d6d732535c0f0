"""Tests of memory.py. They run in a sandbox, like any program."""

import os
import signal
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


class CountedWatchTest(unittest.TestCase):
    """Checks processes under a limit of 100 of what a cgroup counts. They are given as {pid: memory}."""

    def setUp(self) -> None:
        self.count = 0
        cgroup = mock.Mock(used=lambda enough: self.count)
        self.watch = memory.MemoryWatch(100, (), network.Network(), memory.Residents(), cgroup=cgroup)
        self.now = 1000.0

    def look(self, count: int, processes: "dict[int, int]", ending: "tuple[int, ...]" = ()) -> "list[int]":
        """Checks after a while. Returns the processes that it has killed."""
        self.now += 0.05
        self.count = count
        killed: "list[int]" = []
        with (
            mock.patch.object(time, "monotonic", lambda: self.now),
            mock.patch.object(memory, "pids", lambda: list(processes)),
            mock.patch.object(memory, "memory_of", processes.__getitem__),
            mock.patch.object(memory, "is_ending", lambda pid: pid in ending),
            mock.patch.object(memory, "kill_quietly", lambda pid: killed.append(pid) or True),
        ):
            self.watch.check()
        return killed

    def test_what_processes_share_counts_once(self) -> None:
        self.assertEqual(self.look(90, {7: 60, 8: 60, 9: 60}), [])

    def test_the_largest_is_killed(self) -> None:
        self.assertEqual(self.look(110, {7: 20, 8: 60}), [8])

    def test_all_are_killed_if_what_they_have_is_not_enough(self) -> None:
        self.assertEqual(self.look(190, {7: 10, 8: 20}), [8, 7])
        self.assertEqual(self.watch.kills, 2)

    def test_the_rest_is_spared_while_a_process_ends(self) -> None:
        self.assertEqual(self.look(110, {7: 20, 8: 60}), [8])
        self.assertEqual(self.look(105, {7: 20, 8: 0}, ending=(8,)), [])
        self.assertEqual(self.look(161, {7: 80, 8: 0}, ending=(8,)), [7])  # it has taken more meanwhile
        self.assertEqual(self.look(30, {}), [])

    def test_the_next_is_killed_if_that_was_not_enough(self) -> None:
        self.assertEqual(self.look(110, {7: 20, 8: 60}), [8])
        self.assertEqual(self.look(105, {7: 20}), [7])

    def test_nothing_is_killed_if_there_is_no_program(self) -> None:
        self.assertEqual(self.look(200, {}), [])

    def test_checks_are_closer_near_the_limit(self) -> None:
        self.watch.limit = 256 << 20
        pauses = []
        for left in (256, 128, 64, 1, -9):
            self.look((256 - left) << 20, {})
            pauses.append(round(self.watch.pause * 1000))
        self.assertEqual(pauses, [50, 31, 16, 5, 5])


class CgroupTest(unittest.TestCase):
    """Reads files as the kernel has them."""

    def cgroup(self, files: "dict[str, str]") -> memory.Cgroup:
        """Returns the cgroup whose files have these contents."""
        folder = self.enterContext(tempfile.TemporaryDirectory())
        os.mkdir(f"{folder}/memory")
        for name, content in files.items():
            with open(f"{folder}/{name}", "w") as file:
                file.write(content)
        return memory.Cgroup(folder)

    def test_version_2(self) -> None:
        stat = "anon 400\nfile 300\ninactive_anon 1\ninactive_file 200\nactive_file 50\nslab_reclaimable 30\nworkingset_x 9\n"
        cgroup = self.cgroup({"memory.max": "2000\n", "memory.current": "1000\n", "memory.stat": stat})
        self.assertTrue(cgroup.exists())
        self.assertEqual((cgroup.used(999), cgroup.used(1000)), (720, 1000))

    def test_version_1(self) -> None:
        files = {"limit_in_bytes": "2000\n", "usage_in_bytes": "1000\n"}
        stat = {"memory/memory.stat": "cache 9\ninactive_file 200\nactive_file 50\ntotal_inactive_file 200\n"}
        cgroup = self.cgroup({**{f"memory/memory.{name}": text for name, text in files.items()}, **stat})
        self.assertEqual(cgroup.used(0), 750)

    def test_cgroups_without_a_limit_are_not_of_the_sandbox(self) -> None:
        self.assertFalse(self.cgroup({}).exists())
        self.assertFalse(self.cgroup({"memory.max": "max\n", "memory.current": "1\n", "memory.stat": ""}).exists())
        most = {"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "1\n"}
        self.assertFalse(self.cgroup({**most, "memory/memory.stat": ""}).exists())


class EndingTest(unittest.TestCase):
    def test_a_process_has_memory_until_it_is_a_zombie(self) -> None:
        child = os.fork()
        if child == 0:
            signal.pause()
        self.assertTrue(memory.is_ending(child))
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        self.assertFalse(memory.is_ending(child))
        os.waitpid(child, 0)
        self.assertFalse(memory.is_ending(child))


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
