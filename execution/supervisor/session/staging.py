"""Files that arrive in a session: they are put in place together, when all are complete."""

import os
import stat

from errno import EISDIR

from kernel import write_all
from workspace import descend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


class Staging:
    """Receives files, and puts them in place together when all are complete."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.file = -1
        self.at = -1  # index of the current file; -1: none yet
        # The paths, by the files' temporary names. A folder has a name and a path that end with a slash.
        self.waiting: "dict[str, str]" = {}
        self.error: "Optional[OSError]" = None  # the first error; nothing is written after it

    def begin(self, path: str) -> None:
        """Begins a file, or notes a folder if the path ends with a slash. A NUL and "x" after the path mark a file that
        can be executed. Records an error."""
        self.end_file()
        self.at += self.error is None
        path, _, mark = path.partition("\0")
        if path.endswith("/"):
            self.waiting[f"{self.at}/"] = path
            return
        name = f".vivarium-{os.urandom(8).hex()}"
        try:
            self.file = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755 if mark else 0o644, dir_fd=self.root
            )
            self.waiting[name] = path
        except OSError as error:
            self.error = self.error or error

    def add(self, data: bytes) -> None:
        """Adds bytes to the current file. Records an error."""
        if self.error is None:
            try:
                write_all(self.file, data)
            except OSError as error:
                self.error = error

    def end_file(self) -> None:
        """Closes the current file."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def commit(self) -> None:
        """Puts the files in place, or none if there was an error or check_beneath finds one. Records an error."""
        self.end_file()
        try:
            if self.error is None:
                for self.at, path in enumerate(self.waiting.values()):
                    check_beneath(self.root, path)
                for self.at, name in enumerate(list(self.waiting)):
                    put_beneath(self.root, name, self.waiting[name])
                    del self.waiting[name]
        except OSError as error:
            self.error = error
        self.drop()

    def drop(self) -> None:
        """Deletes the files that are not in place."""
        self.end_file()
        for name in self.waiting:
            if name.endswith("/"):
                continue
            try:
                os.unlink(name, dir_fd=self.root)
            except OSError:
                pass  # a program has removed it, or the folder's permissions
        self.waiting.clear()


def put_beneath(root: int, name: str, path: str) -> None:
    """Moves a file in an open folder to a path below it, with new folders if needed. Replaces a file, follows no links.
    Creates a folder, if the path ends with a slash. Raises OSError."""
    *parents, last = path.split("/")
    folder = descend(root, parents, create=True)
    try:
        if last:
            os.rename(name, last, src_dir_fd=root, dst_dir_fd=folder)
    finally:
        os.close(folder)


def check_beneath(root: int, path: str) -> None:
    """Raises the OSError with which put_beneath would fail as things are now."""
    *parents, last = path.split("/")
    try:
        folder = descend(root, parents)
    except FileNotFoundError:
        return  # put_beneath will create it
    try:
        if last and stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(EISDIR, os.strerror(EISDIR))
    except FileNotFoundError:
        pass
    finally:
        os.close(folder)
