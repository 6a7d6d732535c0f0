"""The zygotes: each makes fresh inner sandboxes for runs (ISOLATION=run) and forks the programs' processes into them.

All programs are copies of these processes. They never read data of a program, so that no program can find another's data
in its own memory. They have capabilities in a user namespace of their own, and read no input after their start, but a message to begin.

The first zygote has what every program needs. If modules are to be preloaded, it forks a second one, which has them too.
To fork that takes longer, so it serves only the programs that use the modules."""

import _socket
import ctypes
import gc
import os
import time

from errno import ENOSPC, ENOSYS, EPERM

from ending import ExitNotice
from forking import Forker, number_from, number_of, open_last_number
from handover import ENDED, HANDED, NUMBER_FD, Pipes, REPORT, RULES_FD, Unable, fields, take_over
from kernel import (
    Filter,
    NO_CAPABILITIES,
    TO_NUMBER,
    be_first_victim,
    close_all,
    default_signals,
    drop_bounding_set,
    drop_capabilities,
    libc,
    make_landlock_rules,
    restrict_self,
    return_memory,
    set_dumpable,
    system,
    use_huge_pages,
)
from program import await_and_run, make_screen, make_streams, warm_up, reseed
from rehearsal import rehearse, rehearse_briefly

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal

PRELOAD = "/opt/vivarium/preload"  # a file that lists the modules that an image wants preloaded
# clone(2), unshare(2), setns(2)
CLONE_VM = 0x100
CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
# mount(2); the seccomp policy allows just these two values
COPY = 0x1000 | 0x4000  # MS_BIND, MS_REC
MAKE_READ_ONLY = 0x1000 | 0x20 | 0x1 | 0x2 | 0x4 | 0x8  # MS_BIND, MS_REMOUNT, MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC
SETTINGS = b"/proc/sys"
MAX_REPORT = 60_000  # bytes of a report, of which a message must have room for
# Why the kernel refuses namespaces, as the server knows it (execution.Cause).
UNSHARE_CAUSES = {EPERM: "namespaces_denied", ENOSPC: "namespaces_exhausted", ENOSYS: "namespaces_missing"}


def unshare(flags: int) -> None:
    """Moves this process, or its children, to new namespaces. Raises Unable."""
    try:
        system("unshare", flags)
    except OSError as error:
        raise Unable(f"OSError: {error}", UNSHARE_CAUSES.get(error.errno or 0, "")) from None


def enter_namespaces() -> int:
    """Puts the children of this process into a pid namespace that they own, so that they can create others. Returns the
    file of open_last_number."""
    uid, gid = os.getuid(), os.getgid()
    last_number = open_last_number()
    unshare(CLONE_NEWUSER | CLONE_NEWPID)
    set_dumpable(True)  # otherwise root owns the files below; no other process is here yet
    maps = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1", "projid_map": "0 0 1"}
    for name, text in maps.items():  # projid_map is unused, but programs could write it later
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    set_dumpable(False)
    # An engine must leave the settings writable for that. The local backend passes the file instead.
    if last_number >= 0 and not os.statvfs(SETTINGS).f_flag & os.ST_RDONLY:
        try:
            cover_settings()
        except OSError:  # a policy forbids mounts. What the settings' modes forbid stays forbidden
            os.close(last_number)
            last_number = -1
    drop_bounding_set()
    return last_number


def cover_settings() -> None:
    """Makes the kernel's settings read-only, for this process and its descendants. Raises OSError."""
    system("unshare", CLONE_NEWNS)
    system("mount", SETTINGS, SETTINGS, None, COPY, None)
    system("mount", None, SETTINGS, None, MAKE_READ_ONLY, None)


