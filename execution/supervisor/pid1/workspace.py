"""The files of the workspace: staging inputs, finding what a run made or changed, and sending it."""

import os
import stat
import time

from errno import EBUSY, EINVAL, ELOOP

from channel import Channel
from kernel import CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Optional

MAX_DEPTH = 31  # levels of folders that are searched below the workspace
MAX_PATH = 1024  # bytes of a returned path; the server accepts no longer or deeper ones (execution.PathFault)
MAX_ENTRIES = 20_000  # directory entries that are examined
CLOCK_REALTIME_COARSE = 5  # the time module has no name for it
UNSEARCHED = (0, 0, -1)  # the stamp of what was not searched and may have changed


class Found:
    """A regular file in the workspace, or an entry that is not returned and the reason."""

    def __init__(self, path: str, reason: str, stamp: "tuple[int, int, int]" = (0, 0, 0)) -> None:
        self.path = path
        self.reason = reason  # empty for a regular file
        self.stamp = stamp  # from stamp_of: differs when the file was made or changed
        self.size = stamp[2]


def stamp_of(status: os.stat_result) -> "tuple[int, int, int]":
    """Returns what shows whether a file changes. A program can set the modification time, but not the change time."""
    return status.st_ino, status.st_ctime_ns, status.st_size


def name_fault(name: str) -> str:
    """Returns why a name cannot be returned to a client, or ''. Programs choose names: any bytes but '/' and NUL."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    if "\\" in name or any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in name):
        return "its name has a backslash or a control character"
    return ""


def walk(folder: int, prefix: str = "", depth: int = 0, budget: "Optional[list[int]]" = None) -> "Iterator[Found]":
    """Yields the entries of an open folder and of those below it, sorted by name. Follows no links. Raises OSError."""
    left = budget if budget is not None else [MAX_ENTRIES]
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry, _ in zip(entries, range(left[0] + 1))), key=lambda entry: entry.name)
    for entry in listed:
        path = prefix + entry.name
        if left[0] <= 0:
            reason = f"the workspace has more than {MAX_ENTRIES} entries; this and later ones were not searched"
            yield Found(path, reason, UNSEARCHED)
            return
        left[0] -= 1
        if fault := name_fault(entry.name):
            yield Found(path, fault)
        elif len(path.encode()) > MAX_PATH:
            yield Found(path[:100] + "...", f"its path has more than {MAX_PATH} bytes")
        elif entry.is_dir(follow_symlinks=False):
            yield from walk_folder(folder, entry.name, path, depth + 1, left)
        elif entry.is_file(follow_symlinks=False):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield Found(path, "", stamp_of(status))
        else:
            yield Found(path, "it is a link" if entry.is_symlink() else "it is not a regular file")


def enter(folder: int, name: str) -> int:
    """Opens a folder in an open folder for further lookups. Raises OSError, also for a link. O_PATH is needed because
    gVisor ignores O_NOFOLLOW together with O_DIRECTORY and would follow the link."""
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)


def open_folder(root: int, path: str) -> int:
    """Opens a folder below an open one for listing; "" is that one itself. Follows no links. Raises OSError."""
    place = descend(root, path.split("/") if path else [])
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
    finally:
        os.close(place)


def walk_folder(parent: int, name: str, path: str, depth: int, budget: "list[int]") -> "Iterator[Found]":
    """Yields the entries of the folder `name` in an open folder."""
    if depth > MAX_DEPTH:
        yield Found(path, f"it lies more than {MAX_DEPTH} folders deep")
        return
    try:
        folder = open_folder(parent, name)
    except OSError as error:
        yield Found(path, os.strerror(error.errno).lower())
        return
    try:
        yield from walk(folder, path + "/", depth, budget)
    except OSError as error:
        yield Found(path, os.strerror(error.errno).lower())
    finally:
        os.close(folder)


def descend(root: int, parents: "list[str]", create: bool = False) -> int:
    """Opens a folder below an open one like enter, going through its parents. Creates those that are missing if `create`
    is set. Raises OSError."""
    folder = os.dup(root)
    try:
        for parent in parents:
            if create:
                try:
                    os.mkdir(parent, 0o755, dir_fd=folder)
                except FileExistsError:
                    pass
            below = enter(folder, parent)
            os.close(folder)
            folder = below
    except OSError:
        os.close(folder)
        raise
    return folder


def open_beneath(root: int, path: str) -> int:
    """Opens a file below an open folder for reading. Follows no links on the way. Raises OSError."""
    *parents, name = path.split("/")
    folder = descend(root, parents)
    try:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        # A process that still runs may have replaced the file, and opening a pipe can block forever.
        if not stat.S_ISREG(kind := os.fstat(place).st_mode):
            number = ELOOP if stat.S_ISLNK(kind) else EINVAL
            raise OSError(number, "a link" if number == ELOOP else "not a regular file")
        # Without O_NONBLOCK, a lease (fcntl(2)) would delay this by lease-break-time, 45 s for each file.
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK)
    except BlockingIOError:
        raise OSError(EBUSY, "in use") from None
    finally:
        os.close(place)


def stage(workspace: str, path: str) -> int:
    """Creates a file for an input and its folders. Returns it open for writing. The server has checked the path."""
    full = f"{workspace}/{path}"
    os.makedirs(os.path.dirname(full), exist_ok=True)
    return os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)


def await_tick(stamps: "Iterable[tuple[int, int, int]]") -> None:
    """Waits until a changed file would get a new change time. Kernels before 6.13 take it from a clock that ticks every
    1 to 10 ms. Within one tick, a program could change an input that was just staged."""
    newest = max((changed for _, changed, _ in stamps), default=0)
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= newest < time.time_ns():
        time.sleep(0.0005)


def open_up(folder: int) -> None:
    """Gives the owner of an open folder access to it, which a program may have taken away. No program could where another
    user owns the folder. Raises OSError."""
    if os.fstat(folder).st_uid == os.getuid():
        os.fchmod(folder, 0o700)


def changes(
    channel: Channel, workspace: int, before: "dict[str, tuple[int, int, int]]", excluded: str = ""
) -> "Iterator[Found]":
    """Yields what a run made or changed, except the excluded path, and what cannot be returned. Raises OSError."""
    open_up(workspace)
    for found in channel.showing_life(walk(workspace)):
        if found.path != excluded and (before.get(found.path) != found.stamp or found.stamp == UNSEARCHED):
            yield found


def any_change(channel: Channel, workspace: int, before: "dict[str, tuple[int, int, int]]", excluded: str) -> bool:
    """Reports whether changes would yield anything. An error counts as a change: processes may still be running."""
    try:
        return any(True for _ in changes(channel, workspace, before, excluded))
    except OSError:
        return True


def limit_fault(size: int, files: int, total: int, limits: "dict[str, int]") -> str:
    """Returns which limit a file exceeds, if only `files` more files and `total` more bytes may be sent, or ''."""
    if files <= 0:
        return f"the run made more files than MAX_RESULT_FILES, which is {limits['files']}"
    if size > limits["file_bytes"]:
        return f"it has {size} bytes, more than MAX_FILE_SIZE_MB, which is {limits['file_bytes'] >> 20}"
    if size > total:
        return f"the run's files have more than MAX_RESULT_MB together, which is {limits['total_bytes'] >> 20}"
    return ""


def post_skipped(channel: Channel, path: str, reason: str) -> None:
    """Queues a frame about what is not returned."""
    channel.post(b"S", path.encode("utf-8", "backslashreplace") + b"\0" + reason.encode())


def send_files(
    channel: Channel, workspace: int, changed: "Iterable[Found]", limits: "dict[str, int]", kept: str = ""
) -> None:
    """Sends what the run made or changed, within the limits. Reports what is not sent and why. `kept` is added to the
    reason of a file that exceeds a limit. Raises Gone."""
    files, total = limits["files"], limits["total_bytes"]
    skipped = 0
    for found in changed:
        reason = found.reason
        if not reason and (fault := limit_fault(found.size, files, total, limits)):
            reason = fault + kept
        if not reason:
            reason = send_file(channel, workspace, found)
        if not reason:
            files -= 1
            total -= found.size
        elif skipped < limits["files"]:
            skipped += 1
            post_skipped(channel, found.path, reason)
        else:
            post_skipped(channel, "", "and more; the list was cut here")
            return


def send_file(channel: Channel, workspace: int, found: Found) -> str:
    """Sends one file. Returns why it could not be sent, or ''. If it fails after a part was sent, channel.abort_file
    makes sure that the server does not accept it as complete."""
    try:
        fd = open_beneath(workspace, found.path)
    except OSError as error:
        return str(error.strerror).lower()
    try:
        if stamp_of(os.fstat(fd)) != found.stamp:
            return "it was changed before it was read"
        channel.post(b"F", found.path.encode())
        left = found.size
        while left > 0 and (data := os.read(fd, min(CHUNK, left))):
            channel.send(b"D", data)
            left -= len(data)
        if left > 0 or stamp_of(os.fstat(fd)) != found.stamp:
            channel.abort_file("it was changed while it was read")
    except OSError as error:
        channel.abort_file(f"it cannot be read: {os.strerror(error.errno).lower()}")
    finally:
        os.close(fd)
    return ""
