package integration

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// alone starts a server that has one sandbox for all runs, and gives a
// function that tells which that is.
func alone(t *testing.T, env ...string) (s *server, current func() string) {
	t.Helper()
	s = startServer(t, append([]string{"ISOLATION=run", "POOL_SIZE=1", "MAX_SANDBOXES=1"}, env...)...)
	mustRun(t, s, request{"code": "None"}) // the one that was probed at the start is on its way out by then
	return s, func() string {
		t.Helper()
		if left := awaitSandboxes(s.instance, 1); left != 1 { // one that was replaced takes a moment to go
			t.Fatalf("%d sandboxes, not one", left)
		}
		return mustList(t, s)[0]
	}
}

const places = `import os, sys, ctypes, errno
PLACES = ("/workspace", "/tmp", "/dev/shm")
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    return "done" if getattr(libc, name)(*args) != -1 else errno.errorcode[ctypes.get_errno()]
`

// trace is what one run leaves and what the next one in the same sandbox
// must find.
type trace struct{ name, leave, look, want string }

func traces() []trace {
	return []trace{
		{
			"files", `for place in PLACES:
    for name in (b"\xff\n", b".hidden", b"plain", b"a b"):
        open(os.path.join(os.fsencode(place), name), "w").close()
    os.makedirs(place + "/d/e/f"); open(place + "/d/e/f/g", "w").close()
    os.symlink("/etc", place + "/link"); os.mkfifo(place + "/fifo"); os.mkdir(place + "/sticky", 0o1700)
    for d in ("/d/e/f", "/d/e", "/d"): os.chmod(place + d, 0)`,
			`print([(place, found) for place in PLACES if (found := os.listdir(place))])`, "[('/workspace', ['__main__.py'])]",
		},
		{
			"marks on the places themselves", `def tried(action, *args):
    try: action(*args); print("done", action.__name__)
    except OSError: pass
for place in PLACES:
    tried(os.chmod, place, 0o711); tried(os.setxattr, place, "user.mark", b"x"); tried(os.utime, place, (1, 1))
    fd = os.open(place, os.O_RDONLY)
    flags = ctypes.c_long(0x40)  # FS_NODUMP_FL
    if libc.ioctl(fd, 0x40086602, ctypes.byref(flags)) != -1: print("done ioctl")`,
			`modes = [oct(os.stat(place).st_mode)[-4:] for place in PLACES]
print(modes[0] in ("0755", "0700", "1777"), set(modes[1:]), [place for place in PLACES if os.listxattr(place)])`,
			"True {'1777'} []",
		},
		{
			"processes", `import signal, time
for kind in range(4):
    if os.fork() == 0:
        os.setsid()
        for n in range(1, 65):
            try: signal.signal(n, signal.SIG_IGN)
            except (OSError, ValueError): pass
        if kind == 1 and os.fork(): os._exit(0)
        if kind == 2: os.kill(os.getpid(), signal.SIGSTOP)
        while True: time.sleep(1) if kind != 3 else None
time.sleep(0.05)`,
			`print([p for p in os.listdir("/proc") if p.isdigit() and p != os.readlink("/proc/self") and os.access(f"/proc/{p}/fd", os.R_OK)],
      len([p for p in os.listdir("/proc") if p.isdigit()]))`, "[] 4",
		},
		{
			"shared memory, queues and semaphores of System V", `print(call("shmget", 77, 4096, 0o1666), call("msgget", 77, 0o1666), call("semget", 77, 1, 0o1666))`,
			// Where no cgroup bounds them they cannot be had.
			`found = {call("shmget", 77, 4096, 0), call("msgget", 77, 0), call("semget", 77, 1, 0)}; print(found - {"ENOSYS", "ENOENT"} or "none")`, "none",
		},
		{
			"POSIX shared memory", `from multiprocessing import shared_memory, resource_tracker
m = shared_memory.SharedMemory("mark", create=True, size=100)
resource_tracker.unregister(m._name, "shared_memory")`,
			`print(os.listdir("/dev/shm"))`, "[]",
		},
		{
			"maps of the user namespace", `for name in ("projid_map", "uid_map", "gid_map", "setgroups"):
    try: os.write(os.open("/proc/self/" + name, os.O_WRONLY), b"".join(b"%d %d 1\n" % (i + 5, i * 7 + 5) for i in range(50))); print("done", name)
    except OSError: pass`,
			`print([open("/proc/self/" + name).read().split() for name in ("projid_map", "gid_map", "setgroups")])`,
			"[['0', '0', '1'], ['65532', '65532', '1'], ['deny']]",
		},
		{
			"what the kernel remembers of peers", `import socket
for protocol in range(1, 32):
    try: socket.socket(16, socket.SOCK_RAW, protocol); print("done netlink", protocol)
    except OSError: pass`,
			`print(*(open("/proc/sys/net/ipv4/" + name).read().strip() for name in ("tcp_no_metrics_save", "tcp_fastopen")))`, networkSettings(),
		},
		{
			"flow labels", `import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
try: s.setsockopt(41, 32, socket.inet_pton(socket.AF_INET6, "::1") + struct.pack(">I", 0xABCDE) + struct.pack("BBHHHI", 0, 255, 1, 60, 60, 0))
except OSError: pass`,
			`print(len(open("/proc/net/ip6_flowlabel").readlines()))`, "1",
		},
		{
			"memory of System V", `libc.shmat.restype = ctypes.c_void_p
for k in range(3):
    i = libc.shmget(k + 5, 50 << 20, 0o1600)
    if i == -1: break  # there may be no such memory
    a = libc.shmat(i, None, 0); ctypes.memset(a, 1, 50 << 20); libc.shmdt(ctypes.c_void_p(a))`,
			`import mmap
m = mmap.mmap(-1, 180 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000); print(len(m) >> 20)`, "180",
		},
		{
			"abstract sockets", `import socket, time, array
l = socket.socket(socket.AF_UNIX); l.bind("\0listener"); l.listen()
if os.fork() == 0: time.sleep(100)`,
			`import socket
try: socket.socket(socket.AF_UNIX).connect("\0listener")
except OSError as e: print(errno.errorcode[e.errno], open("/proc/net/unix").read().count("listener"))`, "ECONNREFUSED 0",
		},
		{"keyrings", `print(call("syscall", 248, b"user", b"mark", b"x", 1, -4))`, `print(call("syscall", 249, b"user", b"mark", None, -4))`, "EPERM"},
		{
			"descriptors", `os.dup2(os.open("/etc/passwd", os.O_RDONLY), 100); os.set_inheritable(100, True)`,
			`print([fd for fd in range(1024) if os.path.lexists(f"/proc/self/fd/{fd}")])`, "[0, 1, 2, 63]",
		},
		{
			"environment", `os.environ["MARK"] = "x"; os.putenv("MARK2", "y"); os.environ["PATH"] = "/nowhere"`,
			`print([n for n in os.environ if "MARK" in n], os.environ["PATH"], libc.getenv(b"MARK2"))`, "[] /usr/local/bin:/usr/bin:/bin 0",
		},
		{
			"the interpreter's state", `import builtins, json, random, atexit, warnings, decimal, gc, threading, signal, locale
json.dumps = builtins.sum = None; sys.path.append("/mark"); sys.modules["mark"] = json; sys.mark = 1
random.seed(1); sys.setrecursionlimit(50000); gc.disable(); decimal.getcontext().prec = 3; sys.settrace(None)
atexit.register(print, "atexit"); warnings.simplefilter("error")
signal.signal(signal.SIGUSR1, lambda *a: None); sys.set_int_max_str_digits(1000); sys.dont_write_bytecode = False
print(end="")`,
			`import builtins, json, decimal, gc, signal
print(callable(json.dumps), callable(sum), "/mark" in sys.path, "mark" in sys.modules, hasattr(sys, "mark"), sys.getrecursionlimit(),
      gc.isenabled(), decimal.getcontext().prec, callable(sys.displayhook), signal.getsignal(signal.SIGUSR1), sys.get_int_max_str_digits())`,
			"True True False False False 1000 True 28 True 0 0",
		},
		{"host name", `print(call("sethostname", b"mark", 4), call("setdomainname", b"mark", 4))`, `print(os.uname().nodename)`, "sandbox"},
		{
			"limits, mask, priority and folder", `import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (70, 70)); resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1)); os.umask(0o777); os.nice(19)
os.chdir("/"); os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})`,
			`import resource
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_FSIZE), oct(os.umask(0)), os.nice(0), os.getcwd(), len(os.sched_getaffinity(0)) == os.cpu_count())`,
			openFiles() + " (-1, -1) 0o22 0 /workspace True",
		},
		{
			"timers", `import signal
signal.setitimer(signal.ITIMER_REAL, 0.2); signal.alarm(1)
if os.fork() == 0: signal.alarm(1); signal.pause()`,
			`import time, signal
time.sleep(0.4); print(signal.getitimer(signal.ITIMER_REAL), signal.alarm(0))`, "(0.0, 0.0) 0",
		},
		{"first victim's rank", `try: open("/proc/self/oom_score_adj", "w").write("999")
except PermissionError: pass`, `print(open("/proc/self/oom_score_adj").read().strip())`, "1000"},
	}
}

