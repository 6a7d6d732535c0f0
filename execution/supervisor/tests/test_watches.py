"""The tests of watches.py. They run in a sandbox, as any program does."""

import unittest

from unittest import mock

import memory
import watches


class QuietTest(unittest.TestCase):
    def quiet(self, limit: int, sockets: "list[int]") -> "list[bool]":
        network = mock.Mock()
        network.sockets.side_effect = sockets
        both = watches.Watches(
            memory.MemoryWatch(limit, (), network, memory.Residents()), watches.KernelWatch(network, memory.Residents())
        )
        return [both.is_quiet() for _ in range(4)]

    def test_a_sandbox_is_quiet_while_its_sockets_stay_the_same(self) -> None:
        self.assertEqual(self.quiet(0, [3, 3, 4, 4]), [False, True, False, True])

    def test_a_sandbox_with_many_sockets_is_never_quiet(self) -> None:
        self.assertEqual(self.quiet(0, [17, 17, 17, 17]), [False] * 4)

    def test_a_sandbox_without_a_cgroup_is_never_quiet(self) -> None:
        self.assertEqual(self.quiet(1 << 20, [3, 3, 3, 3]), [False] * 4)
