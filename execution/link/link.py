"""PID 1 of a blank sandbox: waits for a server, and becomes the supervisor that the server sends.

The arguments are the port, and the seconds after which a server that is silent counts as gone. After a reset there follow
the generation, which network there is to be (SHARED, OWN or ANOTHER), and the descriptors of the listener, of the
identity, of what the last server sent, of its compiled modules and of this program. A blank is of generation 1.

  * A server is authenticated by its certificate, which the CA in VIVARIUM_LINK_CA has issued. This process is
    authenticated by its key, which an init container has put in a file of the workspace.
  * Where the kernel allows it, everything here is in a network namespace of its own, which has only the loopback device,
    unless VIVARIUM_LINK_NETWORK is "pod". The listener, and what it accepts, stay in the network in which they were made.
  * What becomes the zygotes, and so every program, is forked before the key is read (see Stem).
  * What a server is going to send is known ahead: from files beside this program, and then from the last generation. It
    is loaded, and the zygotes are made, before the server comes.
  * When serving ends, whatever the reason, all that is left is removed and this process executes itself again: a reset.
    If no server comes for the next generation, it exits. A sandbox never goes back to generation 1.
"""

import _socket
import ctypes
import marshal
import os
import select
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, NoReturn, Optional
else:
    import _signal

KEY_FILE = "/workspace/.vivarium-link"
PROTOCOL = "vivarium-link/1"  # the protocol's name in the handshake (ALPN)
END_PROTOCOL = "vivarium-link-end/1"  # the name with which a server has this sandbox end
HANDSHAKE_SECONDS = 10  # a sandbox that may use little CPU needs some of them
MAX_PENDING = 4  # connections whose handshake is not complete
MAX_BOOT = 4 << 20  # bytes that a server may send before the supervisor runs
CHUNK = 1 << 16
SHARED, OWN, ANOTHER = range(3)  # the network of the next generation: the pod's, the last one's, or a new one
# What a reset executes: this program, compiled, which saves 15 ms.
AGAIN = "import marshal, os; exec(marshal.loads(os.pread(%d, 1 << 20, 0)))"
NO_KEY = 42  # the exit status of a container that was restarted
TCP_USER_TIMEOUT = 18  # tcp(7)
# unshare(2)
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
# prctl(2)
PR_SET_DUMPABLE, PR_GET_SECCOMP, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 21, 22, 24, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522  # capset(2)
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # netdevice(7)

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """A server asks for something that this sandbox cannot be. The first line may name a cause for the server."""


def listen(port: int) -> "_socket.socket":
    """Returns a socket that listens on all addresses."""
    try:
        listener = _socket.socket(_socket.AF_INET6, _socket.SOCK_STREAM)
        listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
        listener.bind(("::", port))
    except OSError:
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        listener.bind(("0.0.0.0", port))
    listener.listen(MAX_PENDING)
    return listener