def unshare_ipc() -> None:
    """Moves this process to an ipc namespace of its own. Kernels before 6.3 free old ones slowly, one per RCU grace
    period: while there are too many, this retries for 5 s. Raises OSError."""
    deadline = time.monotonic() + 5
    while True:
        try:
            system("unshare", CLONE_NEWIPC)
            return
        except OSError as error:
            if error.errno != ENOSPC or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def preload(names: "list[str]") -> bytes:
    """Imports modules ahead of programs, and uses them once. Returns the names of those imported, and an error for each of
    the others, as fields."""
    done, failed = [], []
    for name in names:
        try:
            __import__(name)
            done.append(name)
        except BaseException as error:
            failed.append(f"{name}: {type(error).__name__}: {error}".replace("\n", " "))
    failed += rehearse()
    rehearse_briefly()
    if len(os.listdir("/proc/self/task")) > 1:
        failed.append("one of them started threads, which no program will have")
    libc.fflush(None)  # otherwise each program would print what C code has buffered
    return fields(preloaded=",".join(done), preload_failed="; ".join(failed))[:MAX_REPORT]


def preload_names(asked: str) -> "list[str]":
    """Returns the modules to import: those in `asked`, or for "auto" those that the image lists. "none" names none."""
    if asked == "auto":
        try:
            with open(PRELOAD) as file:
                asked = file.read()
        except OSError:
            asked = ""
    return [name for name in asked.replace(",", " ").split() if name != "none"]


