"""The folders that programs can write to, and the removal of what a run has left there."""

import ctypes
import os

from kernel import libc, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SKELETON = "/opt/vivarium/home"  # what an image wants linked into every program's home
WRITABLE_DIRS = ("/tmp", "/dev/shm")  # where programs can write, besides the workspace
MAX_LEFTOVERS = 2000  # entries that a run may leave for deletion; with more, the sandbox is given up
MAX_LEFT_DEPTH = 64
FS_IOC_GETFLAGS = 0x80086601  # ioctl_iflags(2)
FS_IOC_SETFLAGS = 0x40086602


def empty(folder: int, left: "list[int]", depth: int = 0) -> None:
    """Deletes everything in an open folder, which no other process may use. Raises OSError where that fails, or where
    there are more entries than `left` allows."""
    with os.scandir(folder) as entries:
        for entry in list(entries):
            left[0] -= 1
            if left[0] < 0 or depth > MAX_LEFT_DEPTH:
                raise OSError("the run left too much behind")
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=folder)
                continue
            os.chmod(entry.name, 0o700, dir_fd=folder)
            below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                empty(below, left, depth + 1)
            finally:
                os.close(below)
            os.rmdir(entry.name, dir_fd=folder)


def clear_flags(folder: int) -> None:
    """Clears a folder's attributes (ioctl_iflags(2)). Does nothing on file systems that have none. Raises OSError."""
    flags = ctypes.c_long(0)
    if libc.ioctl(folder, ctypes.c_ulong(FS_IOC_GETFLAGS), ctypes.byref(flags)) == 0 and flags.value & 0xFFFFFFFF:
        flags.value = 0
        system("ioctl", folder, ctypes.c_ulong(FS_IOC_SETFLAGS), ctypes.byref(flags))


def unexpected_places(known: "Iterable[str]") -> "list[str]":
    """Returns mounted folders that programs may write to and that are not cleaned, such as an image's volumes. Mounts
    below /dev, /proc and /sys are the engine's: programs cannot write to them, except for the known ones."""
    found = []
    with open("/proc/self/mountinfo") as mounts:
        for mount in mounts:
            point, options = mount.split(" ")[4:6]
            engines = f"{point}/".startswith(("/dev/", "/proc/", "/sys/"))
            if "rw" in options.split(",") and not engines and point not in known and os.path.isdir(point):
                found.append(point)
    return found


def is_full(folder: str) -> bool:
    """Reports whether a file system has no room left for data or for files."""
    status = os.statvfs(folder)
    return status.f_bavail == 0 or (status.f_files > 0 and status.f_favail == 0)


class WritableDir:
    """A folder that programs can write to. If they own it, they can change its own attributes too."""

    def __init__(self, path: str) -> None:
        self.folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        status = os.fstat(self.folder)
        self.owned = status.st_uid == os.getuid()
        self.mode = status.st_mode & 0o7777
        self.times = status.st_atime_ns, status.st_mtime_ns

    def clean(self, left: "list[int]") -> None:
        """Restores the folder to its initial state. Raises OSError."""
        if self.owned:
            os.fchmod(self.folder, self.mode | 0o700)
        empty(self.folder, left)
        if not self.owned:
            os.utime(self.folder)  # so that its times do not show whether it was used
        else:
            for name in os.listxattr(self.folder):  # access control lists are among them
                os.removexattr(self.folder, name)
            clear_flags(self.folder)
            os.fchmod(self.folder, self.mode)
            os.utime(self.folder, ns=self.times)


class SkeletonLinks:
    """Links in the program's home, which starts empty, to what the image prepared, such as Matplotlib's font index."""

    def __init__(self, skeleton: str, home: str) -> None:
        self.folders: "list[str]" = []
        self.links: "list[tuple[str, str]]" = []
        for folder, _, files in os.walk(skeleton):
            target = home + folder[len(skeleton) :]
            if target != home:
                self.folders.append(target)
            self.links += [(f"{folder}/{name}", f"{target}/{name}") for name in files]

    def make(self) -> None:
        """Creates those folders and links that are not there. Raises OSError."""
        for folder in self.folders:
            os.makedirs(folder, exist_ok=True)
        for source, target in self.links:
            try:
                os.symlink(source, target)
            except FileExistsError:
                pass


def home_links() -> SkeletonLinks:
    """Returns the links in every program's home."""
    return SkeletonLinks(SKELETON, os.environ.get("HOME", "/tmp"))
