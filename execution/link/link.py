"""PID 1 of a blank sandbox: waits for a server, and becomes the supervisor that the server sends.

The arguments are the port, and the seconds after which a server that is silent counts as gone. After a reset there follow
the generation, the descriptors of the listener, of the identity and of the compiled modules, and which network there is to
be: one of SHARED, OWN and ANOTHER. A blank is of generation 1.

  * A server is authenticated by its certificate, which the CA in VIVARIUM_LINK_CA has issued. This process is
    authenticated by its key, which an init container has put in a file of the workspace.
  * Where the kernel allows it, everything here is in a network namespace of its own, which has only the loopback device,
    unless VIVARIUM_LINK_NETWORK is "pod". The listener, and what it accepts, stay in the network in which they were made.
  * What becomes the zygotes, and so every program, is forked before the key is read (see Stem).
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
                self.become(theirs.detach())
            except BaseException as error:
                os.write(2, f"the zygotes could not be started: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(71)
        for other in (theirs, *(pair[1] for pair in self.pairs)):
            other.close()

    def become(self, control: int) -> None:
        """Loads what comes, and becomes that when it receives the word to begin. Ends if it is not needed."""
        size = struct.unpack("I", os.read(control, 4) or bytes(4))[0]
        if not size:
            os._exit(0)
        with open(control, "rb") as pipe:
            load, compiled, code, arguments, environment, limits = marshal.loads(pipe.read(size))
            confine(code)
            prepare(arguments, environment, limits)
            space: "dict[str, Any]" = {"__name__": "__main__", "modules": marshal.loads(compiled)}
            exec(load, space)
            if pipe.read():
                space["last"].become_zygotes_of_stem([theirs for _, theirs in self.pairs], sys.argv[1:])
        os._exit(0)

    def load(self, *values: "Any") -> None:
        """Sends the process what it loads."""
        data = marshal.dumps(values)
        self.control.sendall(struct.pack("I", len(data)) + data)

    def begin(self, count: int) -> "list[_socket.socket]":
        """Tells the process to become so many zygotes. Returns the links to them."""
        self.control.send(b"!")
        self.control.close()
        for ours, _ in self.pairs[count:]:
            ours.close()
        return [ours for ours, _ in self.pairs[:count]]

    def dismiss(self) -> None:
        """Ends the process, which is not needed."""
        self.control.close()
        for ours, _ in self.pairs:
            ours.close()
        os.waitpid(self.pid, 0)


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


def prepare(arguments: "list[str]", environment: "list[str]", limits: "list[tuple[int, int]]") -> None:
    """Gives this process the arguments, variables and limits that a server has sent."""
    import resource

    sys.argv[1:] = arguments
    for entry in environment:
        name, _, value = entry.partition("=")
        os.environ[name] = value
    for kind, most in limits:
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def take_identity() -> int:
    """Moves the key and the certificate from their file to memory that has no name. Returns its descriptor."""
    try:
        with open(KEY_FILE, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        os.write(2, b"the key is gone: this container was restarted, and never serves again\n")
        os._exit(NO_KEY)
    os.unlink(KEY_FILE)
    identity = os.memfd_create("identity", os.MFD_CLOEXEC)
    os.write(identity, text)
    return identity


class Peer:
    """A connection, and the state of TLS on it."""

    def __init__(self, context: "Any", connection: "_socket.socket") -> None:
        import ssl

        self.wants = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
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

    def __init__(self, program: "list[str]", arguments: "list[str]") -> None:
        """Listens, and isolates this process. After a reset it takes over what the last generation has left. The program
        is the command line without the arguments."""
        self.again = [*program, *arguments[:2]]
        self.environment = dict(os.environ)
        self.authority = os.environ.pop("VIVARIUM_LINK_CA", "")
        shares_network = os.environ.pop("VIVARIUM_LINK_NETWORK", "none") == "pod"
        self.silence = float(arguments[1])
        first = 1, -1, -1, -1, SHARED if shares_network else ANOTHER
        self.generation, listener, self.identity, compiled, network = map(int, arguments[2:] or first)
        self.compiled = [fd for fd in (compiled,) if fd >= 0]  # files of modules, after the digest of what was compiled
        self.ahead = find_ahead() if self.generation == 1 else []
        self.listener = listen(int(arguments[0])) if listener < 0 else _socket.socket(fileno=listener)
        self.isolated = network == OWN or network == ANOTHER and isolate()
        if self.generation > 1 and network == ANOTHER and not self.isolated:
            sys.exit("there can be no other network: the namespaces are nested too deep")
        self.listener.setblocking(False)
        self.stem = Stem([fd for fd in (self.listener.fileno(), self.identity, *self.compiled) if fd >= 0])
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
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.authority)
        context.load_cert_chain(f"/proc/self/fd/{self.identity}")
        context.set_alpn_protocols([PROTOCOL, END_PROTOCOL])
        context.num_tickets = 0  # type: ignore[attr-defined]
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

    def await_boot(self) -> "tuple[dict[str, str], list[str]]":
        """Waits for a server that sends what to become. Returns its settings, and its texts. Exits if none comes after a
        reset."""
        buffer = b""
        deadline = time.monotonic() + (self.silence if self.generation > 1 else float("inf"))
        while True:
            peer = self.peer
            if not self.events.poll(0 if self.ahead else 1) and self.ahead:
                self.compile_ahead()
            data = self.read()
            if self.peer is not peer or data == b"":
                buffer = b""
            buffer += data or b""
            if boot := parse_boot(buffer):
                settings, texts, self.early = boot
                return settings, texts
            if self.peer and (self.peer.deadline < time.monotonic() or len(buffer) > MAX_BOOT):
                self.leave()
            if deadline < time.monotonic() and not self.peer:
                os._exit(0)

    def refuse(self, reason: bytes) -> None:
        """Tells the server why this cannot be what it wants, and closes the connection to it."""
        try:
            self.write(b"G" + struct.pack(">I", len(reason)) + reason)
        except OSError:
            pass
        self.leave()

    def compile(self, compiling: str, arguments: "list[str]") -> bytes:
        """Returns the modules that a server has sent, compiled, and sets the supervisor's arguments. Uses what was compiled
        ahead, or for the last generation."""
        end = arguments.index("--") + 1
        digest = digest_of(compiling, arguments[:end])
        for fd in self.compiled:
            data = os.pread(fd, os.fstat(fd).st_size, 0)
            if data.startswith(digest):
                self.keep(fd)
                del sys.argv[1 : end + 1]
                return data[len(digest) :]
        fd = os.memfd_create("compiled", os.MFD_CLOEXEC)
        self.keep(fd)
        return self.compile_into(fd, digest, compiling)

    def keep(self, fd: int) -> None:
        """Keeps one file of modules, and closes the others."""
        for other in self.compiled:
            if other != fd:
                os.close(other)
        self.compiled = [fd]

    def compile_into(self, fd: int, digest: bytes, compiling: str) -> bytes:
        """Compiles modules, and writes them to a file. Their program defines modules, and removes its arguments."""
        space: "dict[str, Any]" = {"stem": self.stem}
        exec(compiling, space)
        compiled = marshal.dumps(space["modules"])
        with open(fd, "wb", closefd=False) as file:
            file.write(digest + compiled)
        return compiled

    def compile_ahead(self) -> None:
        """Compiles what a server is going to send, if it is of the version of the pool: a claim would take 44 to 59 ms of
        processor time more. A child process does that, because compiling leaves gaps in the heap."""
        with open(self.ahead.pop(), encoding="utf-8") as file:
            compiling, *arguments = file.read().split("\0")
        fd = os.memfd_create("compiled", os.MFD_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            try:
                sys.argv[1:] = arguments
                self.compile_into(fd, digest_of(compiling, arguments), compiling)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        self.compiled.append(fd)

    def restart(self, network_is_clean: bool) -> "NoReturn":
        """Executes this program again, as the next generation. Call it when no other process is left and nothing of them,
        except perhaps in the network: then the next generation gets another."""
        kept = self.listener.fileno(), self.identity, *self.compiled
        for fd in kept:
            os.set_inheritable(fd, True)
        network = (OWN if network_is_clean else ANOTHER) if self.isolated else SHARED
        tail = self.generation + 1, *kept, network
        os.execve(sys.executable, [*self.again, *map(str, tail)], self.environment)


def find_ahead() -> "list[str]":
    """Returns the files with what is compiled ahead, which are beside this program."""
    folder = os.path.dirname(sys.argv[0])
    return [f"{folder}/{name}" for name in os.listdir(folder) if name.endswith(".ahead")] if folder else []


def digest_of(compiling: str, arguments: "list[str]") -> bytes:
    """Returns what identifies compiled modules: of this Python, by a program with arguments."""
    import hashlib

    return hashlib.sha256("\0".join((sys.version, compiling, *arguments)).encode()).digest()


def parse_boot(buffer: bytes) -> "Optional[tuple[dict[str, str], list[str], bytes]]":
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


def check(link: Link, settings: "dict[str, str]") -> None:
    """Raises Refused if this sandbox is not what the server wants."""
    if settings["generation"] != str(link.generation):
        raise Refused(f"this is generation {link.generation} of the sandbox, not {settings['generation']}")
    if settings["own_network"] == "1" and not link.isolated:
        raise Refused("cause=namespaces_denied\nthe sandbox could not be given a network namespace of its own")


def become(link: Link) -> None:
    """Becomes what a server sends."""
    while True:
        settings, texts = link.await_boot()
        try:
            check(link, settings)
            break
        except Refused as error:
            link.refuse(str(error).encode())
    link.lasting = settings["lasting"] == "1"
    if not link.lasting:
        link.events.unregister(link.listener.fileno())
    variables = int(settings["variables"])
    environment, (compiling, load, *arguments) = texts[:variables], texts[variables:]
    limits = [(int(name[6:]), int(most)) for name, most in settings.items() if name.startswith("limit_")]
    code = bytes.fromhex(settings["filter"])
    confine(code)
    prepare(arguments, environment, limits)
    compiled = link.compile(compiling, arguments)
    if settings["zygotes"] == "1":
        link.stem.load(load, compiled, code, sys.argv[1:], environment, limits)
    else:
        link.stem.dismiss()
    space: "dict[str, Any]" = {"__name__": "__main__", "modules": marshal.loads(compiled)}
    exec(load, space)
    space["main"](space["last"].serve, link)


def main() -> None:
    for name in [name for name in os.environ if name.startswith("KUBERNETES_")]:
        del os.environ[name]  # the API server's address, which kubelets set and programs have no use for
    with open("/proc/self/cmdline") as file:
        line = file.read().split("\0")[:-1]
    link = Link(line[: 1 - len(sys.argv)], sys.argv[1:])
    _signal.signal(_signal.SIGTERM, lambda *_: os._exit(0))  # until it serves; PID 1 has no default action
    become(link)


main()
