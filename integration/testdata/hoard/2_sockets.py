# --- Sockets ---


@watched
def netlink(h):
    """Answers to requests of an unknown type, which repeat the request."""
    request = struct.pack("IHHII", 16 + 4096, 0x7F0, 1 | 4, 1, 0) + b"A" * 4096
    while h.more():
        s = wide(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
        s.setblocking(False)
        h.kept.append(s)
        for i in range(20000):
            try:
                s.send(request)
            except OSError:
                break
            if i % 64 == 0 and s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                break


@watched
def udp(h):
    while h.more():
        r = wide(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        r.bind(("127.0.0.1", 0))
        s = wide(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        s.connect(r.getsockname())
        h.kept += [r, s]
        for _ in range(100):
            fill(s, b"x" * 60000, 60000)


@watched
def udp_corked(h):
    """Datagrams that are not sent: MSG_MORE says that more of them is to come."""
    while h.more():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.connect(("127.0.0.1", 9))
        h.kept.append(s)
        s.send(b"x" * 60000, socket.MSG_MORE)


@watched
def tcp(h):
    listener = wide(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    while h.more():
        c = wide(socket.socket())
        c.connect(listener.getsockname())
        h.kept += [c, listener.accept()[0]]
        fill(c, b"x" * 65536)
    h.kept.append(listener)


def unaccepted(h, data):
    while True:
        listener = wide(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(4096)
        h.kept.append(listener)
        for _ in range(400):
            if not h.more():
                return
            c = wide(socket.socket())
            c.setblocking(False)
            try:
                c.connect(listener.getsockname())
            except BlockingIOError:
                pass
            fill(c, data, 1 << 20 if data else 0)
            c.close()


@watched
def tcp_unaccepted(h):
    """Connections that nobody accepts, with data: the program closes its own ends."""
    unaccepted(h, b"x" * 65536)


@watched
def tcp_unaccepted_empty(h):
    unaccepted(h, b"")


@watched
def sockets(h):
    for _ in range(8):  # beyond the files that one process may have
        if os.fork() == 0:
            try:
                while True:
                    h.kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            except OSError:
                time.sleep(60)
    time.sleep(SECONDS)


@way
def unix_streams(h):
    while h.more() and h.n < 100:
        for s in (pair := socket.socketpair()):
            fill(wide(s), b"x" * 4096)
        h.kept += pair


@way
def unix_datagrams(h):
    while h.more() and h.n < 100:
        for s in (pair := socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)):
            fill(wide(s), b"x" * 100)
        h.kept += pair


@way
def descriptors_in_flight(h):
    while h.more() and h.n < 100:
        a, b = socket.socketpair()
        a.setblocking(False)
        h.kept += [a, b]
        fds = [os.open("/dev/null", 0) for _ in range(60)]
        try:
            for _ in range(4):
                a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("60i", *fds))])
        finally:
            for fd in fds:
                os.close(fd)


@way
def other_protocols(h):
    """ICMP, MPTCP, SCTP and the like."""
    for family in range(50):
        for kind in (1, 2, 3, 4, 5, 6, 10):
            for protocol in (0, 1, 2, 6, 17, 33, 58, 132, 136, 255, 262):
                try:
                    s = socket.socket(family, kind, protocol)
                except OSError:
                    continue
                s.close()
                allowed = (
                    family == 1
                    or family == 16
                    and kind in (2, 3)
                    and protocol == 0
                    or family in (2, 10)
                    and (kind, protocol) in ((1, 0), (1, 6), (2, 0), (2, 17))
                )
                if not allowed:
                    raise SystemExit(f"socket({family}, {kind}, {protocol}) is to be had")


def with_options(h, family, kind, *options):
    """Sockets of which each has the options that may be set, at most so often."""
    while h.more() and h.n < 100:
        s = socket.socket(family, kind)
        h.kept.append(s)
        for level, option, values in options:
            try:
                for value in values:
                    s.setsockopt(level, option, value)
            except OSError as error:
                h.error = error


@way
def groups_of_ipv4(h):
    values = [bytes((224, 1, n // 250, n % 250)) + socket.inet_aton("127.0.0.1") for n in range(2000)]
    with_options(h, socket.AF_INET, socket.SOCK_DGRAM, (0, 35, values))


@way
def groups_of_ipv6(h):
    values = [b"\xff\x02" + bytes(10) + struct.pack(">I", n + 1) + struct.pack("I", 1) for n in range(2000)]
    with_options(h, socket.AF_INET6, socket.SOCK_DGRAM, (41, 20, values))


@way
def keys_of_tcp(h):
    address = [struct.pack("HH4s120x", 2, 0, struct.pack(">I", 0x0A000000 + n)) for n in range(500)]
    values = [a + struct.pack("BBHI", 0, 0, 80, 0) + bytes(80) for a in address]
    with_options(h, socket.AF_INET, socket.SOCK_STREAM, (6, 14, values))


@way
def headers_of_ipv6(h):
    header = bytes([0, 255]) + b"".join(b"\x3e\xfc" + bytes(252) for _ in range(8))[:2046]
    with_options(h, socket.AF_INET6, socket.SOCK_DGRAM, (41, 59, [header]), (41, 54, [header]), (41, 57, [header]))


@way
def filters_of_sockets(h):
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFF) * 2000)
    value = struct.pack("HxxxxxxQ", 2000, ctypes.addressof(code))
    with_options(h, socket.AF_INET, socket.SOCK_DGRAM, (1, 26, [value]))
