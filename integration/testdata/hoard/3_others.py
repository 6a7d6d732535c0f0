# --- Descriptors ---


@way
def pipes(h):
    while h.more():
        r, w = os.pipe()
        h.kept += [r, w]
        try:
            fcntl.fcntl(w, 1031, 1 << 20)  # F_SETPIPE_SZ
        except OSError:
            pass
        os.set_blocking(w, False)
        try:
            while True:
                os.write(w, b"x" * 65536)
        except BlockingIOError:
            pass


@way
def terminals(h):
    while h.more():
        pair = os.openpty()
        h.kept += pair
        for fd in pair:
            os.set_blocking(fd, False)
            try:
                while True:
                    os.write(fd, b"x" * 4096)
            except BlockingIOError:
                pass


@way
def watches_of_epoll(h):
    fds = [os.eventfd(0) for _ in range(60)] if hasattr(os, "eventfd") else []
    while h.more():
        e = select.epoll()
        h.kept.append(e)
        for fd in fds:
            e.register(fd, select.EPOLLIN)


@way
def watches_of_files(h):
    while h.more():
        fd = call("inotify_init1", 0)
        h.kept.append(fd)
        call("inotify_add_watch", fd, b"/tmp", 0xFFF)


@way
def timers_with_descriptors(h):
    while h.more():
        h.kept.append(call("timerfd_create", 1, 0))


@way
def signals_with_descriptors(h):
    mask = (ctypes.c_ulong * 16)()
    while h.more():
        h.kept.append(call("signalfd", -1, mask, 0))


@way
def open_files(h):
    while h.more():
        h.kept.append(os.open("/dev/null", 0))


@way
def timers(h):
    made, event = ctypes.c_void_p(), (ctypes.c_char * 64)()
    struct.pack_into("Qii", event, 0, 0, 0, 1)
    while h.more():
        for _ in range(1000):
            call("timer_create", 1, event, ctypes.byref(made))


@way
def signals(h):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    while h.more():
        call("sigqueue", os.getpid(), signal.SIGRTMIN, 0)


# --- Files ---


@watched
def locks(h):
    while h.more():
        fd = os.open(f"/tmp/{h.n}", os.O_CREAT | os.O_RDWR)
        h.kept.append(fd)
        for i in range(2000):
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, 2 * i)


@way
def locks_of_open_files(h):
    fd = os.open("/tmp/x", os.O_CREAT | os.O_RDWR)
    while h.more():
        fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", 1, 0, 2 * h.n, 1, 0))  # F_OFD_SETLK


@way
def leases(h):
    fcntl.fcntl(os.open("/tmp/x", os.O_CREAT | os.O_RDONLY), 1024, 0)  # F_SETLEASE


@way
def access_lists(h):
    user = os.getuid()
    entries = [(1, 0xFFFFFFFF)] + [(2, user)] * 2000 + [(4, 0xFFFFFFFF), (16, 0xFFFFFFFF), (32, 0xFFFFFFFF)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 7, who) for tag, who in entries)
    while h.more():
        path = f"/tmp/{h.n}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.setxattr(path, "system.posix_acl_access", value)


@way
def attributes(h):
    while h.more():
        path = f"/tmp/{h.n}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.setxattr(path, "user.x", b"x" * 60000)


@way
def inodes(h):
    while h.more():
        os.close(os.open(f"/tmp/{'i' * 200}{h.n}", os.O_CREAT | os.O_WRONLY))


# --- Memory and messages ---


@way
def plain(h):
    h.kept.append(bytearray(ENOUGH))
    h.kept[0][::4096] = b"x" * len(h.kept[0][::4096])


@way
def files_in_memory(h):
    while h.more():
        fd = os.memfd_create("x")
        h.kept.append(fd)
        os.write(fd, b"x" * (4 << 20))


@way
def page_tables(h):
    size = 1 << 21
    while h.more():
        m = mmap.mmap(-1, size << 6, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ)  # MAP_NORESERVE
        h.kept.append(m)
        for i in range(64):
            m[i * size]


@way
def mappings(h):
    fd = os.open("/usr/lib/os-release", 0)
    for n in range(65000):
        if libc.mmap(None, 4096, 1 + n % 2 * 4, 1, fd, 0) is None or n % 1000 == 0 and not h.more():
            return


@way
def names_of_mappings(h):
    start = libc.mmap(None, 4096 * 65000, 0, 0x4022, -1, 0)
    for n in range(60000):
        name = ctypes.create_string_buffer(b"%070d" % n)
        call("prctl", 0x53564D41, 0, ctypes.c_ulong(start + n * 4096), ctypes.c_ulong(4096), name)  # PR_SET_VMA


@way
def huge_pages(h):
    h.kept.append(mmap.mmap(-1, 2 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000))
    raise SystemExit("MAP_HUGETLB is to be had")


@way
def posix_queues(h):
    realtime = ctypes.CDLL("librt.so.1", use_errno=True)
    while h.more():
        attributes = (ctypes.c_long * 8)(0, 10, 8192, 0)
        fd = realtime.mq_open(b"/q%d" % h.n, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o600, attributes)
        if fd == -1:
            raise OSError(ctypes.get_errno(), "mq_open")
        for _ in range(10):
            realtime.mq_send(fd, b"x" * 8192, 8192, 0)


@way
def sysv_queues(h):
    message = ctypes.create_string_buffer(b"\1" + bytes(7) + b"x" * 8000)
    while h.more():
        queue = call("msgget", 0, 0o600)
        while libc.msgsnd(queue, message, 7900, 0o4000) == 0:
            pass


@way
def sysv_semaphores(h):
    while h.more():
        call("semget", 0, 32000, 0o600)


@way
def sysv_undo(h):
    while h.more():
        call("semop", call("semget", 0, 8000, 0o600), struct.pack("HhH", 0, 1, 0o10000), 1)


@way
def sysv_memory(h):
    libc.shmat.restype = ctypes.c_void_p
    while h.more():
        ctypes.memset(libc.shmat(call("shmget", 0, 4 << 20, 0o600), None, 0), 1, 4 << 20)


@way
def rules_of_landlock(h):
    while h.more():
        rules = call("syscall", 444, struct.pack("Q", 0xFFF), 8, 0)
        h.kept.append(rules)
        for n in range(500):
            place = os.open("/tmp", os.O_PATH)
            libc.syscall(445, rules, 1, struct.pack("=Qi", 1 << n % 12, place), 0)
            os.close(place)


@way
def filters_of_calls(h):
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000) * 4000)
    while h.more():
        call("prctl", 22, 2, struct.pack("HxxxxxxQ", 4000, ctypes.addressof(code)))


@way
def keys(h):
    call("syscall", 248, b"user", b"x", b"y" * 100, 100, -2)  # add_key
    raise SystemExit("keys are to be had")


@way
def asynchronous_io(h):
    call("syscall", 206, 65536, ctypes.byref(ctypes.c_ulong(0)))  # io_setup
    raise SystemExit("contexts of aio are to be had")


@way
def threads(h):
    while h.more():
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


@way
def names_of_no_files(h):
    while h.more():
        for n in range(50):
            os.access(f"/usr/{'n' * 200}{h.n}-{n}", os.F_OK)
