package integration

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
)

// Every wall of the design stands on a warm container, as the engine sees it.
func TestDockerWalls(t *testing.T) {
	s := startServer(t, "POOL_SIZE=1")
	warm, ok := awaitRunning(s.instance, 1)
	if !ok {
		t.Fatal("no warm container")
	}
	c, err := shared.engine.ContainerInspect(t.Context(), warm[0])
	if err != nil {
		t.Fatal(err)
	}
	h := c.HostConfig
	walls := map[string]bool{
		"no network":              h.NetworkMode == "none",
		"read-only root":          h.ReadonlyRootfs,
		"no capabilities":         strings.Join(h.CapDrop, " ") == "ALL" && len(h.CapAdd) == 0,
		"no new privileges":       strings.Contains(strings.Join(h.SecurityOpt, " "), "no-new-privileges"),
		"our seccomp profile":     strings.Contains(strings.Join(h.SecurityOpt, " "), `seccomp={`),
		"not root":                strings.HasPrefix(c.Config.User, "19000") && strings.HasSuffix(c.Config.User, ":65532"),
		"memory":                  h.Memory == 256<<20,
		"no swap":                 h.MemorySwap == h.Memory,
		"processes":               h.PidsLimit != nil && *h.PidsLimit == 64+5,
		"cpu quota":               h.NanoCPUs == 1e9,
		"workspace in memory":     strings.Contains(h.Tmpfs["/workspace"], "size=67108864") && strings.Contains(h.Tmpfs["/workspace"], "nosuid,nodev"),
		"/tmp in memory":          strings.Contains(h.Tmpfs["/tmp"], "noexec"),
		"small /dev/shm":          strings.Contains(h.Tmpfs["/dev/shm"], "size=67108864"),
		"no terminals":            strings.HasPrefix(h.Tmpfs["/dev/pts"], "ro,"),
		"first victims":           h.OomScoreAdj == 500,
		"stdin ends with us":      c.Config.OpenStdin && c.Config.StdinOnce,
		"no log":                  h.LogConfig.Type == "none",
		"removed at the end":      h.AutoRemove,
		"own ipc":                 h.IpcMode == "private",
		"masked /proc":            slices.Contains(h.MaskedPaths, "/proc/kcore") && slices.Contains(h.MaskedPaths, "/proc/keys"),
		"read-only in /proc":      slices.Contains(h.ReadonlyPaths, "/proc/bus") && slices.Contains(h.ReadonlyPaths, "/proc/irq"),
		"not privileged":          !h.Privileged,
		"no mounts from the host": len(h.Binds) == 0 && len(h.Mounts) == 0,
		"labels": c.Config.Labels["vivarium.instance"] == s.instance &&
			c.Config.Labels["vivarium.pool"] != "" && c.Config.Labels["vivarium.deadline"] != "",
	}
	for name, stands := range walls {
		if !stands {
			t.Errorf("%s: not so", name)
		}
	}
}

// No process in a session's container gets a lease, not even one that is not behind
// the programs' own filter.
func TestDockerSessionLeases(t *testing.T) {
	engine := dockerHost{shared.engine}
	id := startSession(t, shared.server, request{}).sandbox(t)
	if status, err := engine.run(id, "python3", "-c", lease); err != nil || status != 1 {
		t.Errorf("behind the container's profile alone a lease is had: %d %v", status, err)
	}
	if status, err := engine.run(id, "python3", "-c", "import fcntl; fcntl.lockf(open('/tmp/a', 'w'), fcntl.LOCK_EX)"); err != nil || status != 0 {
		t.Errorf("a lock is not had: %d %v", status, err)
	}
}

