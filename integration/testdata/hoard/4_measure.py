def hold(action, out):
    """Runs a way in a process of its own, which keeps what it has."""
    h, said = Hold(), ""
    h.error = None
    try:
        action(h)
    except (OSError, MemoryError, RuntimeError) as error:
        h.error = error
    except SystemExit as stop:
        said = f"! {stop}"
    os.write(out, (said or str(h.error or "")[:100]).encode())
    os.close(out)
    while True:
        time.sleep(60)


def settled():
    """The host's memory when nothing else takes some for a moment."""
    samples = []
    for _ in range(4):
        samples.append(host())
        time.sleep(0.02)
    return min(samples)


def measure(name, action):
    """Tries a way, again where other processes may have taken the memory meanwhile, and prints what came of it."""
    for _ in range(3):
        verdict, line = try_way(name, action)
        clean()
        if verdict == "ok":
            break
    print(line, flush=True)


def try_way(name, action):
    before = settled(), counted()
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        hold(action, w)
    os.close(w)
    said = os.read(r, 1000).decode()
    os.close(r)
    after = settled(), counted()
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except OSError:
        pass
    host_more, counted_more = after[0] - before[0], after[1] - before[1]
    kept = host_more - counted_more if COUNTED else host_more - (LIMIT << 20)
    verdict = "UNBOUNDED" if kept > SLACK << 20 or said.startswith("!") else "ok"
    return verdict, f"{verdict:9} {name:25} host {host_more >> 20:5} counted {counted_more >> 20:5}  {said}"


def clean():
    """Deletes what a way has left that does not end with its process."""
    for folder, _, names in os.walk("/tmp", topdown=False):
        for name in names:
            os.unlink(f"{folder}/{name}")
    for kind, end in (("msg", "msgctl"), ("sem", "semctl"), ("shm", "shmctl")):
        try:
            with open(f"/proc/sysvipc/{kind}") as lines:
                ids = [int(line.split()[1]) for line in lines if line.split()[1].isdigit()]
        except OSError:
            continue
        for number in ids:
            getattr(libc, end)(number, *((0, 0) if kind == "sem" else (0, None)))


for name in ONLY.split() or [name for name in WAYS if name not in ENDED.split()]:
    measure(name, WAYS.get(name) or WATCHED[name])
