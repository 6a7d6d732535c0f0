"""Tests of staging.py. They run in a sandbox, like any program."""

import os
import tempfile
import unittest

import staging


class StagingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.root = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, self.root)
        self.staging = staging.Staging(self.root)

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

    def test_dropped_files_are_deleted(self) -> None:
        self.write("a", b"1")
        self.staging.drop()
        self.assertEqual(os.listdir(self.folder), [])

    def test_links_are_not_followed(self) -> None:
        outside = tempfile.mkdtemp()
        os.symlink(outside, f"{self.folder}/link")
        self.write("fine", b"1")
        self.write("link/x", b"2")
        self.staging.commit()
        self.assertIsInstance(self.staging.error, OSError)
        self.assertEqual((self.staging.at, os.listdir(outside)), (1, []))
        self.assertEqual(os.listdir(self.folder), ["link"])  # all files or none

    def test_a_link_is_replaced_itself(self) -> None:
        os.symlink("/etc/passwd", f"{self.folder}/link")
        self.write("link", b"mine")
        self.staging.commit()
        self.assertEqual((self.read("link"), os.path.islink(f"{self.folder}/link")), (b"mine", False))
