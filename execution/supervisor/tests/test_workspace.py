"""Tests of workspace.py. They run in a sandbox, like any program."""

import os
import sys
import tempfile
import time
import unittest

from errno import EBUSY, EWOULDBLOCK
from unittest import mock

import channel
import cleanup
import kernel
import program
import workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class WorkspaceTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = folder.name
        self.root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, self.root)
        pipe = os.pipe()
        self.addCleanup(kernel.close_all, pipe)
        self.channel = channel.Channel(channel.Descriptors(*pipe), 1)

    def write(self, path: str, text: str = "x") -> None:
        os.makedirs(os.path.dirname(f"{self.path}/{path}"), exist_ok=True)
        with open(f"{self.path}/{path}", "w") as file:
            file.write(text)

    def found(self) -> "dict[str, str]":
        return {found.path: found.reason for found in workspace.walk(self.root)}

    def test_regular_files_are_found_in_order(self) -> None:
        for path in ("b", "a/c", "a/b", "__main__.py", "a/__main__.py"):
            self.write(path)
        self.assertEqual(list(self.found()), ["__main__.py", "a/__main__.py", "a/b", "a/c", "b"])

    def test_the_program_itself_is_not_a_result(self) -> None:
        self.write("__main__.py")
        self.assertFalse(workspace.any_change(self.channel, self.root, {}, program.MAIN_FILE))
        self.write("a/__main__.py")
        changed = workspace.changes(self.channel, self.root, {}, program.MAIN_FILE)
        self.assertEqual([found.path for found in changed], ["a/__main__.py"])
        self.assertEqual(
            len(list(workspace.changes(self.channel, self.root, {}))), 2
        )  # in a session the name is not reserved

    def test_a_limit_names_its_setting(self) -> None:
        limits = {"files": 2, "file_bytes": 5 << 20, "total_bytes": 7 << 20}
        for size, files, total, want in (
            (5 << 20, 1, 7 << 20, ""),
            (1, 0, 7 << 20, "the run made more files than MAX_RESULT_FILES, which is 2"),
            (6 << 20, 1, 7 << 20, "it has 6291456 bytes, more than MAX_FILE_SIZE_MB, which is 5"),
            (2, 1, 1, "the run's files have more than MAX_RESULT_MB together, which is 7"),
        ):
            self.assertEqual(workspace.limit_fault(size, files, total, limits), want)

    def test_links_are_not_followed(self) -> None:
        os.symlink("/etc", f"{self.path}/d")
        os.symlink("/etc/passwd", f"{self.path}/f")
        self.assertEqual(self.found(), {"d": "it is a link", "f": "it is a link"})
        with self.assertRaises(OSError):
            workspace.open_beneath(self.root, "d/passwd")
        with self.assertRaises(OSError):
            workspace.open_beneath(self.root, "f")

    def test_invalid_names_are_reported(self) -> None:
        for name in (b"\xff", b"a\nb", b"a\\b", "\x85".encode()):
            open(os.path.join(os.fsencode(self.path), name), "w").close()
        self.assertEqual(len([reason for reason in self.found().values() if "its name" in reason]), 4)

    def test_a_change_changes_the_stamp(self) -> None:
        self.write("a", "1")
        before = {found.path: found.stamp for found in workspace.walk(self.root)}
        workspace.await_tick(before.values())
        self.write("a", "2")
        os.utime(f"{self.path}/a", ns=(0, 0))  # the program can set the modification time, but not the change time
        after = {found.path: found.stamp for found in workspace.walk(self.root)}
        self.assertNotEqual(before["a"], after["a"])

    def test_too_many_entries_are_reported(self) -> None:
        most, workspace.MAX_ENTRIES = workspace.MAX_ENTRIES, 3
        self.addCleanup(setattr, workspace, "MAX_ENTRIES", most)
        for name in "abcde":
            self.write(name)
        reasons = list(self.found().values())
        self.assertEqual(reasons[:3], ["", "", ""])
        self.assertIn("more than 3 entries", reasons[3])
        self.assertEqual(len(reasons), 4)
        before = {found.path: found.stamp for found in workspace.walk(self.root)}
        self.assertEqual(len(list(workspace.changes(self.channel, self.root, before))), 1)  # it is reported each time

    def test_staging_creates_folders_and_does_not_overwrite(self) -> None:
        os.close(workspace.stage(self.path, "a/b/c"))
        with self.assertRaises(FileExistsError):
            workspace.stage(self.path, "a/b/c")

    def test_links_into_the_home(self) -> None:
        self.write("skeleton/.cache/m/fonts.json", "{}")
        os.mkdir(f"{self.path}/home")
        home = cleanup.SkeletonLinks(f"{self.path}/skeleton", f"{self.path}/home")
        for _ in range(2):
            home.make()
            home.make()  # does nothing
            self.assertTrue(os.path.islink(f"{self.path}/home/.cache/m/fonts.json"))
            self.write("home/.cache/m/other", "the folder itself can be written")
            self.empty("home")

    def empty(self, path: str, left: int = 100) -> None:
        folder = os.open(f"{self.path}/{path}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            cleanup.empty(folder, [left])
        finally:
            os.close(folder)

    def test_staged_modules_replace_preloaded_ones(self) -> None:
        for path in ("calendar.py", "json/__init__.py", "email/data.csv", "os.py", "notes.txt"):
            self.write(path, "")
        import calendar, email, json.decoder  # noqa: F401, E401

        kept = dict(sys.modules)
        self.addCleanup(sys.modules.update, kept)
        program.forget_shadowed(self.path)
        for name in ("calendar", "json", "json.decoder"):
            self.assertNotIn(name, sys.modules)
        for name in ("email", "os", "__main__", "ending"):
            self.assertIn(name, sys.modules)

    def send(self, found: workspace.Found, meanwhile: "Callable[[], object]" = lambda: None) -> str:
        """Sends a file, and calls meanwhile before each write."""
        receive_fd, send_fd = os.pipe()
        for fd in (receive_fd, send_fd):
            self.addCleanup(os.close, fd)
        sender = channel.Channel(channel.Descriptors(receive_fd, send_fd), 1)
        real_flush = sender.flush

        def flush() -> None:
            meanwhile()
            real_flush()

        with mock.patch.object(sender, "flush", flush):
            return workspace.send_file(sender, self.root, found)

    def test_a_changed_file_is_not_sent_as_complete(self) -> None:
        self.write("a", "before")
        (found,) = workspace.walk(self.root)
        workspace.await_tick([found.stamp])
        self.assertEqual(self.send(found), "")
        for change in (
            lambda: os.truncate(f"{self.path}/a", 1),
            lambda: self.write("a", "beforehand"),
            lambda: self.write("a", "behind"),  # of the same size
            lambda: os.rename(f"{self.path}/b", f"{self.path}/a"),
        ):
            self.write("b", "before")
            self.write("a", "before")
            found = next(found for found in workspace.walk(self.root) if found.path == "a")
            workspace.await_tick([found.stamp])
            with self.assertRaisesRegex(channel.Gone, "changed"):
                self.send(found, change)
            self.assertIn("changed", self.send(found))

    def test_a_file_with_a_lease_is_not_waited_for(self) -> None:
        """A sandbox cannot get a lease, so this simulates what the kernel does."""
        self.write("a")
        (found,) = workspace.walk(self.root)
        real_open = os.open

        def open_leased(path: "str | int", flags: int, *rest: int, **more: int) -> int:
            if str(path).startswith("/proc/self/fd/"):
                self.assertTrue(flags & os.O_NONBLOCK, "it would sleep for lease-break-time")
                raise BlockingIOError(EWOULDBLOCK, os.strerror(EWOULDBLOCK))
            return real_open(path, flags, *rest, **more)

        with mock.patch.object(os, "open", open_leased):
            with self.assertRaises(OSError) as caught:
                workspace.open_beneath(self.root, "a")
            self.assertEqual(caught.exception.errno, EBUSY)
            self.assertEqual(
                workspace.send_file(channel.Channel(channel.Descriptors(0, self.root), 1), self.root, found), "in use"
            )

    def test_empty_leaves_nothing(self) -> None:
        self.write("p/a/b/c")
        self.write("p/.hidden")
        open(os.path.join(os.fsencode(self.path), b"p/\xff\n"), "w").close()
        os.symlink("/etc", f"{self.path}/p/link")
        os.mkfifo(f"{self.path}/p/fifo")
        self.write("kept")
        os.link(f"{self.path}/kept", f"{self.path}/p/hard")
        for path in ("p/a/b", "p/a"):
            os.chmod(f"{self.path}/{path}", 0)
        self.empty("p")
        self.assertEqual(os.listdir(f"{self.path}/p"), [])
        self.assertEqual(list(self.found()), ["kept"])

    def test_empty_fails_on_too_many_entries(self) -> None:
        for i in range(5):
            self.write(f"p/{i}")
        with self.assertRaisesRegex(OSError, "too much"):
            self.empty("p", left=4)
        deep = f"{self.path}/deep"
        for _ in range(cleanup.MAX_LEFT_DEPTH + 4):
            os.mkdir(deep)
            deep += "/d"
        with self.assertRaisesRegex(OSError, "too much"):
            self.empty("deep")