// networkSettings are the kernel's for the network of a sandbox. In a pod nobody can set them: what the
// kernel remembers of the loopback's peers stays until the sandbox is reset for connections.
func networkSettings() string {
	if inPods() {
		return "0 1"
	}
	return "1 0"
}

// lasting are traces that only the kernel can take away, in its own time: the
// next run must be in another sandbox, or in one that was reset.
func lasting() []lastingTrace {
	return []lastingTrace{
		{trace{
			"closed connections", `import socket
l = socket.socket(); l.bind(("127.0.0.1", 5000)); l.listen(); c = socket.create_connection(("127.0.0.1", 5000)); a, _ = l.accept()
a.close(); c.recv(1); c.close(); l.close()`,
			`import socket
socket.socket().bind(("127.0.0.1", 5000)); print(len(open("/proc/net/tcp").readlines()))`, "1",
		}, false},
		{trace{
			"sockets in flight", `import socket, array, mmap
s, t = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
f = os.memfd_create("x"); os.ftruncate(f, 150 << 20); m = mmap.mmap(f, 150 << 20, flags=mmap.MAP_SHARED | 0x8000); m.close()
for k in range(8): s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [f, s.fileno(), t.fileno()]))])`,
			`import mmap
m = mmap.mmap(-1, 150 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000); print(len(m) >> 20)`, "150",
		}, true},
	}
}