// The same walls, as a program finds them.
func TestWallsFromInside(t *testing.T) {
	for _, p := range []program{
		{name: "capabilities", code: "print({l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')})", stdout: "{'0000000000000000'}\n"},
		{name: "no new privileges", code: "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('NoNewPrivs', 'Seccomp:'))])", stdout: "['1', '2']\n"},
		{name: "user", code: `import os, pwd
print(len({*os.getresuid()}), os.getuid() == 65532 or 1900000000 <= os.getuid() < 1900001024, os.getresgid(), {*os.getgroups()} - {65532}, pwd.getpwuid(os.getuid()).pw_name)`, stdout: "1 True (65532, 65532, 65532) set() sandbox\n"},
		{name: "interfaces and names", code: "import ctypes, socket\nfound = ctypes.c_void_p()\nprint(ctypes.CDLL(None).getifaddrs(ctypes.byref(found)), '127.0.0.1' in [found[4][0] for found in socket.getaddrinfo('localhost', 80, proto=6)])", stdout: "0 True\n"},
		terminals(),
		{name: "the supervisor's source", code: "print(len(open('/proc/1/cmdline').read()) < 100, open('/proc/1/cmdline').read() == open('/proc/self/cmdline').read())", stdout: "True True\n"},
		{name: "what writes out the host's disks does nothing", code: "import os\nfd = os.open('/usr/bin/env', os.O_RDONLY)\nprint(os.sync(), os.fsync(fd), os.fdatasync(fd))", stdout: "None None None\n"},
		{name: "files that give rights", code: "import os\nprint([n for n in os.popen('find / -xdev -perm /6000 -type f 2>/dev/null').read().split()])", stdout: "[]\n"},
		{name: "places to write", code: `import os
for place in ("/", "/etc", "/usr", "/run", "/var/tmp", "/home", "/opt", "/workspace", "/tmp", "/dev/shm", "/dev/mqueue"):
    try: open(place + "/x", "w").close(); print(place)
    except OSError: pass`, stdout: "/workspace\n/tmp\n/dev/shm\n", files: "x"},
		{name: "the kernel's settings", code: `import os
opened = []
for folder, _, names in os.walk("/proc/sys"):
    for name in names:
        try: opened.append(os.close(os.open(folder + "/" + name, os.O_WRONLY)) or name)
        except OSError: pass
print(os.statvfs("/proc/sys").f_flag & os.ST_RDONLY, opened)`, stdout: "1 []\n"},
		{name: "what the kernel tells of the machine", code: `import os
def told(path):
    try: return os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
    except OSError: return False
print([name for name in ("acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats") if told("/proc/" + name)])`, stdout: "[]\n"},
		{name: "network", code: "import socket\nprint(socket.if_nameindex())", stdout: "[(1, 'lo')]\n"},
		{name: "namespaces", code: "import os\nfor flag in (0x10000000, 0x20000, 0x20000000):\n  try: os.unshare(flag); print('made', flag)\n  except OSError as e: print(e.errno)", stdout: "1\n1\n1\n"},
		{name: "forbidden calls", code: `import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, number in dict(io_uring_setup=425, userfaultfd=323, bpf=321, keyctl=250, perf_event_open=298, mount=165, kexec_load=246).items():
    result = libc.syscall(number, 0, 0, 0, 0, 0)
    print(name, result, ctypes.get_errno())`, stdout: "io_uring_setup -1 1\nuserfaultfd -1 1\nbpf -1 1\nkeyctl -1 1\nperf_event_open -1 1\nmount -1 1\nkexec_load -1 1\n"},
		{name: "calls that would hold a pipe that the supervisor reads", code: `import os, socket
a, b = socket.socketpair()
pipe = os.pipe()
for call in (lambda: os.splice(b.fileno(), 1, 10), lambda: os.sendfile(1, b.fileno(), None, 10), lambda: os.splice(b.fileno(), pipe[1], 10)):
    try: print(call())
    except OSError as e: print(e.errno)`, stdout: "38\n38\n38\n"},
		{name: "leases, which would hold up whoever opens the file", code: `import fcntl, os
fd = os.open('/tmp/a', os.O_RDWR | os.O_CREAT)
for command in (fcntl.F_SETLEASE, fcntl.F_NOTIFY, 1040):
    try: print(fcntl.fcntl(fd, command, fcntl.F_WRLCK))
    except OSError as e: print(e.errno)
fcntl.lockf(fd, fcntl.LOCK_EX)
print(fcntl.fcntl(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100), fcntl.F_GETLEASE) == fcntl.F_UNLCK)`, stdout: "1\n1\n1\nTrue\n"},
		{name: "copying without them", code: `import os, shutil, socket, subprocess, threading
open('a', 'wb').write(bytes(range(256)) * 4096)
shutil.copyfile('a', 'b')
subprocess.run('cp a c; cat a > d; tar cf e a; dd if=a of=f status=none; head -c 100 a > g; gzip -k a', shell=True, check=True)
left, right = socket.socketpair()
got = []
reader = threading.Thread(target=lambda: got.extend(iter(lambda: right.recv(1 << 16), b'')))
reader.start()
left.sendfile(open('a', 'rb')); left.close(); reader.join()
print({len(open(name, 'rb').read()) for name in 'abcdf'}, sum(map(len, got)))
for name in os.listdir(): os.remove(name)`, stdout: "{1048576} 1048576\n"},
		{name: "environment", code: "import os; print(*sorted(os.environ))", stdout: "HOME HOSTNAME LANG MPLBACKEND NUMBA_NUM_THREADS OMP_NUM_THREADS OPENBLAS_NUM_THREADS PATH PYTHONDONTWRITEBYTECODE PYTHONINTMAXSTRDIGITS PYTHONUNBUFFERED TZ USER\n"},
		{name: "core dumps and files", code: "import resource as r; print(r.getrlimit(r.RLIMIT_CORE), r.getrlimit(r.RLIMIT_NOFILE))", stdout: "(1, 1) " + openFiles() + "\n"},
		{name: "first victim of the kernel", code: `import os
print(open('/proc/self/oom_score_adj').read().strip())
for score in ("999", "500", "0", "-1000"):
    try: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), score.encode()); print("lowered to", score)
    except PermissionError: pass`, stdout: "1000\n"},
	} {
		t.Run(p.name, func(t *testing.T) {
			p.check(t, mustRun(t, shared.server, request{"code": p.code}))
		})
	}
}

