"""Tests of session_files.py. They run in a sandbox, like any program."""

import os
import stat
import tempfile
import unittest

from unittest import mock

import session_files


class SessionFilesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.root = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, self.root)
        self.outside = tempfile.mkdtemp()
        self.channel = mock.Mock(posted=b"", showing_life=iter)

    def make(self, *paths: str) -> None:
        """Makes files, and a folder for each path that ends with a slash."""
        for path in paths:
            os.makedirs(os.path.dirname(f"{self.folder}/{path}"), exist_ok=True)
            if not path.endswith("/"):
                with open(f"{self.folder}/{path}", "w") as file:
                    file.write(path)

    def found(self, path: str = "", most: int = 100) -> "list[str]":
        return [entry.path for entry in session_files.below_path(self.root, path, [most])]

    def test_a_folder_precedes_what_it_contains(self) -> None:
        self.make("b/x", "a", "b/c/", "c")
        self.assertEqual(self.found(), ["a", "b", "b/c", "b/x", "c"])
        self.assertEqual(self.found("b"), ["b/c", "b/x"])
        self.assertEqual(self.found("b/x"), ["b/x"])
        self.assertEqual(self.found("b/c"), [])

    def test_links_are_not_followed(self) -> None:
        self.make("a/b")
        os.symlink(self.folder, f"{self.folder}/a/link")
        self.assertEqual(self.found(), ["a", "a/b", "a/link"])
        self.assertEqual(self.found("a/link"), ["a/link"])
        for call in (
            lambda: self.found("a/link/a"),
            lambda: session_files.delete(self.channel, self.root, "a/link/a/b"),
            lambda: session_files.move(self.root, "a/link/a/b", "c"),
            lambda: session_files.move(self.root, "a/b", "a/link/c"),
        ):
            self.assertRaises(OSError, call)
        self.assertEqual(self.found(), ["a", "a/b", "a/link"])

    def test_a_list_is_cut(self) -> None:
        self.make("a/1", "a/2", "b", "c")
        for most in range(5):
            left = [most]
            entries = session_files.below_path(self.root, "", left)
            session_files.send_list(self.channel, entries, left)
            posted = [call.args for call in self.channel.post.call_args_list]
            self.channel.post.reset_mock()
            self.assertEqual([kind for kind, _ in posted], [b"M"] * most + [b"S"])
            self.assertEqual(
                posted[-1][1], b"\0" + f"there are more than {most} entries; the list was cut here".encode()
            )
        self.assertEqual(len(self.found(most=5)), 5)

    def test_what_is_sent_of_an_entry(self) -> None:
        self.make("a b", "c/")
        os.chmod(f"{self.folder}/a b", 0o700)
        for path in ("a b", "c"):
            os.utime(f"{self.folder}/{path}", ns=(0, 1_500_000))
        with open(os.fsencode(self.folder) + b"/\xff", "w"):
            pass
        session_files.send_list(self.channel, session_files.below_path(self.root, "", [9]), [9])
        sent = [call.args for call in self.channel.post.call_args_list]
        self.assertEqual(
            [args for args in sent if args[0] == b"M"], [(b"M", b"file 3 1 1 a b"), (b"M", b"folder 0 1 1 c")]
        )
        self.assertIn(b"not valid UTF-8", sent[-1][1])

    def test_a_folder_is_deleted_and_what_links_lead_to_is_not(self) -> None:
        self.make("a/b/c", "a/d", "e")
        os.symlink(self.outside, f"{self.folder}/a/link")
        with open(f"{self.outside}/kept", "w"):
            pass
        os.chmod(f"{self.folder}/a/b", 0)
        session_files.delete(self.channel, self.root, "a")
        self.assertEqual((self.found(), os.listdir(self.outside)), (["e"], ["kept"]))
        session_files.delete(self.channel, self.root, "e")
        self.assertEqual(self.found(), [])
        self.assertRaises(FileNotFoundError, session_files.delete, self.channel, self.root, "e")

    def test_only_a_file_replaces_a_file(self) -> None:
        self.make("a", "b", "c/", "d/x")
        os.symlink("a", f"{self.folder}/link")
        for path, target in (("a", "c"), ("c", "a"), ("c", "d"), ("a", "link"), ("d", "d/e")):
            self.assertRaises(OSError, session_files.check_target, self.root, path, target)
        for path, target in (("a", "b"), ("a", "a"), ("d", "d"), ("d", "new/d"), ("link", "moved")):
            session_files.check_target(self.root, path, target)
        session_files.move(self.root, "a", "b")
        session_files.move(self.root, "d", "new/d")
        self.assertEqual(self.found(), ["b", "c", "link", "new", "new/d", "new/d/x"])
        self.assertTrue(stat.S_ISLNK(session_files.kind_of(self.root, "link")))