type lastingTrace struct {
	trace

	fading bool // it may be gone before anybody looks for it
}

func TestLastingTraces(t *testing.T) {
	for _, trace := range lasting() {
		t.Run(trace.name, func(t *testing.T) {
			s, current := alone(t)
			first := current()
			mustRun(t, s, request{"code": places + trace.leave + "\nNone"})
			program{stdout: trace.want + "\n"}.check(t, mustRun(t, s, request{"code": places + trace.look}))
			// A pod is reset, and gets another network.
			if current() == first && !trace.fading && !inPods() {
				t.Error("they were run in one sandbox")
			}
		})
	}
}

// What a run leaves, however it tries, the next one in the same sandbox does
// not find.
func TestRunsInOneSandboxAreApart(t *testing.T) {
	s, current := alone(t)
	first := current()
	for _, trace := range traces() {
		t.Run(trace.name, func(t *testing.T) {
			left := mustRun(t, s, request{"code": places + trace.leave + "\nNone"})
			if left.exitCode() != "0" {
				t.Fatalf("what should leave traces failed: %s", left.Stderr)
			}
			program{stdout: trace.want + "\n"}.check(t, mustRun(t, s, request{"code": places + trace.look}))
			if current() != first {
				t.Error("they were not run in one sandbox")
				first = current()
			}
		})
	}
}

