"""The supervisor's own tests: its parts, one by one. What it does as a whole is tested from outside, in integration/.

Run it in a sandbox, where the workspace is a place of its own: go test ./integration -run TestSupervisorUnits
"""

import os
import resource
import struct
import sys
import tempfile
import threading
import time
import unittest

from errno import EBUSY, EWOULDBLOCK
from unittest import mock

import supervisor

if supervisor.TYPE_CHECKING:
    from collections.abc import Callable


class ChannelTest(unittest.TestCase):
    def setUp(self) -> None:
        self.receive_fd, self.server_out = self.pipe()
        self.server_in, self.send_fd = self.pipe()
        self.channel = supervisor.Channel(self.receive_fd, self.send_fd, 0.2)
        self.never, _ = self.pipe()  # readable only if a program's process ended

    def pipe(self) -> "tuple[int, int]":
        pair = os.pipe()
        self.addCleanup(os.closerange, min(pair), min(pair) + 1)  # a test may have closed it
        self.addCleanup(os.closerange, max(pair), max(pair) + 1)
        return pair

    def test_frames_are_put_together_from_any_pieces(self) -> None:
        stream = b"".join(k + struct.pack(">I", len(p)) + p for k, p in [(b"C", b"x" * 300), (b"P", b""), (b"G", b"")])
        got = []
        for byte in stream:
            os.write(self.server_out, bytes([byte]))
            self.channel.read_available()
            while frame := self.channel.next_buffered():
                got.append(frame)
        self.assertEqual(got, [(b"C", b"x" * 300), (b"P", b""), (b"G", b"")])

    def test_receive_skips_pings(self) -> None:
        os.write(self.server_out, b"P\0\0\0\0G\0\0\0\0")
        self.assertEqual(self.channel.receive(self.never), (b"G", b""))

    def test_silence_means_gone(self) -> None:
        with self.assertRaisesRegex(supervisor.Gone, "silent"):
            self.channel.receive(self.never)

    def test_a_closed_connection_means_gone(self) -> None:
        os.close(self.server_out)
        with self.assertRaisesRegex(supervisor.Gone, "closed"):
            self.channel.receive(self.never)

    def test_a_huge_frame_means_gone(self) -> None:
        os.write(self.server_out, b"C\xff\xff\xff\xff")
        with self.assertRaisesRegex(supervisor.Gone, "4294967295 bytes"):
            self.channel.receive(self.never)

    def test_a_server_that_neither_reads_nor_speaks_means_gone(self) -> None:
        with self.assertRaisesRegex(supervisor.Gone, "silent"):
            self.channel.send(b"O", b"x" * (1 << 20))

    def test_a_server_that_closes_while_it_does_not_read_means_gone(self) -> None:
        os.close(self.server_out)
        with self.assertRaisesRegex(supervisor.Gone, "closed"):
            self.channel.send(b"O", b"x" * (1 << 20))

    def test_a_server_that_speaks_may_be_slow_to_read(self) -> None:
        began = time.monotonic()
        received = bytearray()

        def serve() -> None:
            while time.monotonic() < began + 3 * self.channel.silence:
                os.write(self.server_out, b"P\0\0\0\0")
                time.sleep(self.channel.silence / 4)
            while len(received) < (1 << 20) + 5:
                received.extend(os.read(self.server_in, 1 << 16))

        server = threading.Thread(target=serve)
        server.start()
        self.channel.send(b"D", b"x" * (1 << 20))
        server.join()
        self.assertEqual(received, b"D\0\x10\0\0" + b"x" * (1 << 20))

    def test_what_was_said_while_nobody_listened_counts(self) -> None:
        os.write(self.server_out, b"P\0\0\0\0")
        self.channel.heard -= 10
        self.assertEqual(self.channel.silence_left(), 0)
        self.channel.read_available()
        self.assertGreater(self.channel.silence_left(), 0)

    def test_what_is_posted_goes_out_before_what_is_sent(self) -> None:
        self.channel.post(b"F", b"a")
        self.channel.send(b"Z")
        self.assertEqual(os.read(self.server_in, 100), b"F\0\0\0\x01aZ\0\0\0\0")

    def received(self) -> bytes:
        """What the server has got by now, without waiting."""
        os.set_blocking(self.server_in, False)
        try:
            return os.read(self.server_in, 1 << 20)
        except BlockingIOError:
            return b""

    def test_a_ping_is_answered(self) -> None:
        os.write(self.server_out, b"P\0\0\0\0G\0\0\0\0")
        self.channel.receive(self.never)
        self.assertEqual(self.received(), b"P\0\0\0\0")

    def test_who_has_just_spoken_need_not_breathe(self) -> None:
        self.channel.send(b"O", b"x")
        self.channel.breathe()
        self.assertEqual(self.received(), b"O\0\0\0\1x")

    def test_who_has_long_said_nothing_breathes_once(self) -> None:
        self.channel.said -= 1
        for _ in self.channel.breathing([supervisor.Found("a", "")] * 3):
            pass
        self.assertEqual(self.received(), b"P\0\0\0\0")

    def test_what_waits_to_be_sent_is_as_good_as_a_pong(self) -> None:
        self.channel.post(b"X", b"y")
        self.channel.pong()
        self.assertEqual(self.received(), b"X\0\0\0\1y")

    def test_no_pong_waits_or_fails_where_there_is_no_room(self) -> None:
        filled = 0
        while True:
            try:
                filled += os.write(self.send_fd, b"x" * 4096)
            except BlockingIOError:
                break
        for _ in range(3):
            self.channel.pong()
        self.assertEqual(self.received(), b"x" * filled)
        self.channel.flush()
        self.assertEqual(self.received(), b"P\0\0\0\0")  # once

    def test_no_pong_fails_where_the_server_has_gone(self) -> None:
        os.close(self.server_in)
        self.channel.pong()
        with self.assertRaises(supervisor.Gone):
            self.channel.flush()

    def test_a_pong_does_not_break_a_frame(self) -> None:
        payload = b"x" * (1 << 20)
        self.channel.post(b"D", payload)
        self.channel.pong()  # as much of it as there is room for
        received = bytearray(self.received())
        self.assertLess(len(received), len(payload))
        while len(received) < 5 + len(payload):
            self.channel.pong()
            received += self.received()
        self.channel.pong()
        self.assertEqual(received, b"D\0\x10\0\0" + payload)
        self.assertEqual(self.received(), b"P\0\0\0\0")

    def test_a_short_run_says_nothing_but_its_report(self) -> None:
        self.channel.said -= 1  # it was idle
        program = mock.Mock(end_fd=self.never)
        with tempfile.TemporaryDirectory() as workspace:
            job = b"".join(k + struct.pack(">I", len(p)) + p for k, p in [(b"J", b"a=1\n"), (b"C", b"1"), (b"G", b"")])
            os.write(self.server_out, job)
            supervisor.receive_job(self.channel, program, workspace)
        self.assertEqual(self.received(), b"")

    def test_a_large_frame_that_comes_slowly_is_answered(self) -> None:
        os.write(self.server_out, b"C\0\0\0\2x")
        self.channel.read_available()
        self.channel.said -= 1
        server = threading.Timer(0.05, os.write, (self.server_out, b"y"))
        server.start()
        self.assertEqual(self.channel.receive(self.never), (b"C", b"xy"))
        server.join()
        self.assertEqual(self.received(), b"P\0\0\0\0")

    def test_fields(self) -> None:
        self.channel.send(b"X", supervisor.fields(exit_code=3, full=0))
        self.assertEqual(os.read(self.server_in, 100), b"X\0\0\0\x13exit_code=3\nfull=0\n")
        self.assertEqual(supervisor.parse_fields(b"a=1\nb=22\n"), {"a": 1, "b": 22})