def start_init(stack: "ctypes.Array[ctypes.c_char]") -> int:
    """Starts the init, the first process of a new pid namespace, and returns its pid. The init only sleeps: when it
    dies, the kernel kills all other processes in the namespace. It shares this process's memory and sleeps in pause(2),
    so it needs no copy of the interpreter and no executable: 0.1 ms, compared with 0.35 ms to spawn /usr/bin/sleep."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # inherited by the init: the kernel then reaps the orphans
    try:
        top = (ctypes.addressof(stack) + len(stack)) & ~0xF
        return system("clone", ctypes.cast(libc.pause, ctypes.c_void_p), top, CLONE_VM | _signal.SIGCHLD, None)
    finally:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)


class Zygote:
    """A process that programs are forked from. All methods run in it. It reports through the link what it has made, and
    reads nothing from it."""

    def __init__(
        self, link: "_socket.socket", workspace: str, program_filter: Filter, last_number: int, alone: bool
    ) -> None:
        self.link = link
        self.alone = alone  # the sandbox has no other zygote
        self.workspace = workspace
        self.program_filter = program_filter
        self.stack = ctypes.create_string_buffer(1 << 14)
        self.has_rules = keep_at(RULES_FD, make_landlock_rules())
        self.kept = TO_NUMBER if keep_at(NUMBER_FD, last_number) else NO_CAPABILITIES
        self.forker = Forker()
        self.pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)

    def serve(self) -> "NoReturn":
        """Prepares one program after the other. The next is made only when all processes of the last are gone."""
        while True:
            unshare(CLONE_NEWPID)  # for children only
            init = start_init(self.stack)
            init_handle = os.pidfd_open(init)
            pipes = Pipes()
            program = self.forker.fork(number_of(init_handle) + 1)
            if program == 0:
                self.become_program(pipes)
            system("setns", self.pid_namespace, CLONE_NEWPID)
            close_all(pipes.theirs)
            handed = (*pipes.ours, init_handle, os.pidfd_open(program))
            # The kernel counts the descriptors in flight of each user, across all containers. It refuses to send more
            # once the count exceeds the sender's limit on open files. A program cannot raise the count beyond its own
            # OPEN_FILES, and the zygote's limit is higher.
            self.link.sendmsg([b"P"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, HANDED.pack(*handed))])
            close_all(handed)
            self.link.send(b"E" + self.await_end(program, init))

    def await_end(self, program: int, init: int) -> bytes:
        """Waits until the program has ended, kills what it left and waits until that is gone. Returns an ENDED
        record."""
        ended = b""
        while True:
            # Waits for any child: the init could not end while one of them is unreaped.
            pid, status, usage = os.wait4(-1, 0)
            if pid == program:
                cpu = int((usage.ru_utime + usage.ru_stime) * 1e6)
                ended = ENDED.pack(status, cpu, usage.ru_maxrss, time.monotonic())
                os.kill(init, _signal.SIGKILL)
            elif pid == init:
                return ended  # never empty: the init ends only after all others in its namespace have been reaped

    def become_program(self, pipes: Pipes) -> "NoReturn":
        """Turns a fresh fork into a program's process, which waits for its job. If there is another zygote, a program of that
        may run meanwhile. So this process stays like the zygote until then: that program can neither open its entries in
        /proc, not for a moment, nor have it killed for memory."""
        try:
            os.setsid()
            take_over(pipes, NUMBER_FD)
            number_from(int(os.readlink("/proc/self")))
            unshare_ipc()
            drop_capabilities(self.kept)
            self.program_filter.install()
            reseed()
            if self.alone:  # the steps take 0.2 ms, for which a run would wait
                self.begin(0)
        except BaseException as error:
            os.write(2, f"the program's process could not be set up: {error}\n".encode())
            os._exit(70)
        try:
            begin = (lambda _: None) if self.alone else self.begin
            await_and_run(self.workspace, begin, ExitNotice(), rehearse_briefly)
        finally:
            os._exit(70)  # the program has broken what its end needs

    def begin(self, last_number: int) -> None:
        """Turns a program's process into that of the current run, given the last number of the sandbox's processes, or 0 if
        that is its own. The order matters: it drops the last privilege, and only then may be traced again."""
        if last_number:
            number_from(last_number)
        os.closerange(NUMBER_FD, NUMBER_FD + 1)
        drop_capabilities()
        set_dumpable(True)
        be_first_victim()
        restrict_self(RULES_FD if self.has_rules else -1)


def keep_at(number: int, fd: int) -> bool:
    """Moves a descriptor to a number. Returns False if there is none, which is -1."""
    if fd < 0:
        return False
    os.dup2(fd, number, False)
    os.close(fd)
    return True


def open_streams(null: int) -> None:
    """Opens the streams of programs, which write to pipes, and has this process read from `null` and write to its own
    stderr. The streams examine what they lead to when they are opened."""
    errors, pipes = os.dup(2), Pipes()
    for target, fd in enumerate((pipes.theirs[0], pipes.stdin, pipes.stdin)):
        os.dup2(fd, target)
    make_streams()
    for target, fd in enumerate((null, null, errors)):
        os.dup2(fd, target)
    close_all((*pipes.ours, *pipes.theirs, errors))


def become_zygotes(
    links: "list[_socket.socket]",
    workspace: str,
    program_filter: Filter,
    modules: "list[str]",
    await_message: bool = False,
) -> "NoReturn":
    """Turns a fresh fork of the supervisor into the first zygote. If there are two links, that forks the second one. If they
    are to await a message on the links, they prepare no program before: each takes seven descriptors in flight (see serve)
    until PID 1 serves."""
    link = links[0]
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1):  # they lead to the server
            os.dup2(null, fd)
        last_number = enter_namespaces()
        if os.fork() != 0:
            os._exit(0)  # the zygote is the first process of its namespace; orphaned, it becomes a child of PID 1
        # The children need the default actions; they cannot signal the zygotes themselves. No signal may have a handler
        # here: the init has the same handlers and the same memory, and programs can signal it. Without a handler the
        # kernel discards signals to an init.
        default_signals()
        program_filter.confine()
        os.chdir(workspace)
        make_screen(workspace)
        open_streams(null)
        warm_up()
        report = b""
        if len(links) > 1 and os.fork() == 0:
            link = links[1]
            report = preload(modules)
            warm_up()
        for other in links:
            if other is not link:
                other.close()
        os.dup2(null, 2)
        os.close(null)
        link.send(b"R" + REPORT.pack(int(os.readlink("/proc/self"))) + report)
        gc.collect()
        return_memory()
        gc.freeze()  # the pages then stay shared when a program runs a collection
        if report:  # the first zygote's heap is too small to gain
            use_huge_pages()
        if await_message and not link.recv(1):
            os._exit(0)  # PID 1 is gone
        Zygote(link, workspace, program_filter, last_number, alone=len(links) == 1).serve()
    except Unable as error:
        link.send(f"!{error.cause}\n{error}".encode())
    except BaseException as error:
        link.send(f"!\n{type(error).__name__}: {error}".encode())
    finally:
        os._exit(71)
