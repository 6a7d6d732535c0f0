"""Files that a program made in /tmp. They are not returned but listed, so that none is lost without notice."""

import os

from channel import Channel
from workspace import MAX_DEPTH, Found, open_folder, post_skipped, stamp_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = "/tmp"
REASON = "it is in /tmp, which is not returned: write to the working directory"
MAX_LISTED = 20  # files that are named one by one; the server accepts few more (maxTempListed)
MAX_SEARCHED = 1000  # directory entries that are examined
RANDOM_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")  # of the names that tempfile makes
LIBRARY_FOLDERS = ("matplotlib-", "joblib", "loky", "pymp-", "pip-", "hsperfdata_")  # how their names begin


def is_temporary(name: str, folder: bool) -> bool:
    """Reports whether a name is one that libraries make for themselves: hidden ones (/tmp is the home), caches, sockets,
    and random names as of tempfile and mktemp."""
    if name.startswith(".") or name == "__pycache__" or name.endswith((".sock", ".lock")):
        return True
    if folder and name.startswith(LIBRARY_FOLDERS):
        return True
    random = name[3:].partition(".")[0]
    by_tempfile = len(random) == 8 and RANDOM_CHARS.issuperset(random)
    by_mktemp = len(name) == len("tmp.XXXXXXXXXX") and name[3] == "." and name[4:].isalnum()
    return name.startswith("tmp") and (by_tempfile or by_mktemp)


def search(folder: int, path: str, left: "list[int]", depth: int = 0) -> "Iterator[Found]":
    """Yields the regular files in an open folder and below, at most as many as there are entries `left`. Follows no
    links. Raises OSError."""
    with os.scandir(folder) as entries:
        for entry in entries:
            left[0] -= 1
            if left[0] < 0:
                return
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_temporary(entry.name, is_folder):
                continue
            if is_folder and depth < MAX_DEPTH:
                yield from search_below(folder, entry.name, f"{path}/{entry.name}", left, depth + 1)
            elif entry.is_file(follow_symlinks=False):
                yield Found(f"{path}/{entry.name}", REASON, stamp_of(entry.stat(follow_symlinks=False)))


def search_below(parent: int, name: str, path: str, left: "list[int]", depth: int) -> "Iterator[Found]":
    """Yields the regular files in a folder of an open folder. Raises OSError."""
    folder = open_folder(parent, name)
    try:
        yield from search(folder, path, left, depth)
    finally:
        os.close(folder)


def find(place: str = PLACE) -> "list[Found]":
    """Returns the files in /tmp that are not libraries' own. What a process changes meanwhile may be missing."""
    found: "list[Found]" = []
    try:
        if all(is_temporary(name, folder=False) for name in os.listdir(place)):
            return found  # mostly; a search takes twice as long
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for file in search(folder, place, [MAX_SEARCHED]):
                found.append(file)
        finally:
            os.close(folder)
    except OSError:
        pass
    return found


def stamps(place: str = PLACE) -> "dict[str, tuple[int, int, int]]":
    """Returns the stamps of the files that find returns, by their paths."""
    return {file.path: file.stamp for file in find(place)}


def post(channel: Channel, before: "dict[str, tuple[int, int, int]]", place: str = PLACE) -> None:
    """Queues a report of the files in /tmp that were made or changed. `before` has the stamps of those that existed."""
    made = sorted(path for path, stamp in stamps(place).items() if before.get(path) != stamp)
    for path in made[:MAX_LISTED]:
        post_skipped(channel, path, REASON)
    if len(made) > MAX_LISTED:
        post_skipped(channel, place, f"at least {len(made) - MAX_LISTED} more files are there, which is not returned")