class RunTest(unittest.TestCase):
    def test_no_frame_is_larger_than_the_server_takes(self) -> None:
        received, send_fd = os.pipe()
        pipes = supervisor.Pipes()
        for fd in (received, send_fd, *pipes.ours, *pipes.theirs):
            self.addCleanup(os.close, fd)
        channel = supervisor.Channel(received, send_fd, 1)
        program = supervisor.Program(pipes.ours, pipes.done)
        run = supervisor.Run(
            channel,
            program,
            supervisor.Job({"output_bytes": 150_000, "timeout_ms": 1000}),
            supervisor.Watches(
                supervisor.MemoryWatch(0, (), supervisor.Network()), supervisor.KernelWatch(supervisor.Network())
            ),
        )
        run.say(program.stdout, b"x" * 200_000)
        sizes = []
        while channel.posted:
            (size,) = struct.unpack_from(">I", channel.posted, 1)
            sizes.append(size)
            del channel.posted[: 5 + size]
        self.assertEqual(sizes, [65536, 65536, 150_000 - 2 * 65536, 0])  # the last says that more was printed


class LimitTest(unittest.TestCase):
    def test_a_lower_limit_stands(self) -> None:
        infinity = resource.RLIM_INFINITY
        for standing, asked, want in (
            (100, (1024, 1024), (100, 100)),
            (4096, (1024, 1024), (1024, 1024)),
            (infinity, (5, 6), (5, 6)),
            (7, (5, infinity), (5, 7)),
            (infinity, (5, infinity), (5, infinity)),
        ):
            with mock.patch("resource.getrlimit", return_value=(1, standing)), mock.patch(
                "resource.setrlimit"
            ) as set_it:
                supervisor.limit(resource.RLIMIT_NOFILE, *asked)
            set_it.assert_called_once_with(resource.RLIMIT_NOFILE, want)


