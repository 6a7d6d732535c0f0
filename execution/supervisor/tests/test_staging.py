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

    def test_folders_and_modes(self) -> None:
        self.staging.begin("a/empty/")
        self.write("run\0x", b"1")
        self.write("plain", b"2")
        self.staging.commit()
        self.assertIsNone(self.staging.error)
        modes = {name: os.stat(f"{self.folder}/{name}").st_mode & 0o777 for name in ("a/empty", "run", "plain")}
        self.assertEqual(modes, {"a/empty": 0o755, "run": 0o755, "plain": 0o644})

    def test_a_folder_cannot_replace_a_file(self) -> None:
        self.write("a", b"1")
        self.staging.commit()
        self.staging = staging.Staging(self.root)
        for path in ("new", "b/", "b/"):
            self.staging.begin(path)
        self.staging.begin("a/")
        self.staging.commit()
        self.assertIsInstance(self.staging.error, OSError)
        self.assertEqual((self.staging.at, os.listdir(self.folder)), (3, ["a"]))