// No byte of a run's code, input, files or output is in the memory of the next,
// which is a copy of the process that all are forked from.
func TestNoMemoryOfAnotherRun(t *testing.T) {
	s, current := alone(t)
	first := current()
	secret := func(n int) string { return fmt.Sprintf("SECRET%032x", 1000+n) }
	mustRun(t, s, request{
		"code":  fmt.Sprintf("a = %q; import sys; print(a, input()); print(a, file=sys.stderr); open(a, 'w').write(a)", secret(1)),
		"stdin": secret(2) + "\n", "env": map[string]string{"A": secret(5)}, "args": []string{secret(6)},
		"files": []request{{"path": "in/" + secret(3), "content_base64": encode(strings.Repeat(secret(4), 100))}},
	})
	program{stdout: "0 True\n"}.check(t, mustRun(t, s, request{"timeout_ms": 20000, "code": `import re
found = own = 0
mine = b"OW" + b"N" + b"7" * 32
memory = open("/proc/self/mem", "rb", 0)
for line in open("/proc/self/maps"):
    if line.split()[1][0] == "r" and "[v" not in line:
        begin, end = (int(n, 16) for n in line.split()[0].split("-"))
        memory.seek(begin)
        text = memory.read(end - begin)
        found += len(re.findall(rb"S[E]CRET[0-9a-f]{32}", text))
        own += len(re.findall(rb"O[W]N[0-9a-f]{32}", text))  # the search can find what is there
print(found, own > 0)`}))
	if current() != first {
		t.Error("they were not run in one sandbox")
	}
}

// Programs make no message queues: those of POSIX would be in a folder that all runs of a sandbox share.
func TestMessageQueues(t *testing.T) {
	none := program{stdout: "[] -1\n", code: `import ctypes, os
try: os.close(os.open("/dev/mqueue/mark", os.O_CREAT | os.O_WRONLY))
except OSError: pass
print(os.listdir("/dev/mqueue") if os.path.exists("/dev/mqueue") else [], ctypes.CDLL(None).mq_open(b"/mark", os.O_CREAT | os.O_RDWR, 0o600, None))`}
	onBoth(t, func(t *testing.T, s *server) {
		t.Helper()
		none.check(t, mustRun(t, s, request{"code": none.code}))
	})
	t.Run("session", func(t *testing.T) {
		none.check(t, startSession(t, shared.server, request{}).python(t, none.code))
	})
}

// Two runs never draw the same random numbers, preloaded modules included.
func TestRandomNumbersDiffer(t *testing.T) {
	s, _ := alone(t, with(dataImage)...)
	seen := make(map[string]bool)
	for range 3 {
		a := mustRun(t, s, request{"timeout_ms": 20000, "code": `import sys
loaded = "numpy" in sys.modules, "pandas" in sys.modules, "numpy" in globals()
import random, uuid, secrets, tempfile, numpy
print(loaded)
for draw in (random.random, uuid.uuid4, secrets.token_hex, lambda: next(tempfile._get_candidate_names()), numpy.random.rand, numpy.random.default_rng().random):
    print(draw())`})
		lines := strings.Split(strings.TrimSpace(a.Stdout), "\n")
		if a.exitCode() != "0" || len(lines) != 7 || lines[0] != "(True, True, False)" {
			t.Fatalf("exit code %s, %q, %s", a.exitCode(), a.Stdout, a.Stderr)
		}
		for i, line := range lines[1:] {
			if key := fmt.Sprint(i, line); seen[key] {
				t.Errorf("%s was drawn twice", line)
			} else {
				seen[key] = true
			}
		}
	}
}

