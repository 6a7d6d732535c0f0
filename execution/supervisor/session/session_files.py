"""The files of a session's workspace as a client sees them: lists, deletes, renames, and whole folders."""

import os
import stat

from errno import EEXIST, EINVAL

from channel import Channel
from kernel import CHUNK
from workspace import (
    MAX_DEPTH,
    MAX_PATH,
    Found,
    descend,
    enter,
    name_fault,
    open_folder,
    post_skipped,
    send_file,
    stamp_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

MAX_DELETE_DEPTH = 50  # levels of folders that are deleted: each takes a descriptor


class Entry:
    """What a folder contains, or what cannot be shown and the reason."""

    def __init__(self, path: str, status: "Optional[os.stat_result]" = None, reason: str = "") -> None:
        self.path = path
        self.status = status
        self.reason = reason  # empty if there is a status

    def is_folder(self) -> bool:
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    def is_file(self) -> bool:
        return self.status is not None and stat.S_ISREG(self.status.st_mode)

    def kind(self) -> str:
        """Returns the kind as it is sent."""
        if self.is_folder() or self.is_file():
            return "folder" if self.is_folder() else "file"
        return "link" if self.status is not None and stat.S_ISLNK(self.status.st_mode) else "other"


def tree(folder: int, prefix: str, left: "list[int]", depth: int = 0) -> "Iterator[Entry]":
    """Yields the entries of an open folder and of those below it, sorted by name, each folder before what it contains.
    Follows no links. Ends when none are left of the entries that may be yielded. Raises OSError."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry, _ in zip(entries, range(left[0] + 1)))
    for name in names:
        path = prefix + name
        if left[0] <= 0:
            left[0] = -1
            return
        left[0] -= 1
        reason = name_fault(name)
        if not reason and len(path.encode()) > MAX_PATH:
            path, reason = path[:100] + "...", f"its path has more than {MAX_PATH} bytes"
        if reason:
            yield Entry(path, reason=reason)
            continue
        try:
            entry = Entry(path, os.stat(name, dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            continue
        yield entry
        if entry.is_folder():
            yield from below(folder, name, path, left, depth + 1)


def below(parent: int, name: str, path: str, left: "list[int]", depth: int) -> "Iterator[Entry]":
    """Yields the entries of the folder `name` in an open folder."""
    if depth > MAX_DEPTH:
        yield Entry(path, reason=f"what it contains lies more than {MAX_DEPTH} folders deep")
        return
    try:
        folder = open_folder(parent, name)
    except OSError as error:
        yield Entry(path, reason=os.strerror(error.errno).lower())
        return
    try:
        yield from tree(folder, path + "/", left, depth)
    except OSError as error:
        yield Entry(path, reason=os.strerror(error.errno).lower())
    finally:
        os.close(folder)


def below_path(root: int, path: str, left: "list[int]") -> "Iterator[Entry]":
    """Returns an iterator over what a folder contains, or over the entry itself if it is not a folder. Raises
    OSError."""
    if path:
        *parents, name = path.split("/")
        parent = descend(root, parents)
        try:
            entry = Entry(path, os.stat(name, dir_fd=parent, follow_symlinks=False))
        finally:
            os.close(parent)
        if not entry.is_folder():
            return iter([entry])
    return closing(open_folder(root, path), f"{path}/" if path else "", left)


def closing(folder: int, prefix: str, left: "list[int]") -> "Iterator[Entry]":
    """Yields the entries of an open folder like tree, and closes it."""
    try:
        yield from tree(folder, prefix, left)
    finally:
        os.close(folder)


def send_entry(channel: Channel, entry: Entry) -> None:
    """Queues a frame about an entry."""
    status = entry.status
    if status is None:
        post_skipped(channel, entry.path, entry.reason)
        return
    size = 0 if entry.is_folder() else status.st_size
    executable = int(bool(status.st_mode & 0o100))
    head = f"{entry.kind()} {size} {max(status.st_mtime_ns, 0) // 1_000_000} {executable} "
    channel.post(b"M", head.encode() + entry.path.encode())
    if len(channel.posted) > CHUNK:
        channel.flush()


def send_end(channel: Channel, left: "list[int]", most: int) -> None:
    """Queues a frame that says so where there are more entries than may be sent."""
    if left[0] < 0:
        post_skipped(channel, "", f"there are more than {most} entries; the list was cut here")


def send_list(channel: Channel, entries: "Iterator[Entry]", left: "list[int]") -> None:
    """Sends a list of entries. Raises OSError."""
    most = left[0]
    for entry in channel.showing_life(entries):
        send_entry(channel, entry)
    send_end(channel, left, most)


def send_tree(channel: Channel, root: int, entries: "Iterator[Entry]", left: "list[int]") -> None:
    """Sends folders, and files with their contents. Everything else is only named. Raises OSError."""
    most = left[0]
    for entry in channel.showing_life(entries):
        if entry.status is None or entry.is_folder():
            send_entry(channel, entry)
        elif not entry.is_file():
            send_entry(
                channel, Entry(entry.path, reason="it is a link" if entry.kind() == "link" else "not a regular file")
            )
        else:
            send_entry(channel, entry)
            if reason := send_file(channel, root, Found(entry.path, "", stamp_of(entry.status))):
                send_entry(channel, Entry(entry.path, reason=reason))
    send_end(channel, left, most)


def delete(channel: Channel, root: int, path: str) -> None:
    """Deletes a file, a link, or a folder with what it contains. Follows no links. Raises OSError."""
    *parents, name = path.split("/")
    parent = descend(root, parents)
    try:
        delete_in(channel, parent, name)
    finally:
        os.close(parent)


def delete_in(channel: Channel, parent: int, name: str, depth: int = 0) -> None:
    """Deletes an entry of an open folder. Raises OSError."""
    channel.show_life()
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    if depth > MAX_DELETE_DEPTH:
        raise OSError(EINVAL, f"it has more than {MAX_DELETE_DEPTH} levels of folders")
    place = enter(parent, name)
    try:
        os.chmod(f"/proc/self/fd/{place}", 0o700)  # a program may have changed it
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
    finally:
        os.close(place)
    try:
        while names := first_names(folder):
            for below_name in names:
                try:
                    delete_in(channel, folder, below_name, depth + 1)
                except FileNotFoundError:
                    pass  # a program was faster
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=parent)


def first_names(folder: int) -> "list[str]":
    """Returns some names of an open folder, and none if it is empty."""
    with os.scandir(folder) as entries:
        return [entry.name for entry, _ in zip(entries, range(1000))]


def kind_of(root: int, path: str) -> int:
    """Returns the mode of what a path names. Follows no links. Raises OSError."""
    *parents, name = path.split("/")
    parent = descend(root, parents)
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    finally:
        os.close(parent)


def check_target(root: int, path: str, target: str) -> None:
    """Raises the OSError with which move would fail as things are now. A file may replace a file; nothing else may be
    replaced."""
    if target.startswith(path + "/"):
        raise OSError(EINVAL, "it lies in the folder itself")
    try:
        replaced = kind_of(root, target)
    except FileNotFoundError:
        return
    if target != path and not (stat.S_ISREG(replaced) and stat.S_ISREG(kind_of(root, path))):
        raise OSError(EEXIST, "it exists already, and only a file can replace a file")


def move(root: int, path: str, target: str) -> None:
    """Renames a file, a link or a folder, with new folders if needed. Follows no links. Raises OSError."""
    *parents, name = path.split("/")
    *target_parents, target_name = target.split("/")
    source = descend(root, parents)
    try:
        folder = descend(root, target_parents, create=True)
        try:
            os.rename(name, target_name, src_dir_fd=source, dst_dir_fd=folder)
        finally:
            os.close(folder)
    finally:
        os.close(source)