def isolate() -> bool:
    """Moves this process to a network namespace of its own. Returns whether the kernel allows it."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # otherwise root owns the files below; no other process is here yet
    # The zygotes, in namespaces within this one, can only map what is mapped here.
    maps = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1", "projid_map": "0 0 1"}
    for name, text in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    loopback = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    request = struct.pack("16sh14x", b"lo", IFF_UP)
    raised = libc.ioctl(loopback.fileno(), ctypes.c_ulong(SIOCSIFFLAGS), request)
    loopback.close()
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    dropped = libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    if raised != 0 or dropped != 0:
        sys.exit(f"the sandbox's own network could not be set up: {os.strerror(ctypes.get_errno())}")
    return True


class Stem:
    """A process that becomes the zygotes. It was forked before this process read the key: a program must not find that in
    its own memory. It waits for the modules, which it loads, and then for the word to begin."""

    def __init__(self, inherited: "list[int]") -> None:
        """Forks. The new process closes the inherited descriptors, and does not return."""
        self.pairs = [_socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET) for _ in range(2)]
        self.control, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.pid = os.fork()
        if self.pid == 0:
            for ours in (self.control, *(pair[0] for pair in self.pairs)):
                ours.close()
            for fd in inherited:
                os.close(fd)
            try:
                self.become(theirs)
            except BaseException as error:
                os.write(2, f"the zygotes could not be started: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(71)
        os.setpgid(self.pid, self.pid)  # its zygotes stay in this group
        for other in (theirs, *(pair[1] for pair in self.pairs)):
            other.close()

    def become(self, control: "_socket.socket") -> None:
        """Loads what comes, and becomes that when it receives the word to begin."""
        received = control.recvmsg(1, _socket.CMSG_SPACE(8))[1]
        if not received:
            os._exit(0)  # PID 1 is gone
        files = struct.unpack("2i", received[0][2])
        boot, compiled = Boot(files[0]), contents(files[1])
        for fd in files:
            os.close(fd)
        boot.limit()
        space = boot.load(compiled)
        if control.recv(1):
            control.close()
            space["last"].become_zygotes_of_stem([theirs for _, theirs in self.pairs], sys.argv[1:])

    def load(self, boot: "Boot", compiled: int) -> None:
        """Has the process load what a server sends, with a file of modules."""
        files = struct.pack("2i", boot.file, compiled)
        self.control.sendmsg([b"L"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])

    def descriptors(self) -> "list[int]":
        """Returns the descriptors with which this process reaches the other."""
        return [self.control.fileno(), *(ours.fileno() for ours, _ in self.pairs)]

    def start(self) -> None:
        """Tells the process to become the zygotes."""
        self.control.send(b"!")
        self.control.close()

    def begin(self, count: int) -> "list[_socket.socket]":
        """Returns the links to so many zygotes, which the process becomes now unless it has begun. They prepare
        programs now."""
        if self.control.fileno() >= 0:
            self.start()
        for ours, _ in self.pairs[count:]:
            ours.close()
        links = [ours for ours, _ in self.pairs[:count]]
        for link in links:
            link.send(b"!")
        return links

    def dismiss(self) -> None:
        """Ends the process, or the zygotes that it has become."""
        os.killpg(self.pid, _signal.SIGKILL)
        self.control.close()
        for ours, _ in self.pairs:
            ours.close()
        try:
            while True:  # zygotes become children of this process
                os.waitpid(-self.pid, 0)
        except ChildProcessError:
            pass


class Boot:
    """What a server has this process become: settings and texts. The texts are variables, as many as a setting says, the
    program that compiles the modules, the one that loads them, and the arguments of both, which "--" separates."""

    def __init__(self, file: int) -> None:
        """Reads both from a file, and keeps it."""
        self.file = file
        self.settings, self.texts = settings, texts = marshal.loads(contents(file))
        self.own_network, self.lasting, self.zygotes = (
            settings[name] == "1" for name in ("own_network", "lasting", "zygotes")
        )
        variables = int(settings["variables"])
        self.environment, (self.compiling, self.loading, *arguments) = texts[:variables], texts[variables:]
        end = arguments.index("--") + 1
        self.modules, self.arguments = arguments[:end], arguments[end:]

    def equals(self, other: "Boot") -> bool:
        """Reports whether both become the same, of whatever generations."""
        return (self.texts, {**self.settings, "generation": ""}) == (other.texts, {**other.settings, "generation": ""})

    def compiles_like(self, other: "Boot") -> bool:
        """Reports whether both have the same modules."""
        return (self.compiling, self.modules) == (other.compiling, other.modules)

    def compile_into(self, fd: int) -> None:
        """Compiles the modules, and writes them to a file. Their program defines modules, and removes its arguments."""
        sys.argv[1:] = self.modules
        space: "dict[str, Any]" = {"stem": True}
        exec(self.compiling, space)
        with open(fd, "wb", closefd=False) as file:
            marshal.dump(space["modules"], file)

    def load(self, compiled: bytes) -> "dict[str, Any]":
        """Loads modules that were compiled, which look at arguments and variables. Returns the variables of the program that
        does that."""
        sys.argv[1:] = self.arguments
        for entry in self.environment:
            name, _, value = entry.partition("=")
            os.environ[name] = value
        space: "dict[str, Any]" = {"__name__": "__main__", "modules": marshal.loads(compiled)}
        exec(self.loading, space)
        return space

    def limit(self) -> None:
        """Gives this process the filter, and the limits."""
        import resource

        confine(bytes.fromhex(self.settings["filter"]))
        for name, text in self.settings.items():
            if name.startswith("limit_"):
                kind, most = int(name[6:]), int(text)
                hard = resource.getrlimit(kind)[1]
                most = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.setrlimit(kind, (most, most))


def confine(code: bytes) -> None:
    """Applies a seccomp filter to this process and its descendants. Does nothing where a filter applies: the runtime's, or
    after a reset this one. Raises OSError."""
    if not code or libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0:
        return
    instructions = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HP", len(code) // 8, ctypes.addressof(instructions)))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")


def take_identity() -> int:
    """Moves the key and the certificate from their file to memory that has no name. Returns its descriptor."""
    try:
        with open(KEY_FILE, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        os.write(2, b"the key is gone: this container was restarted, and never serves again\n")
        os._exit(NO_KEY)
    os.unlink(KEY_FILE)
    return new_file(text)


class Peer:
    """A connection, and the state of TLS on it."""

    def __init__(self, context: "Any", connection: "_socket.socket") -> None:
        import _ssl  # type: ignore[import]

        self.wants = (_ssl.SSLWantReadError, _ssl.SSLWantWriteError)
        self.incoming, self.outgoing = _ssl.MemoryBIO(), _ssl.MemoryBIO()
        self.tls = context._wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.deadline = time.monotonic() + HANDSHAKE_SECONDS
        for option, value in ((_socket.TCP_KEEPIDLE, 5), (_socket.TCP_KEEPINTVL, 3), (_socket.TCP_KEEPCNT, 3)):
            connection.setsockopt(_socket.IPPROTO_TCP, option, value)
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        connection.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        connection.setsockopt(_socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 10_000)
        connection.setblocking(False)
        self.fd = connection.detach()
        self.unsent = b""  # encrypted, and not written yet

    def shake_hands(self) -> bool:
        """Goes on with the handshake. Returns whether it is complete. Raises OSError if it fails. Does not return where the
        server has this sandbox end."""
        if not self.feed():
            raise ConnectionError("the connection ended during the handshake")
        try:
            self.tls.do_handshake()
        except self.wants:
            return False
        finally:
            self.push()
        protocol = self.tls.selected_alpn_protocol()
        if protocol == END_PROTOCOL:
            os._exit(0)
        if protocol != PROTOCOL:
            raise ConnectionError("the server does not speak this link's protocol")
        return True

    def feed(self) -> bool:
        """Reads what has arrived. Returns False at the end of the connection."""
        data = os.read(self.fd, CHUNK)
        self.incoming.write(data)
        return bool(data)

    def push(self) -> None:
        """Writes what is encrypted. Raises BlockingIOError where it does not fit."""
        self.unsent += self.outgoing.read()
        while self.unsent:
            self.unsent = self.unsent[os.write(self.fd, self.unsent) :]

    def read(self) -> "Optional[bytes]":
        """Returns what the server has sent; nothing at the end; None if no whole record has arrived. Raises OSError."""
        return self.decrypt() if self.feed() else b""

    def decrypt(self) -> "Optional[bytes]":
        """Returns what is in the records that have arrived; nothing at the end; None if there is none. Raises OSError."""
        parts = []
        try:
            while part := self.tls.read(CHUNK):
                parts.append(part)
        except self.wants:
            return b"".join(parts) or None
        return b"".join(parts)

    def write(self, data: "bytes | bytearray") -> int:
        """Encrypts and writes some of the data, and returns how much. Some of that may be unsent. Raises BlockingIOError
        while earlier data is."""
        self.push()
        taken: int = self.tls.write(data[:CHUNK]) if data else 0
        try:
            self.push()
        except BlockingIOError:
            pass
        return taken


class Link:
    """The way to the servers. It is a stream for Channel, and outlives what is served."""

    def __init__(self, program: "CodeType", arguments: "list[str]") -> None:
        """Listens, and isolates this process. After a reset it takes over what the last generation has left."""
        self.again = arguments[:2]
        self.environment = dict(os.environ)
        self.authority = os.environ.pop("VIVARIUM_LINK_CA", "")
        shares_network = os.environ.pop("VIVARIUM_LINK_NETWORK", "none") == "pod"
        self.silence = float(arguments[1])
        first = 1, SHARED if shares_network else ANOTHER, -1, -1, -1, -1, -1
        self.generation, network, listener, self.identity, sent, compiled, self.program = map(
            int, arguments[2:] or first
        )
        if self.program < 0:
            self.program = new_file(marshal.dumps(program))
        self.listener = listen(int(arguments[0])) if listener < 0 else _socket.socket(fileno=listener)
        self.isolated = network == OWN or network == ANOTHER and isolate()
        if self.generation > 1 and network == ANOTHER and not self.isolated:
            sys.exit("there can be no other network: the namespaces are nested too deep")
        self.listener.setblocking(False)
        self.compiled: "list[tuple[Boot, int]]" = []  # with the files of their modules
        self.expected: "Optional[Boot]" = None  # what has begun in the first stem
        self.space: "dict[str, Any]" = {}  # where this process has loaded that
        inherited = [fd for fd in (self.listener.fileno(), self.identity, sent, compiled, self.program) if fd >= 0]
        self.stem = Stem(inherited)
        self.spare = Stem([*inherited, *self.stem.descriptors()])
        self.ahead = find_ahead() if self.generation == 1 else []  # what is to be prepared
        if sent >= 0:
            self.expect(Boot(sent), compiled)
        if self.identity < 0:
            self.identity = take_identity()
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        self.context = self.tls_context()
        self.events = select.epoll()
        self.events.register(self.listener.fileno(), select.EPOLLIN)
        self.receive_fd = self.events.fileno()  # readable when there is something for read to do
        self.send_fd = os.open(os.devnull, os.O_WRONLY)  # the connection, while there is one
        self.pending: "dict[int, Peer]" = {}
        self.peer: "Optional[Peer]" = None
        self.early = b""  # what a server has sent for the supervisor
        self.lasting = False  # servers come and go

    def tls_context(self) -> "Any":
        """Returns what authenticates this process, and servers."""
        import _ssl  # 6 ms of each start and reset, when the stems have begun; ssl takes 30

        context = _ssl._SSLContext(_ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _ssl.PROTO_TLSv1_3
        context.verify_mode = _ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.authority)
        context.load_cert_chain(f"/proc/self/fd/{self.identity}")
        context._set_alpn_protocols(b"".join(bytes([len(name)]) + name.encode() for name in (PROTOCOL, END_PROTOCOL)))
        context.num_tickets = 0
        return context

    @property
    def unsent(self) -> bytes:
        """What was accepted by write and is not written yet."""
        return self.peer.unsent if self.peer else b""

    def read(self) -> "Optional[bytes]":
        """Returns what the server has sent; nothing at the end; None if there is nothing yet. Servers that may come and go
        have no end."""
        self.drop_late()
        for fd, _ in self.events.poll(0):
            if fd == self.listener.fileno():
                self.accept()
            elif fd in self.pending:
                if self.go_on(fd):  # it may have sent more with the end of the handshake
                    return self.read_peer(Peer.decrypt)
            elif fd == self.send_fd:
                return self.read_peer(Peer.read)
        return None

    def read_peer(self, how: "Callable[[Peer], Optional[bytes]]") -> "Optional[bytes]":
        """Reads from the server."""
        if not self.peer:
            return None
        try:
            data = how(self.peer)
        except BlockingIOError:
            return None
        except OSError:  # a record that is not the server's, or a connection that has failed
            data = b""
        if data == b"":
            self.leave()
            return None if self.lasting else b""
        return data

    def write(self, data: "bytes | bytearray") -> int:
        """Accepts some of the data for the server, and returns how much. Raises OSError if there is no server, and
        BlockingIOError if it does not read."""
        if not self.peer:
            raise BrokenPipeError("the server is gone")
        return self.peer.write(data)

    def accept(self) -> None:
        """Accepts a connection."""
        try:
            fd, _ = self.listener._accept()  # type: ignore[attr-defined]
            peer = Peer(self.context, _socket.socket(fileno=fd))
        except OSError:
            return
        while len(self.pending) >= MAX_PENDING:
            self.drop(next(iter(self.pending)))
        self.pending[peer.fd] = peer
        self.events.register(peer.fd, select.EPOLLIN)

    def go_on(self, fd: int) -> bool:
        """Goes on with a handshake. Returns whether it is complete: then the server takes the place of the one before."""
        peer = self.pending[fd]
        try:
            if not peer.shake_hands():
                return False
        except OSError:
            self.drop(fd)
            return False
        del self.pending[fd]
        self.events.unregister(fd)
        os.dup2(fd, self.send_fd, False)
        os.close(fd)
        peer.fd = self.send_fd
        self.peer = peer
        self.events.register(self.send_fd, select.EPOLLIN)
        return True

    def drop(self, fd: int) -> None:
        """Closes a connection whose handshake is not complete."""
        del self.pending[fd]
        os.close(fd)

    def drop_late(self) -> None:
        """Closes connections whose handshake takes too long."""
        now = time.monotonic()
        for fd in [fd for fd, peer in self.pending.items() if peer.deadline < now]:
            self.drop(fd)

    def leave(self) -> None:
        """Closes the connection to the server."""
        self.peer = None
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.send_fd, False)
        os.close(null)

    def finish(self, seconds: float) -> None:
        """Ends the connection: the server gets all that was written. If this process closed it at once, and the server had
        sent something that was not read, the kernel would discard what is on its way. A server that sends nothing for
        some seconds is not waited for."""
        peer = self.peer
        if not peer:
            return
        shutdown = _socket.socket(fileno=os.dup(self.send_fd))
        try:
            shutdown.shutdown(_socket.SHUT_WR)
        except OSError:
            seconds = 0
        shutdown.close()
        deadline = time.monotonic() + seconds
        while self.peer is peer and time.monotonic() < deadline:
            self.events.poll(deadline - time.monotonic())
            if self.read():
                deadline = time.monotonic() + self.silence

    def await_boot(self) -> "Boot":
        """Waits for a server that sends what to become, and prepares meanwhile what is expected. Exits if none comes after a
        reset."""
        buffer = b""
        deadline = time.monotonic() + (self.silence if self.generation > 1 else float("inf"))
        while True:
            peer = self.peer
            has_time = bool(self.ahead) and not (self.peer or self.pending)
            if not self.events.poll(0 if has_time else 1) and has_time:
                self.prepare_ahead()
            data = self.read()
            if self.peer is not peer or data == b"":
                buffer = b""
            buffer += data or b""
            if sent := parse_sent(buffer):
                self.early, buffer = sent[2], b""
                try:
                    return self.check(*sent[:2])
                except Refused as error:
                    self.refuse(str(error).encode())
            if self.peer and (self.peer.deadline < time.monotonic() or len(buffer) > MAX_BOOT):
                self.leave()
            if deadline < time.monotonic() and not self.peer:
                os._exit(0)

    def check(self, settings: "dict[str, str]", texts: "list[str]") -> Boot:
        """Returns what a server has sent. Raises Refused if this sandbox cannot be that."""
        generation, own_network = settings.get("generation"), settings.get("own_network")
        if generation != str(self.generation):
            raise Refused(f"this is generation {self.generation} of the sandbox, not {generation}")
        if own_network == "1" and not self.isolated:
            raise Refused("cause=namespaces_denied\nthe sandbox could not be given a network namespace of its own")
        file = new_file(marshal.dumps((settings, texts)))
        try:
            return Boot(file)
        except (KeyError, ValueError) as error:
            os.close(file)
            raise Refused(f"the server sent what this sandbox does not know: {error!r}") from None

    def refuse(self, reason: bytes) -> None:
        """Tells the server why this cannot be what it wants, and closes the connection to it."""
        try:
            self.write(b"G" + struct.pack(">I", len(reason)) + reason)
        except OSError:
            pass
        self.leave()

    def prepare_ahead(self) -> None:
        """Compiles what a server is going to send, if it is of the version of the pool: a claim would take 44 to 59 ms of
        processor time more. A child process does that, because compiling leaves gaps in the heap."""
        boot = self.ahead.pop(0)
        fd = os.memfd_create("compiled", os.MFD_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            try:
                boot.compile_into(fd)
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(pid, 0)[1] == 0:
            self.expect(boot, fd)
        else:  # a server gets the reason when it sends the same
            os.close(boot.file)
            os.close(fd)

    def expect(self, boot: Boot, compiled: int) -> None:
        """Has the first stem become the zygotes of what a server is going to send, if it has any: that takes 50 ms of
        processor time. Keeps the modules, which were compiled into a file."""
        self.compiled.append((boot, compiled))
        if boot.zygotes and not self.expected:
            self.expected = boot
            self.stem.load(boot, compiled)
            self.stem.start()
            self.space = boot.load(contents(compiled))

    def load(self, boot: Boot) -> "dict[str, Any]":
        """Loads what a server has sent, and keeps the stem that becomes the zygotes, if there are to be some. Returns the
        variables of the program that loads."""
        expected = self.expected is not None and self.expected.equals(boot)
        compiled = self.compile(boot)
        if not expected:
            for entry in self.expected.environment if self.expected else ():
                os.environ.pop(entry.partition("=")[0], None)
            self.stem, self.spare = self.spare, self.stem
            if boot.zygotes:
                self.stem.load(boot, compiled)
        self.spare.dismiss()
        if not boot.zygotes:
            self.stem.dismiss()
        return self.space if expected else boot.load(contents(compiled))

    def compile(self, boot: Boot) -> int:
        """Returns the file of the modules that a server has sent, and keeps no other."""
        ready = [fd for known, fd in self.compiled if known.compiles_like(boot)]
        if not ready:
            ready = [os.memfd_create("compiled", os.MFD_CLOEXEC)]
            boot.compile_into(ready[0])
        for unused in self.ahead:
            os.close(unused.file)
        for known, fd in self.compiled:
            os.close(known.file)
            if fd != ready[0]:
                os.close(fd)
        self.ahead, self.compiled = [], [(boot, ready[0])]
        return ready[0]

    def restart(self, network_is_clean: bool) -> "NoReturn":
        """Executes this program again, as the next generation. Call it when no other process is left and nothing of them,
        except perhaps in the network: then the next generation gets another."""
        ((boot, compiled),) = self.compiled
        network = (OWN if network_is_clean else ANOTHER) if self.isolated else SHARED
        kept = self.listener.fileno(), self.identity, boot.file, compiled, self.program
        for fd in kept:
            os.set_inheritable(fd, True)
        line = [
            sys.executable,
            "-I",
            "-c",
            AGAIN % self.program,
            *self.again,
            *map(str, (self.generation + 1, network, *kept)),
        ]
        os.execve(sys.executable, line, self.environment)


def find_ahead() -> "list[Boot]":
    """Returns what servers are going to send, which is in files beside this program."""
    folder, ahead = os.path.dirname(sys.argv[0]), []
    for name in sorted(os.listdir(folder)) if folder else []:
        if name.endswith(".ahead"):
            with open(f"{folder}/{name}", "rb") as file:
                sent = parse_sent(file.read())
            assert sent
            ahead.append(Boot(new_file(marshal.dumps(sent[:2]))))
    return ahead


def parse_sent(buffer: bytes) -> "Optional[tuple[dict[str, str], list[str], bytes]]":
    """Parses the frames B (settings, as lines), C (parts of the compressed texts) and G (the end). Returns the settings, the
    texts and what follows, or None until all have arrived."""
    import zlib

    at, settings, packed = 0, {}, []
    while len(buffer) - at >= 5:
        kind, (size,) = buffer[at : at + 1], struct.unpack_from(">I", buffer, at + 1)
        payload, at = buffer[at + 5 : at + 5 + size], at + 5 + size
        if len(payload) < size:
            return None
        if kind == b"B":
            settings = dict(line.split("=", 1) for line in payload.decode().splitlines())
        elif kind == b"C":
            packed.append(payload)
        elif kind == b"G":
            return settings, zlib.decompress(b"".join(packed)).decode().split("\0"), buffer[at:]
    return None


def new_file(data: bytes) -> int:
    """Returns the descriptor of a file without a name that has some data."""
    fd = os.memfd_create("data", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd


def contents(fd: int) -> bytes:
    """Returns all that is in a file."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def become(link: Link) -> None:
    """Becomes what a server sends."""
    boot = link.await_boot()
    link.lasting = boot.lasting
    if not link.lasting:
        link.events.unregister(link.listener.fileno())
    space = link.load(boot)
    boot.limit()
    space["main"](space["last"].serve, link)


def main() -> None:
    for name in [name for name in os.environ if name.startswith("KUBERNETES_")]:
        del os.environ[name]  # the API server's address, which kubelets set and programs have no use for
    getattr(sys, "orig_argv", []).clear()  # or programs would find how often the sandbox was reset
    _signal.signal(_signal.SIGTERM, lambda *_: os._exit(0))  # until it serves; PID 1 has no default action
    link = Link(sys._getframe(1).f_code, sys.argv[1:])
    become(link)


main()