// Modules are imported ahead, but for those that cannot be: these are told and
// left out. A program finds none of their names in its own.
func TestPreload(t *testing.T) {
	s, _ := alone(t, "PRELOAD_MODULES=json,nosuch,xml.dom,antigravity_exit")
	program{stdout: "True True False ['__builtins__', '__cached__', '__doc__', '__file__', '__loader__', '__name__', '__package__', '__spec__']\n"}.check(t,
		mustRun(t, s, request{"code": "print('json' in __import__('sys').modules, 'xml.dom' in __import__('sys').modules, 'nosuch' in __import__('sys').modules, sorted(globals()))"}))
	if log := s.logged(); !strings.Contains(log, "nosuch: ModuleNotFoundError") || !strings.Contains(log, "antigravity_exit: ModuleNotFoundError") {
		t.Errorf("the log does not tell what could not be imported:\n%s", log)
	}
	// A program that mentions none of them is not slowed down by them.
	program{stdout: "False\n"}.check(t, mustRun(t, s, request{"code": "print('JSON'.lower() in __import__('sys').modules)"}))
	// One that imports something that the server does not know may import them.
	program{stdout: "True\n"}.check(t, mustRun(t, s, request{
		"code": "import helper; print(helper.has)", "files": []map[string]any{{"path": "helper.py", "content_base64": encode("import sys; has = 'xml.dom' in sys.modules")}},
	}))
	none, _ := alone(t, with(dataImage, "PRELOAD_MODULES=none")...)
	program{stdout: "False\n"}.check(t, mustRun(t, none, request{"code": "import sys; print('numpy' in sys.modules)"}))
}

// What a program does to the supervisor and the zygote has no effect, and the
// next run is right, in the same sandbox.
func TestAttacksOnTheSupervisor(t *testing.T) {
	t.Run("one zygote", func(t *testing.T) {
		const others = 3 // the supervisor, the zygote and the init
		attackSupervisor(t, others)
	})
	t.Run("two zygotes", func(t *testing.T) { // of which the programs use the first
		const others = 6 // also the second one, its init, and the program that waits
		attackSupervisor(t, others, "PRELOAD_MODULES=calendar")
	})
}

