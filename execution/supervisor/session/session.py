"""A session: a sandbox that one client keeps for a while.

A session serves calls one after the other: Python in one interpreter whose state stays; commands, each in a shell of
its own; reads and writes of files. All of it belongs to one client, so unlike runs, calls are not isolated from each
other. They share background processes, the workspace and /tmp.

These rules hold, whatever its programs do:
  * The session ends at its time, with or without a server. Nothing else ends it: servers come and go.
  * A server that attaches finds the stream in order, even if the previous one left a frame unfinished (see
    SessionChannel).
  * A call that its server withdraws before it has begun does not begin: the client may have tried again.
  * A call ends at its time. A cell that does not react to the interrupt is killed with its interpreter, and the answer
    reports that.
"""

import gc
import os
import select
import time

import session_files
import tempfiles

from errno import EAGAIN, ECANCELED, EFBIG

from channel import Channel, Gone
from handover import fields, parse_fields
from kernel import Filter
from main import Start
from memory import pids
from results import send_results
from run import PARTS, Job, Run
from sandbox import PROTOCOL, PYTHON, Sandbox
from session_calls import Background, Call, CellCall, MAX_JOBS, ShellCall, most_processes
from session_channel import CLOCK_CHECK_SECONDS, SessionChannel
from session_processes import Family, Interpreter, Shell, has_children
from staging import Staging
from workspace import (
    Found,
    await_tick,
    changes,
    open_beneath,
    open_folder,
    open_up,
    post_skipped,
    send_file,
    send_files,
    stamp_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from main import Stem
    from typing import Any, NoReturn, Optional

MAX_CHECK_PAUSE = 2.0  # seconds between checks of a session that does nothing: each costs 0.3 to 1 ms of CPU time
STALE_SECONDS = 0.5  # if the start of a call takes longer, this process was frozen
KEPT = "; it stays in the session: read it there (GET .../files/PATH, or the tool read_file)"
EMPTY_FACTS = fields(
    exit_code=0, signal=0, timed_out=0, wall_us=0, kill_us=0, cpu_us=0, peak_kb=0, memory_kills=0, refused_processes=0,
    full=0, state_lost=0,
)  # fmt: skip


OP_PYTHON, OP_BASH, OP_READ, OP_WRITE, OP_LIST, OP_DELETE, OP_RENAME, OP_PACK = range(8)  # a job's "op"


def parse_limits(payload: bytes) -> "dict[str, int]":
    """Parses a job's limits. Returns none for a frame that a server has not sent completely."""
    try:
        return parse_fields(payload)
    except ValueError:
        return {}


class Session:
    """Serves calls until the session ends."""

    def __init__(self, channel: SessionChannel, workspace: str, program_filter: Filter) -> None:
        self.channel = channel
        self.workspace = workspace
        self.program_filter = program_filter
        self.sandbox = Sandbox(channel, workspace)
        self.root = self.sandbox.root
        self.family = Family(channel.show_life)
        self.interpreter: "Optional[Interpreter]" = None
        self.state_lost = False  # the interpreter has ended, and no server has confirmed that it knows
        self.last_output = [b"", b""]  # stdout and stderr of an ended interpreter since its last cell
        self.kills_before = 0  # processes that were killed for memory between the last call and this one
        self.background = Background(min(most_processes(), MAX_JOBS))
        self.at = -1  # index of the path of a call that an error is about
        self.check_pause = 0.0  # seconds between checks of what runs between calls
        self.listening = select.poll()
        for fd in (channel.receive_fd, self.family.wakeup_fd):
            self.listening.register(fd, select.POLLIN)

    def serve(self) -> "NoReturn":
        """Serves calls. Raises Gone at the end."""
        self.channel.send(b"R", fields(protocol=PROTOCOL, python=PYTHON, isolation="session"))
        while True:
            self.check_pause = 2 * self.sandbox.watches.pause
            self.channel.answer_greeting()
            staging = Staging(self.root)
            job = self.receive_job(staging)
            if job is None:
                staging.drop()
                continue
            staging.commit()
            self.at = staging.at
            try:
                if staging.error is not None:
                    raise staging.error
                self.serve_call(job)
            except OSError as error:
                message = str(error.strerror).lower().replace("\n", " ")
                self.channel.send(b"!", fields(errno=error.errno or 0, message=message, file=self.at))
            del job  # so that it does not occupy memory beside the next one

    def receive_job(self, staging: Staging) -> "Optional[Job]":
        """Receives a job. Returns None if it stays incomplete: the server withdraws it, or another has attached."""
        job = Job({})
        while True:
            kind, payload = self.receive()
            if kind == b"J":
                self.channel.begin_job()
                job = Job(parse_limits(payload))
                open_up(self.root)
            elif kind in PARTS:
                job.add(kind, payload)
            elif kind == b"F":
                staging.begin(payload.decode(errors="replace"))
            elif kind == b"D":
                staging.add(payload)
            elif kind == b"G" and job.limits:
                return job
            elif kind == b"H":
                self.state_lost = False
            elif kind == b"P":
                self.channel.pong()
            elif kind in (b"N", b"Y", b"L"):
                return None
            # K is ignored: its call has already ended.
            self.channel.show_life()

    def receive(self) -> "tuple[bytes, bytes]":
        """Waits for the next frame. Raises Gone at the session's end."""
        while True:
            if frame := self.channel.next_buffered():
                return frame
            if self.channel.buffer:
                self.channel.show_life()  # a large frame may arrive slowly
            # Background processes may use memory between calls too.
            timeout = min(self.channel.silence_left(), self.check_pause if has_children() else CLOCK_CHECK_SECONDS)
            events = self.listening.poll(timeout * 1000 + 1)
            for fd, _ in events:
                if fd == self.channel.receive_fd:
                    self.channel.read_available()
                elif fd != self.family.wakeup_fd and not (fd in self.background.kept and self.background.drain(fd)):
                    self.stop_listening(fd)
            self.family.reap()
            self.sandbox.watches.check()
            quiet = not events and (self.sandbox.watches.is_quiet() or self.only_waits())
            self.check_pause = min(2 * self.check_pause, MAX_CHECK_PAUSE) if quiet else 2 * self.sandbox.watches.pause

    def only_waits(self) -> bool:
        """Reports whether nothing runs between calls: the interpreter is the only process, and has one thread."""
        if self.interpreter is None or pids() != [self.interpreter.pid]:
            return False
        try:
            return len(os.listdir(f"/proc/{self.interpreter.pid}/task")) == 1
        except OSError:
            return False

    def keep_listening(self, fd: int, keep: bool) -> None:
        """Listens to a pipe between calls. If `keep` is set, its output is sent with the next cell."""
        closed = self.background.add(fd, keep)
        if closed is not None:
            self.stop_listening(closed)
        self.listening.register(fd, select.POLLIN)

    def stop_listening(self, fd: int) -> None:
        """Stops listening to a pipe. Does nothing where that has already happened."""
        try:
            self.listening.unregister(fd)
        except KeyError:
            pass  # its end was reached before

    def serve_call(self, job: Job) -> None:
        """Makes a call and reports on it. Raises OSError before the call has begun."""
        operation = job.limits["op"]
        if operation == OP_PYTHON:
            self.run_cell(job)
        elif operation == OP_BASH:
            self.run_command(job)
        elif operation == OP_READ:
            self.read_file(job)
        elif operation == OP_WRITE:
            self.begin()
            self.conclude(EMPTY_FACTS)
        elif operation in (OP_LIST, OP_PACK):
            self.show_folder(job, operation == OP_PACK)
        elif operation in (OP_DELETE, OP_RENAME):
            self.change_file(job, operation == OP_RENAME)
        else:
            raise Gone(f"an unknown operation {operation}")

    def begin(self) -> None:
        """Queues the report that a call begins."""
        self.channel.post(b"A")

    def conclude(self, facts: bytes) -> None:
        """Reports the facts about a call, and that the report is complete."""
        self.channel.post(b"X", facts)
        self.channel.send(b"Z")

    def facts(self, run: Run) -> bytes:
        """Returns the facts about a run that has ended. A lost state is reported until a server has confirmed it."""
        return self.sandbox.facts(run) + fields(state_lost=int(self.state_lost), memory_kills_before=self.kills_before)

    def read_file(self, job: Job) -> None:
        """Sends a file. Raises OSError."""
        path = job.code.decode()
        fd = open_beneath(self.root, path)
        status = os.fstat(fd)
        found = Found(path, "", stamp_of(status))
        os.close(fd)
        if found.size > job.limits["file_bytes"]:
            raise OSError(EFBIG, "too large")
        self.begin()
        self.channel.post(b"X", EMPTY_FACTS)
        session_files.send_entry(self.channel, session_files.Entry(path, status))
        if reason := send_file(self.channel, self.root, found):
            post_skipped(self.channel, path, reason)
        self.channel.send(b"Z")

    def show_folder(self, job: Job, pack: bool) -> None:
        """Sends a list of what a folder contains, or all of that. Raises OSError."""
        path, left = job.code.decode(), [job.limits["files"]]
        if pack:
            entries = session_files.closing(open_folder(self.root, path), f"{path}/" if path else "", left)
        else:
            entries = session_files.below_path(self.root, path, left)
        self.begin()
        self.channel.post(b"X", EMPTY_FACTS)
        try:
            if pack:
                session_files.send_tree(self.channel, self.root, entries, left)
            else:
                session_files.send_list(self.channel, entries, left)
        except OSError as error:
            post_skipped(self.channel, ".", os.strerror(error.errno).lower())
        self.channel.send(b"Z")

    def change_file(self, job: Job, rename: bool) -> None:
        """Deletes or renames what a path names. Raises OSError."""
        path, _, target = job.code.decode().partition("\0")
        session_files.kind_of(self.root, path)
        self.at = 1  # from here on an error is about the target, if there is one
        if rename:
            session_files.check_target(self.root, path, target)
            session_files.move(self.root, path, target)
        else:
            session_files.delete(self.channel, self.root, path)
        self.begin()
        self.conclude(EMPTY_FACTS)

    def run_cell(self, job: Job) -> None:
        """Runs a cell in the session's interpreter, or in a new one if that ends before it reads the cell. Raises
        OSError."""
        before = self.sandbox.stamps()
        before_temp = tempfiles.stamps()
        await_tick([*before.values(), *before_temp.values()])
        run = self.prepare_cell(job)
        if not self.start(run):
            return
        self.watch_cell(run)
        if run.untaken and self.interpreter is None:
            run = self.run_again(run, job)
        self.channel.post(b"X", self.facts(run))
        send_results(self.channel, job.limits["output_bytes"])
        try:
            send_files(self.channel, self.root, changes(self.channel, self.root, before), job.limits, KEPT)
        except OSError as error:
            post_skipped(self.channel, ".", os.strerror(error.errno).lower())
        tempfiles.post(self.channel, before_temp)
        self.channel.send(b"Z")

    def make_interpreter(self, job: Job) -> Interpreter:
        """Starts an interpreter. Its first cell's output begins with the last output of the one before. Raises
        OSError."""
        made: Interpreter = self.forked(lambda: Interpreter(self.family, self.workspace, self.program_filter, job))
        for fd, output in zip((made.stdout, made.stderr), self.last_output):
            self.background.kept[fd] = bytearray(output)
        self.last_output = [b"", b""]
        return made

    def run_again(self, run: CellCall, job: Job) -> CellCall:
        """Runs a cell that no interpreter has read, if another interpreter can be started. Returns the last run."""
        try:
            run = self.prepare_cell(job)
        except OSError:
            return run
        run.started = time.monotonic()
        self.watch_cell(run)
        return run

    def prepare_cell(self, job: Job) -> CellCall:
        """Prepares the call of a cell, and starts an interpreter if there is none. Raises OSError."""
        self.check_interpreter()
        if self.interpreter is None:
            self.interpreter = self.make_interpreter(job)
        self.interpreter.prepare()
        return CellCall(self.channel, self.interpreter, job, self.sandbox.watches, self.background)

    def watch_cell(self, run: CellCall) -> None:
        """Runs a cell to its end."""
        pipes = run.program.stdout, run.program.stderr
        for fd in pipes:
            self.stop_listening(fd)
        run.watch()
        for fd in pipes:
            self.keep_listening(fd, keep=True)
        self.check_interpreter()

    def check_interpreter(self) -> None:
        """Forgets an interpreter that has ended."""
        self.family.reap()
        if self.interpreter is not None and self.interpreter.ending is not None:
            fds = self.interpreter.stdout, self.interpreter.stderr
            for fd in fds:
                self.stop_listening(fd)
            self.last_output = [self.background.take_last(fd) for fd in fds]
            self.interpreter.close()
            self.interpreter = None
            self.state_lost = True

    def run_command(self, job: Job) -> None:
        """Runs a command in a shell of its own. Raises OSError."""
        shell = self.forked(lambda: Shell(self.family, self.workspace, self.program_filter, job))
        run = ShellCall(self.channel, shell, job, self.sandbox.watches, self.background)
        if not self.start(run):
            shell.discard()
            return
        shell.begin()
        run.watch()
        for fd in (shell.stdout, shell.stderr):
            self.keep_listening(fd, keep=False)
        self.check_interpreter()
        self.conclude(self.facts(run))

    def start(self, run: Call) -> bool:
        """Reports that a call begins, and records when. Returns False if the call has been cancelled, perhaps while
        this process was frozen. Such a call must not begin: its server may have told the client to try again. What the
        kernel refused before is not attributed to the call."""
        self.kills_before, _ = self.sandbox.pressure.take_counts()
        asked = time.monotonic()
        if run.is_cancelled():
            self.channel.send(b"!", fields(errno=ECANCELED, message="called off", file=0))
            return False
        self.begin()
        self.channel.flush()
        if time.monotonic() - asked > STALE_SECONDS and run.is_cancelled():
            self.conclude(EMPTY_FACTS)
            return False
        run.started = time.monotonic()
        return True

    def forked(self, make: "Callable[[], Any]") -> "Any":
        """Starts a process. If the limit on processes is reached, kills all others first: a client whose own processes
        fill the session could not even end them. Raises OSError."""
        try:
            return make()
        except OSError as error:
            if error.errno != EAGAIN:
                raise
        self.family.kill()
        self.check_interpreter()
        return make()


def serve(channel: Channel, start: Start, _: "Optional[Stem]") -> None:
    """Serves a session until it expires. Does not wait for a server that stops reading for the time of silence."""
    session = Session(SessionChannel(channel, start.expires), start.workspace, start.program_filter)
    gc.freeze()  # the pages then stay shared when the interpreter runs a collection
    session.serve()