// terminals tries to have one. Pods have them, and nobody can take them away: so there are few.
func terminals() program {
	if inPods() {
		return program{
			name: "few terminals", code: "import os, time\nkept = [os.openpty() for _ in range(17)]\ntime.sleep(9)",
			exit: "137", reason: "memory_limit", signal: "SIGKILL",
		}
	}
	return program{name: "no terminals", code: "import os\ntry: os.openpty()\nexcept OSError as e: print(e.errno)", stdout: "2\n"}
}

// openFiles is the limit of a program's open files, as Python has it: lower where
// nothing else bounds the memory that they take.
func openFiles() string {
	if shared.eachProcess && !inPods() {
		return "(128, 128)"
	}
	return "(1024, 1024)"
}

// One run sees nothing of another.
func TestRunsAreApart(t *testing.T) {
	mustRun(t, shared.server, request{"code": `import os
for place in ("/workspace", "/tmp", "/dev/shm"): open(place + "/mark", "w").write("x")
if os.fork() == 0:
    import time; time.sleep(100)`})
	p := program{stdout: "[] []\n"}
	p.check(t, mustRun(t, shared.server, request{"code": `import os
print([p for p in ("/workspace", "/tmp", "/dev/shm") if os.path.exists(p + "/mark")],
      [p for p in os.listdir("/proc") if p.isdigit() and p != os.readlink("/proc/self") and os.access(f"/proc/{p}/fd", os.R_OK)])`}))
}

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// Inputs come back when they were changed, and only then.
func TestFiles(t *testing.T) {
	a := mustRun(t, shared.server, request{
		"code": `import os
print(open("in/a.txt").read(), open("b.bin", "rb").read())
open("in/a.txt", "a").write("!")
os.makedirs("out/deep"); open("out/deep/new.bin", "wb").write(bytes(range(256)))
None`,
		"files": []request{
			{"path": "in/a.txt", "content_base64": encode("héllo")},
			{"path": "b.bin", "content_base64": encode("\x00\xff")},
		},
	})
	program{stdout: "héllo b'\\x00\\xff'\n", files: "in/a.txt out/deep/new.bin"}.check(t, a)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, want := range []string{"héllo!", string(all)} {
		f := a.Files[i]
		if got := shared.server.download(t, f.FileID); got != want || f.SizeBytes != int64(len(want)) || f.Kind != "file" {
			t.Errorf("%+v has %q, not %q", f, got, want)
		}
	}
}

// A staged module can be imported and leaves no cache behind.
func TestStagedModule(t *testing.T) {
	program{stdout: "7\n"}.check(t, mustRun(t, shared.server, request{
		"code":  "import helper; helper.seven()",
		"files": []request{{"path": "helper.py", "content_base64": encode("def seven(): return 7")}},
	}))
}

// A file that fits the limits but not the workspace beside the code is refused
// as too large, in words.
func TestFilesThatDoNotFit(t *testing.T) {
	s := startServer(t, "WORKSPACE_LIMIT_MB=1", "POOL_SIZE=1")
	for _, size := range []int{1 << 20, 2 << 20} {
		a, err := s.execute(t.Context(), request{
			"code": "print(1)", "files": []request{{"path": "a", "content_base64": encode(strings.Repeat("x", size))}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if detail, _ := a.Detail.(string); a.status != 413 || !strings.Contains(detail, "workspace of 1 MB") {
			t.Errorf("%d bytes: status %d, %v", size, a.status, a.Detail)
		}
	}
}