func attackSupervisor(t *testing.T, others int, env ...string) {
	t.Helper()
	s, current := alone(t, env...)
	first := current()
	for _, p := range []program{
		{name: "every door of every other process", code: `others = [p for p in os.listdir("/proc") if p.isdigit() and p != os.readlink("/proc/self")]
opened = []
for pid in others:
    for name in ("mem", "environ", "maps", "fd/0", "fd/3", "cwd", "root/etc", "ns/pid", "task/" + pid + "/mem", "syscall", "stack", "io"):
        try: opened.append((name, os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))))
        except OSError: pass
    for name in ("mem", "oom_score_adj", "comm", "clear_refs", "coredump_filter", "setgroups", "uid_map", "loginuid"):
        try: opened.append((name, os.close(os.open(f"/proc/{pid}/{name}", os.O_WRONLY))))
        except OSError: pass
    try: opened.append(os.write(os.open(f"/proc/{pid}/timerslack_ns", os.O_WRONLY), b"1"))
    except OSError: pass
print(len(others), opened)`, stdout: fmt.Sprintf("%d []\n", others)},
		{name: "signals by every way", code: `import signal
said = []
own = int(os.readlink("/proc/self"))
for pid in [int(p) for p in os.listdir("/proc") if p.isdigit()]:
    if pid not in (own, own - 1):  # the init of this run
        for n in (9, 15, 19, 2, 11, 34):
            try: signal.pidfd_send_signal(os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY), n); said.append("sent")
            except OSError as e: said.append(errno.errorcode[e.errno])
            try: os.kill(pid, n) if pid > 2 else None
            except OSError as e: said.append(errno.errorcode[e.errno])
print(len(said) >= 12, sorted(set(said)))`, stdout: "True ['EINVAL', 'ESRCH']\n"},
		{name: "signals to its own init", code: "for n in range(1, 65): os.kill(1, n)\nprint('alive')", stdout: "alive\n"},
		{
			name: "tracing", code: `print(call("ptrace", 16, 1, 0, 0), call("ptrace", 0, 0, 0, 0), call("process_vm_readv", 1, None, 0, None, 0, 0), call("syscall", 312, 1, 1, 0, 0, 0))`,
			stdout: "EPERM EPERM EPERM EPERM\n",
		},
		{
			name: "namespaces by every way", code: `NEW = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80)
print({call("unshare", flag) for flag in NEW}, {call("syscall", 56, flag | 17, 0, 0, 0, 0) for flag in NEW[:-1]}, call("syscall", 435, bytes(88), 88))
print({call("setns", os.open("/proc/self/ns/" + n, os.O_RDONLY), 0) for n in ("pid", "user", "mnt", "ipc", "net", "uts")})`,
			stdout: "{'EPERM'} {'EPERM'} ENOSYS\n{'EPERM'}\n",
		},
		{name: "mounts", code: `print(call("mount", b"none", b"/tmp", b"tmpfs", 0, None), call("umount2", b"/tmp", 2), call("chroot", b"/tmp"), call("pivot_root", b"/", b"/") if hasattr(libc, "pivot_root") else "EPERM",
      *(call("syscall", n, 0, 0, 0, 0, 0) for n in (428, 429, 430, 431, 432, 433, 442)))`, stdout: strings.Repeat("EPERM ", 10) + "EPERM\n"},
		{name: "doors into the kernel", code: `print({call("syscall", n, 0, 0, 0, 0, 0) for n in (321, 298, 323, 425, 426, 427, 248, 249, 250, 300, 303, 304, 175, 313, 246, 169)})`, stdout: "{'EPERM'}\n"},
		{
			name: "kinds of sockets", code: `print({call("socket", family, 3, 0) for family in range(50) if family not in (1, 2, 10, 16)}, call("socket", 1, 1, 0), call("socket", 2, 1, 0))`,
			stdout: "{'EAFNOSUPPORT'} done done\n",
		},
		{name: "system calls of x32", code: `pid = os.fork()
if pid == 0: os._exit(1 if call("syscall", 0x40000000 | 39) == "ENOSYS" else 2)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (1, -31))  # refused, or ended with SIGSYS
`, stdout: "True\n"},
		// A kernel that has none of them (ia32_emulation=off) sends SIGSEGV.
		{name: "system calls of 32-bit programs", code: `import mmap, os, signal
code = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7); code.write(bytes.fromhex("b814000000cd80c3"))
if (pid := os.fork()) == 0:
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))(); os._exit(0)
print(os.waitpid(pid, 0)[1] & 0x7f in (signal.SIGSYS, signal.SIGSEGV))`, stdout: "True\n"},
		{
			name: "siblings, which the zygote would have to bury",
			code: `print({call("syscall", 56, flag | 17, 0, 0, 0, 0) for flag in (0x8000, 0x2000, 0xa000)})`, stdout: "{'EPERM'}\n",
		},
		{
			name:   "pairs of other sockets",
			code:   `print({call("socketpair", f, 1, 0, (ctypes.c_int * 2)()) for f in (2, 16, 30, 40)}, call("socketpair", 1, 1, 0, (ctypes.c_int * 2)()))`,
			stdout: "{'EAFNOSUPPORT'} done\n",
		},
		{name: "a farewell that claims too much", code: `import struct, time
for claim in ((2**64 - 1, 2**64 - 1), (10**15, 1), (1, 2**40)): os.write(63, struct.pack("BQQ", 7, *claim)); time.sleep(0.01)
print("on")`, stdout: "on\n"},
		{name: "a farewell that is taken back", code: `r = os.open("/proc/self/fd/63", os.O_RDONLY | os.O_NONBLOCK)
for k in range(20000):
    os.write(63, b"x")
    try: os.read(r, 1)
    except BlockingIOError: break
import time; time.sleep(60)`, timeout: 800, exit: "null", reason: "timeout"},
		{name: "files that vanish while they are listed", code: `import time
open("result.txt", "w").write("x")
for k in range(8):
    if os.fork() == 0:
        while True:
            for n in range(30): p = f"a{k}-{n}"; os.close(os.open(p, os.O_CREAT | os.O_WRONLY)); os.unlink(p)
time.sleep(0.03)`, files: "~result.txt"},
		{name: "a forged farewell", code: `import struct, time
os.write(63, struct.pack("BQQ", 7, 0, 1)); time.sleep(10)`, exit: "7"},
		{name: "a broken farewell", code: `os.write(63, b"x" * 5); print("on")`, stdout: "on\n"},
		{name: "many farewells", code: `os.set_blocking(63, False)
try:
    while True: os.write(63, bytes(4096))
except OSError: pass
print("on")`, stdout: "~"},
		{name: "no farewell", code: `os.close(63); print("on")`, stdout: "on\n"},
		{name: "another file in the farewell's place", code: `fd = os.open("f", os.O_RDWR | os.O_CREAT); os.dup2(fd, 63); print("on")`, stdout: "on\n", files: "f"},
		{name: "both sides of a fork go on to the end", code: `pid = os.fork()
if pid:
    os.waitpid(pid, 0); print("parent")
else: print("child")`, stdout: "child\nparent\n"},
		{name: "output of a child that is killed", code: `if os.fork() == 0:
    while True: os.write(1, b"x" * 1000)
`, stdout: "~"},
		{name: "files written while the run ends", code: `import time
if os.fork() == 0:
    i = 0
    while True: open("f", "w").write("x" * (i % 5000)); i += 1
time.sleep(0.05)`, files: "f"},
	} {
		t.Run(p.name, func(t *testing.T) {
			body := request{"code": places + p.code + "\nNone"}
			if p.timeout > 0 {
				body["timeout_ms"] = p.timeout
			}
			a := mustRun(t, s, body)
			p.check(t, a)
			if a.took > 4000 {
				t.Errorf("it took %.0f ms", a.took)
			}
			program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
			now := current()
			if now != first && p.timeout == 0 {
				t.Error("the sandbox was replaced")
			}
			first = now
		})
	}
}