class MemoryWatchTest(unittest.TestCase):
    """Looks at processes that have what is said, by number and with who has made them, under a limit of 100."""

    def setUp(self) -> None:
        self.watch = supervisor.MemoryWatch(100, (), supervisor.Network())
        self.now = 1000.0

    def look(
        self, processes: "dict[tuple[int, int], int]", later: float = 0.05, gone: "tuple[int, ...]" = ()
    ) -> "list[int]":
        """Looks some time later, and gives whom that has killed, or has tried to."""
        self.now += later
        killed: "list[int]" = []
        with (
            mock.patch.object(supervisor, "SMALL", 10),
            mock.patch.object(time, "monotonic", lambda: self.now),
            mock.patch.object(supervisor, "pids", lambda: [pid for pid, _ in processes]),
            mock.patch.object(supervisor, "parent_of", dict(processes.keys()).__getitem__),
            mock.patch.object(supervisor, "memory_of", lambda pid: {p: has for (p, _), has in processes.items()}[pid]),
            mock.patch.object(supervisor, "share_of", lambda pid, most: most),
            mock.patch.object(supervisor, "kill_quietly", lambda pid: killed.append(pid) or pid not in gone),
        ):
            self.watch.look()
        return killed

    def test_within_the_limit(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 40}), [])

    def test_the_largest_is_killed(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 1): 41}), [7])

    def test_not_too_often(self) -> None:
        self.assertEqual(self.look({(7, 1): 60}), [])
        self.assertEqual(self.look({(7, 1): 101}, later=0.01), [])
        self.assertEqual(self.look({(7, 1): 101}), [7])

    def test_who_starts_another_program_is_spared(self) -> None:
        for pid in range(8, 20):
            self.assertEqual(self.look({(7, 1): 60, (pid, 7): 60}), [])

    def test_for_a_moment_only(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 60}), [])
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 60}, later=0.3), [7])

    def test_one_for_each(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 60, (9, 7): 60}), [7])
        self.assertEqual(self.look({(7, 1): 60, (8, 7): 60, (9, 8): 60}), [7])  # and none for whom may be such itself

    def test_all_are_killed_where_it_escapes(self) -> None:
        self.assertEqual(self.look({(7, 1): 12, (8, 1): 101, (9, 1): 2}, gone=(8,)), [8] * supervisor.LOOKS + [7, 8])
        self.assertEqual(self.watch.kills, 1)

    def test_who_hands_its_memory_on_is_not(self) -> None:
        self.assertEqual(self.look({(7, 1): 60, (8, 1): 60}), [7])
        self.setUp()
        self.assertEqual(self.look({(9, 1): 60}), [])
        self.assertEqual(self.look({(11, 1): 60, (12, 1): 60}), [11])


