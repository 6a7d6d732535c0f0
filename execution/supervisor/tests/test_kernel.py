"""Tests of kernel.py. They run in a sandbox, like any program."""

import resource
import unittest

from unittest import mock

import kernel


class HugePagesTest(unittest.TestCase):
    def test_memory_keeps_its_content(self) -> None:
        content = bytearray(range(256)) * (1 << 14)
        kernel.use_huge_pages()
        self.assertEqual(content, bytearray(range(256)) * (1 << 14))


class LimitTest(unittest.TestCase):
    def test_a_lower_limit_stays(self) -> None:
        infinity = resource.RLIM_INFINITY
        for standing, asked, want in (
            (100, (1024, 1024), (100, 100)),
            (4096, (1024, 1024), (1024, 1024)),
            (infinity, (5, 6), (5, 6)),
            (7, (5, infinity), (5, 7)),
            (infinity, (5, infinity), (5, infinity)),
        ):
            with mock.patch("resource.getrlimit", return_value=(1, standing)), mock.patch(
                "resource.setrlimit"
            ) as set_it:
                kernel.limit(resource.RLIMIT_NOFILE, *asked)
            set_it.assert_called_once_with(resource.RLIMIT_NOFILE, want)