// After a run that came near a limit, or has served its time, a sandbox is
// replaced; the next run is right all the same.
func TestRetirement(t *testing.T) {
	s, current := alone(t, "SANDBOX_MAX_RUNS=6")
	checkRetirement(t, s, current, []program{
		{name: "timeout", code: "while True: pass", timeout: 200, exit: "null", reason: "timeout"},
		{name: "too many files", code: "for i in range(3000): open(f'/tmp/{i}', 'w').close()\nNone"},
		{name: "folders too deep", code: "import os\nos.chdir('/tmp')\nfor i in range(100): os.mkdir('d'); os.chdir('d')\nNone"},
	})
	t.Run("number of runs", func(t *testing.T) {
		seen := make(map[string]int)
		for range 13 {
			mustRun(t, s, request{"code": "None"})
			for _, c := range mustList(t, s) {
				seen[c]++
			}
		}
		if len(seen) < 3 || len(seen) > 6 {
			t.Errorf("13 runs of at most 6 each in sandboxes %v", seen)
		}
	})
}

// So it is after a run that was refused what cgroups bound, who count that.
func TestCgroupRetirement(t *testing.T) {
	s, current := alone(t)
	checkRetirement(t, s, current, []program{
		{name: "memory", code: "x = bytearray(400 << 20)", exit: "137", reason: "memory_limit", signal: "SIGKILL"},
		{name: "memory of a child", code: "import os\nif os.fork() == 0: x = bytearray(400 << 20)\nelse: os.wait()\nNone"},
		{name: "processes", code: "import os\ntry:\n  while True:\n    if os.fork() == 0: os.read(os.pipe()[0], 1)\nexcept OSError: pass\nNone"},
	})
}

func checkRetirement(t *testing.T, s *server, current func() string, programs []program) {
	t.Helper()
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			mustRun(t, s, request{"code": "None"}) // the sandbox is there
			before := current()
			p.check(t, mustRun(t, s, request{"code": p.code, "timeout_ms": max(p.timeout, 200) + 3000*min(1, max(0, 200-p.timeout))}))
			program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
			if current() == before {
				t.Error("the sandbox goes on")
			}
		})
	}
}

func mustList(t *testing.T, s *server) []string {
	t.Helper()
	list, err := shared.host.sandboxes(s.instance)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, found := range list {
		ids = append(ids, found.id)
	}
	return ids
}