class CompileTest(unittest.TestCase):
    def run_program(self, source: bytes, interactive: bool = True) -> "list[object]":
        shown: "list[object]" = []
        hook, sys.displayhook = sys.displayhook, shown.append
        try:
            namespace: "dict[str, object]" = {}
            supervisor.run_codes(supervisor.compile_program(source, "f.py", interactive), namespace)
        finally:
            sys.displayhook = hook
        return shown

    def test_the_last_expression_is_displayed(self) -> None:
        self.assertEqual(self.run_program(b"1\nx = 2\nx + 1"), [3])

    def test_a_statement_displays_nothing(self) -> None:
        self.assertEqual(self.run_program(b"x = 2"), [])
        self.assertEqual(self.run_program(b""), [])

    def test_nothing_is_displayed_where_not_asked_for(self) -> None:
        self.assertEqual(self.run_program(b"3", interactive=False), [])

    def test_a_coding_line_holds(self) -> None:
        self.assertEqual(self.run_program(b"# coding: latin-1\n'\xe9'"), ["é"])

    def test_future_flags_reach_the_last_expression(self) -> None:
        codes = supervisor.compile_program(b"from __future__ import annotations\n1", "f.py", True)
        self.assertEqual(codes[0].co_flags & 0x1000000, codes[1].co_flags & 0x1000000)

    def test_await_is_run_in_a_loop_of_its_own(self) -> None:
        source = b"import asyncio\nloop = asyncio.get_running_loop()\nasync def f(): return 3\nx = await f()\n"
        self.assertEqual(self.run_program(source + b"(await f(), asyncio.get_running_loop() is loop)"), [(3, True)])
        self.assertEqual(self.run_program(source + b"x"), [3])
        self.assertEqual(self.run_program(b"import asyncio\nasync def f(): return 3\nasyncio.run(f())"), [3])

    def test_what_a_coroutine_raises_is_raised(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            self.run_program(b"import asyncio\nawait asyncio.sleep(0)\n1 / 0")

    def test_exit_status(self) -> None:
        for code, status in [(None, 0), (0, 0), (3, 3), (-1, 255), (256, 0), (1 << 40, 255), (True, 1)]:
            self.assertEqual(supervisor.exit_status_of(SystemExit(code)), status, code)


class WorkspaceTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = folder.name
        self.root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, self.root)
        pipe = os.pipe()
        self.addCleanup(supervisor.close_all, pipe)
        self.channel = supervisor.Channel(*pipe, 1)

    def write(self, path: str, text: str = "x") -> None:
        os.makedirs(os.path.dirname(f"{self.path}/{path}"), exist_ok=True)
        with open(f"{self.path}/{path}", "w") as file:
            file.write(text)

    def found(self) -> "dict[str, str]":
        return {found.path: found.reason for found in supervisor.walk(self.root)}

    def test_regular_files_are_found_in_order(self) -> None:
        for path in ("b", "a/c", "a/b", "__main__.py", "a/__main__.py"):
            self.write(path)
        self.assertEqual(list(self.found()), ["__main__.py", "a/__main__.py", "a/b", "a/c", "b"])

    def test_the_program_itself_is_no_change_of_a_run(self) -> None:
        self.write("__main__.py")
        self.assertFalse(supervisor.any_change(self.channel, self.root, {}, supervisor.MAIN_FILE))
        self.write("a/__main__.py")
        changed = supervisor.changes(self.channel, self.root, {}, supervisor.MAIN_FILE)
        self.assertEqual([found.path for found in changed], ["a/__main__.py"])
        self.assertEqual(
            len(list(supervisor.changes(self.channel, self.root, {}))), 2
        )  # in a session it is nothing special

    def test_links_are_not_followed(self) -> None:
        os.symlink("/etc", f"{self.path}/d")
        os.symlink("/etc/passwd", f"{self.path}/f")
        self.assertEqual(self.found(), {"d": "it is a link", "f": "it is a link"})
        with self.assertRaises(OSError):
            supervisor.open_beneath(self.root, "d/passwd")
        with self.assertRaises(OSError):
            supervisor.open_beneath(self.root, "f")

    def test_odd_names_are_named(self) -> None:
        for name in (b"\xff", b"a\nb", b"a\\b", "\x85".encode()):
            open(os.path.join(os.fsencode(self.path), name), "w").close()
        self.assertEqual(len([reason for reason in self.found().values() if "its name" in reason]), 4)

    def test_a_change_changes_the_stamp(self) -> None:
        self.write("a", "1")
        before = {found.path: found.stamp for found in supervisor.walk(self.root)}
        supervisor.await_tick(before.values())
        self.write("a", "2")
        os.utime(f"{self.path}/a", ns=(0, 0))  # the program can set the modification time, but not the change time
        after = {found.path: found.stamp for found in supervisor.walk(self.root)}
        self.assertNotEqual(before["a"], after["a"])

    def test_too_many_entries_are_cut_and_told(self) -> None:
        most, supervisor.MAX_ENTRIES = supervisor.MAX_ENTRIES, 3
        self.addCleanup(setattr, supervisor, "MAX_ENTRIES", most)
        for name in "abcde":
            self.write(name)
        reasons = list(self.found().values())
        self.assertEqual(reasons[:3], ["", "", ""])
        self.assertIn("more than 3 entries", reasons[3])
        self.assertEqual(len(reasons), 4)
        before = {found.path: found.stamp for found in supervisor.walk(self.root)}
        self.assertEqual(len(list(supervisor.changes(self.channel, self.root, before))), 1)  # it is told each time

    def test_staging_makes_folders_and_refuses_to_overwrite(self) -> None:
        os.close(supervisor.stage(self.path, "a/b/c"))
        with self.assertRaises(FileExistsError):
            supervisor.stage(self.path, "a/b/c")

    def test_links_into_the_home(self) -> None:
        self.write("skeleton/.cache/m/fonts.json", "{}")
        os.mkdir(f"{self.path}/home")
        home = supervisor.Home(f"{self.path}/skeleton", f"{self.path}/home")
        for _ in range(2):
            home.make()
            self.assertTrue(os.path.islink(f"{self.path}/home/.cache/m/fonts.json"))
            self.write("home/.cache/m/other", "the folder itself can be written")
            self.empty("home")

    def empty(self, path: str, left: int = 100) -> None:
        folder = os.open(f"{self.path}/{path}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            supervisor.empty(folder, [left])
        finally:
            os.close(folder)

    def test_modules_are_forgotten_for_staged_ones(self) -> None:
        for path in ("calendar.py", "json/__init__.py", "email/data.csv", "os.py", "notes.txt"):
            self.write(path, "")
        import calendar, email, json.decoder  # noqa: F401, E401

        kept = dict(sys.modules)
        self.addCleanup(sys.modules.update, kept)
        supervisor.forget_shadowed(self.path)
        for name in ("calendar", "json", "json.decoder"):
            self.assertNotIn(name, sys.modules)
        for name in ("email", "os", "__main__", "supervisor"):
            self.assertIn(name, sys.modules)

    def send(self, found: supervisor.Found, meanwhile: "Callable[[], object]" = lambda: None) -> str:
        """Sends a file to nobody. Meanwhile something happens."""
        receive_fd, send_fd = os.pipe()
        for fd in (receive_fd, send_fd):
            self.addCleanup(os.close, fd)
        channel = supervisor.Channel(receive_fd, send_fd, 1)
        real_flush = channel.flush

        def flush() -> None:
            meanwhile()
            real_flush()

        with mock.patch.object(channel, "flush", flush):
            return supervisor.send_file(channel, self.root, found)

    def test_a_file_that_has_changed_is_not_sent_as_whole(self) -> None:
        self.write("a", "before")
        (found,) = supervisor.walk(self.root)
        supervisor.await_tick([found.stamp])
        self.assertEqual(self.send(found), "")
        for change in (
            lambda: os.truncate(f"{self.path}/a", 1),
            lambda: self.write("a", "beforehand"),
            lambda: self.write("a", "behind"),  # no longer, no shorter
            lambda: os.rename(f"{self.path}/b", f"{self.path}/a"),
        ):
            self.write("b", "before")
            self.write("a", "before")
            found = next(found for found in supervisor.walk(self.root) if found.path == "a")
            supervisor.await_tick([found.stamp])
            with self.assertRaisesRegex(supervisor.Gone, "changed"):
                self.send(found, change)
            self.assertIn("changed", self.send(found))

    def test_a_file_with_a_lease_is_not_waited_for(self) -> None:
        """In a sandbox nobody gets a lease any more, so what the kernel does is played."""
        self.write("a")
        (found,) = supervisor.walk(self.root)
        real_open = os.open

        def open_leased(path: "str | int", flags: int, *rest: int, **more: int) -> int:
            if str(path).startswith("/proc/self/fd/"):
                self.assertTrue(flags & os.O_NONBLOCK, "it would sleep for lease-break-time")
                raise BlockingIOError(EWOULDBLOCK, os.strerror(EWOULDBLOCK))
            return real_open(path, flags, *rest, **more)

        with mock.patch.object(os, "open", open_leased):
            with self.assertRaises(OSError) as caught:
                supervisor.open_beneath(self.root, "a")
            self.assertEqual(caught.exception.errno, EBUSY)
            self.assertEqual(supervisor.send_file(supervisor.Channel(0, self.root, 1), self.root, found), "in use")

    def test_emptying_leaves_nothing(self) -> None:
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

    def test_emptying_gives_up_on_too_much(self) -> None:
        for i in range(5):
            self.write(f"p/{i}")
        with self.assertRaisesRegex(OSError, "too much"):
            self.empty("p", left=4)
        deep = f"{self.path}/deep"
        for _ in range(supervisor.MAX_LEFT_DEPTH + 4):
            os.mkdir(deep)
            deep += "/d"
        with self.assertRaisesRegex(OSError, "too much"):
            self.empty("deep")


class ShowsTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.shows = supervisor.Shows()
        self.shows.workspace = folder.name

    def files(self) -> "list[str]":
        return sorted(os.listdir(self.shows.workspace))

    def test_files_are_counted_up_and_none_is_overwritten(self) -> None:
        for name in ("figure-1.png", "figure-3.png"):
            with open(f"{self.shows.workspace}/{name}", "w") as file:
                file.write("kept")
        for data in (b"a", b"b"):
            self.shows.save(data, "figure", "png")
        self.assertEqual(self.files(), ["figure-1.png", "figure-2.png", "figure-3.png", "figure-4.png"])
        with open(f"{self.shows.workspace}/figure-1.png") as file:
            self.assertEqual(file.read(), "kept")

    def test_what_is_rendered(self) -> None:
        cases: "list[tuple[object, object]]" = [
            (lambda self: b"x", b"x"),
            (lambda self: (b"x", {}), b"x"),
            (lambda self: (), None),
            (lambda self: "x", None),
            (lambda self: 1 / 0, None),
            (property(lambda self: 1 / 0), None),
            (None, None),
        ]
        for method, want in cases:
            value = type("A", (), {"_repr_png_": method})()
            self.assertEqual(supervisor.rendered(value, "_repr_png_", bytes), want)
        self.assertIsNone(supervisor.rendered(3, "_repr_png_", bytes))

    def test_a_picture_comes_before_html(self) -> None:
        both = {"_repr_png_": lambda self: b"x", "_repr_html_": lambda self: "x"}
        self.shows.save_picture_of(type("A", (), both)())
        self.assertEqual(self.files(), ["figure-1.png"])
        self.shows.save_picture_of(type("A", (), {**both, "_repr_png_": lambda self: None})())
        self.assertEqual(self.files(), ["figure-1.png", "output-1.html"])

    def test_pyplot_alone_is_found(self) -> None:
        hook = supervisor.PyplotHook(self.shows)
        self.assertIsNone(hook.find_spec("colorsys"))
        self.assertIsNone(hook.find_spec("matplotlib.pyplot", []))


class TracebackTest(unittest.TestCase):
    def test_frames_of_the_supervisor_are_left_out(self) -> None:
        class Broken:
            def __repr__(self) -> str:
                raise ValueError

        try:
            supervisor.run_codes(
                supervisor.compile_program(b"show(x)", "f.py", False), {"show": self.show, "x": Broken()}
            )
        except ValueError as error:
            trace = supervisor.without_ours(error.__traceback__.tb_next if error.__traceback__ else None)
        names = []
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        self.assertEqual(names, ["<module>", "show", "__repr__"])

    def show(self, value: object) -> None:
        supervisor.Shows().display(value)


class CounterTest(unittest.TestCase):
    def test_the_first_file_that_exists_counts(self) -> None:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("low 1\noom_kill 7\n")
            file.flush()
            oom = supervisor.Counter(("/nowhere", file.name), "oom_kill")
            self.assertEqual(oom.read(), 7)
            self.assertEqual(supervisor.Counter((file.name,), "max").read(), 0)
            self.assertEqual(supervisor.Counter(("/nowhere",), "max").read(), 0)
            file.seek(0)
            file.write("low 1\noom_kill 9\n")
            file.flush()
            self.assertEqual(oom.read(), 9)


class FarewellTest(unittest.TestCase):
    def setUp(self) -> None:
        self.read_fd, write_fd = os.pipe()
        os.dup2(write_fd, supervisor.DONE_FD)
        os.close(write_fd)
        self.addCleanup(os.close, self.read_fd)
        os.set_blocking(self.read_fd, False)
        self.farewell = supervisor.Farewell()

    def said(self) -> bytes:
        try:
            return os.read(self.read_fd, 100)
        except BlockingIOError:
            return b""

    def test_it_is_said_with_its_status(self) -> None:
        self.farewell.say(3)
        self.assertEqual(supervisor.DONE.unpack(self.said())[0], 3)
        os.close(supervisor.DONE_FD)

    def test_a_fork_keeps_silent(self) -> None:
        self.farewell.process += 1
        self.farewell.say(0)
        self.assertEqual(self.said(), b"")
        os.close(supervisor.DONE_FD)

    def test_another_file_at_its_place_is_left_alone(self) -> None:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), supervisor.DONE_FD)
            self.farewell.say(0)
            self.assertEqual(os.fstat(file.fileno()).st_size, 0)
        os.close(supervisor.DONE_FD)
        self.farewell.say(0)  # to nobody


if __name__ == "__main__":
    unittest.main()
