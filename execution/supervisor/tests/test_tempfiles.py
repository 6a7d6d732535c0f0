"""Tests of tempfiles.py. They run in a sandbox, like any program."""

import os
import tempfile
import unittest

import tempfiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workspace import Found


class Recorder:
    """Stands in for a channel."""

    def __init__(self) -> None:
        self.posted: "list[tuple[bytes, str]]" = []

    def post(self, kind: bytes, payload: bytes) -> None:
        self.posted.append((kind, payload.decode()))


class TempFilesTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = folder.name

    def write(self, *paths: str) -> None:
        for path in paths:
            os.makedirs(os.path.dirname(f"{self.path}/{path}"), exist_ok=True)
            with open(f"{self.path}/{path}", "w") as file:
                file.write("x")

    def found(self) -> "list[Found]":
        return tempfiles.find(self.path)

    def names(self) -> "list[str]":
        return sorted(found.path[len(self.path) + 1 :] for found in self.found())

    def posted(self, before: "dict[str, tuple[int, int, int]]") -> "list[str]":
        recorder = Recorder()
        tempfiles.post(recorder, before, self.path)  # type: ignore[arg-type]
        self.assertLessEqual({kind for kind, _ in recorder.posted}, {b"S"})
        return [payload.replace(self.path, "/tmp") for _, payload in recorder.posted]

    def test_files_of_programs_are_found(self) -> None:
        made = ["a/b/c.txt", "joblib_model.pkl", "out.csv", "tmp.csv", "tmp_out.csv", "tmpfile"]
        self.write(*made)
        self.assertEqual(self.names(), made)

    def test_files_of_libraries_are_not(self) -> None:
        self.write(
            ".cache/matplotlib/fonts.json", ".hidden", "__pycache__/a.pyc", "joblib_memmapping_1/a.pkl", "loky-7/a"
        )
        self.write("matplotlib-x1/a", "pymp-abc/a", "server.sock", "tmp.aBcDeFgHiJ", "a/.git/config")
        tempfile.NamedTemporaryFile(dir=self.path, suffix=".csv", delete=False).close()
        with open(f"{tempfile.mkdtemp(dir=self.path)}/x", "w"):
            pass
        self.assertEqual(self.names(), [])

    def test_links_and_pipes_are_not(self) -> None:
        os.symlink("/etc/passwd", f"{self.path}/file")
        os.symlink("/etc", f"{self.path}/folder")
        os.mkfifo(f"{self.path}/pipe")
        self.assertEqual(self.names(), [])

    def test_a_folder_that_is_not_there_has_none(self) -> None:
        self.assertEqual(tempfiles.find(self.path + "/none"), [])

    def test_only_what_changed_is_reported(self) -> None:
        self.write("old", "changed")
        before = {found.path: found.stamp for found in self.found()}
        self.assertEqual(self.posted(before), [])
        self.write("new")
        os.truncate(f"{self.path}/changed", 5)
        self.assertEqual(self.posted(before), [f"/tmp/{name}\0{tempfiles.REASON}" for name in ("changed", "new")])

    def test_a_long_list_is_cut(self) -> None:
        self.write(*(f"{number:03}" for number in range(tempfiles.MAX_LISTED + 7)))
        posted = self.posted({})
        self.assertEqual(len(posted), tempfiles.MAX_LISTED + 1)
        self.assertEqual(posted[-1], "/tmp\0" + "at least 7 more files are there, which is not returned")

    def test_the_search_is_bounded(self) -> None:
        self.write(*(f"{number:04}" for number in range(tempfiles.MAX_SEARCHED + 10)))
        self.assertEqual(len(self.found()), tempfiles.MAX_SEARCHED)