// Where programs could leave something that nobody deletes, each run gets a
// container of its own; what insists on less fails at the start, in words.
func TestDockerFallback(t *testing.T) {
	const image = "vivarium/volume:integration"
	build := exec.Command("docker", "build", "-q", "-t", image, "-")
	build.Stdin = strings.NewReader("FROM " + slimImage + "\nVOLUME /volume\n")
	build.Env = append(build.Environ(), "DOCKER_BUILDKIT=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", image).Run() })
	const why = "programs could leave files for others at /volume"

	s := startServer(t, "PYTHON_EXECUTOR_DOCKER_IMAGE="+image, "POOL_SIZE=1")
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	var health struct {
		Status, Isolation string
		Reason            string `json:"isolation_reason"`
	}
	if err := getJSON(t, s.url+"/health", &health); err != nil {
		t.Fatal(err)
	}
	if health.Status != "ok" || health.Isolation != "container" || !strings.Contains(health.Reason, why) {
		t.Errorf("/health says %+v", health)
	}
	if !strings.Contains(s.logged(), why) {
		t.Errorf("the log does not say why:\n%s", s.logged())
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stderr bytes.Buffer
	strict := exec.CommandContext(ctx, shared.binary, "serve")
	strict.Env = append(strict.Environ(), "PORT=0", "ISOLATION=run", "PYTHON_EXECUTOR_DOCKER_IMAGE="+image)
	strict.Stderr = &stderr
	if err := strict.Run(); err == nil || !strings.Contains(stderr.String(), why) || !strings.Contains(stderr.String(), "build the image without VOLUME") {
		t.Errorf("%v: %s", err, stderr.String())
	}
	doctor := exec.CommandContext(ctx, shared.binary, "doctor")
	doctor.Env = append(doctor.Environ(), "PYTHON_EXECUTOR_DOCKER_IMAGE="+image)
	out, err := doctor.Output()
	if err != nil || !strings.Contains(string(out), "slower   each run gets a sandbox of its own") || !strings.Contains(string(out), why) {
		t.Errorf("%v: %s", err, out)
	}
}

// The default is what can be had here.
func TestHealthTellsTheIsolation(t *testing.T) {
	var health struct{ Isolation string }
	if err := getJSON(t, shared.server.url+"/health", &health); err != nil || health.Isolation != "run" {
		t.Errorf("%+v %v", health, err)
	}
}

// One run cannot keep the sandboxes of others from starting or from being used,
// by the limits that the kernel has for all processes of a user.
func TestDescriptorsInFlight(t *testing.T) {
	hog := startServer(t, "ISOLATION=run", "POOL_SIZE=1", "MAX_SANDBOXES=1")
	other, _ := alone(t)
	under := make(chan *answer, 1)
	go func() {
		a, err := hog.execute(context.Background(), request{"timeout_ms": 4000, "code": `import socket, array, time
S = []
try:
  for i in range(60):
    s, t = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); S += [s, t]
    for k in range(5): s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [t.fileno()] * 250))], socket.MSG_DONTWAIT)
except OSError as e: print(e.errno)
time.sleep(3)`})
		if err != nil {
			t.Error(err)
		}
		under <- a
	}()
	for {
		select {
		case a := <-under:
			program{stdout: "109\n"}.check(t, a) // ETOOMANYREFS: it has what it may have
			return
		default:
			program{stdout: "42\n"}.check(t, mustRun(t, other, request{"code": "print(6*7)"}))
		}
	}
}

// Files that were staged come before modules that were imported ahead.
func TestStagedModulesComeFirst(t *testing.T) {
	for _, isolation := range []string{"run", "container"} {
		s := startServer(t, "ISOLATION="+isolation, "POOL_SIZE=1", "PRELOAD_MODULES=calendar,xml.dom.minidom")
		program{stdout: "mine mine also True\n"}.check(t, mustRun(t, s, request{
			"code": "import calendar, xml.dom, struct, os\nprint(calendar.whose, xml.dom.whose, hasattr(os, 'getpid'))",
			"files": []request{
				{"path": "calendar.py", "content_base64": encode("whose = 'mine'")},
				{"path": "xml/__init__.py", "content_base64": encode("")},
				{"path": "xml/dom.py", "content_base64": encode("whose = 'mine also'")},
				{"path": "os.py", "content_base64": encode("")},
			},
		}))
	}
}
