package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/local"
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// hostPython is the machine's own, whatever PATH says.
const hostPython = "/usr/bin/python3"

// nobody is an ordinary user, who may not make cgroups.
const nobody = 65534

// aloneVariable has this binary run its tests with no server, as somebody who
// could start none: it has the folder of the slim image.
const aloneVariable = "VIVARIUM_TEST_ROOTFS"

// The local backend does what every backend must: with either isolation, and with
// the machine's own Python as with another root's.
func TestLocalConformance(t *testing.T) {
	for name, options := range map[string]local.Options{
		"host":   {Python: hostPython},
		"rootfs": {Rootfs: rootfs(slimImage)},
	} {
		t.Run(name, func(t *testing.T) {
			conformBare(t, func(t *testing.T, command supervisor.Command) instanceBackend {
				t.Helper()
				return newLocal(t, options, command)
			})
		})
	}
}

func rootfs(image string) string { return shared.host.(*localHost).images[image] }

func newLocal(t *testing.T, options local.Options, command supervisor.Command) *local.Backend {
	t.Helper()
	options.Command, options.Environment, options.Workspace = command, supervisor.Environment(), supervisor.Workspace
	options.Folder = t.TempDir()
	backend, err := local.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return backend
}

// An ordinary user, who may make no cgroups, has it do the same.
func TestLocalConformanceOfAnOrdinaryUser(t *testing.T) {
	binary := filepath.Join(folderOf(t, nobody), "tests")
	// Without the race detector, which takes more memory than a sandbox may have.
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-race=false", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestLocalConformance$", "-test.v")
	cmd.Dir = filepath.Dir(binary)
	cmd.Env = append(os.Environ(), aloneVariable+"="+rootfs(slimImage), "TMPDIR="+cmd.Dir, "HOME=/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestLocalConformance/rootfs/run") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Without cgroups the supervisor bounds what processes have together, however they
// hide it; what belongs to no process cannot be had.
func TestLocalMemoryWithoutCgroups(t *testing.T) {
	folder := folderOf(t, nobody)
	binary := withoutRace(t, folder)
	const fill = `
import ctypes, mmap, os, threading, time
def fill(megabytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
    m = mmap.mmap(-1, megabytes << 20, flags)
    for at in range(0, len(m), 4096): m[at] = 1
    return m
SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
def children(work):
    for _ in range(10):
        if os.fork() == 0: work(); os._exit(0)
    raise SystemExit(max(os.wait()[1] for _ in range(3)))
`
	killed := "memory_limit"
	for name, test := range map[string]struct{ code, want string }{
		"one, in private": {"fill(400)", "Cannot allocate memory"},
		"one, shared":     {"fill(1, SHARED)", "Operation not permitted"},
		"one, shared, of a device": {`
with open("/dev/zero") as zero: m = mmap.mmap(zero.fileno(), 400 << 20, mmap.MAP_SHARED, mmap.PROT_READ)
for at in range(0, len(m), 4096): m[at]`, "SIGBUS"},
		"many": {"children(lambda: (fill(60), time.sleep(9)))", killed},
		"many, not to be looked at": {`
def work(): ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); m = fill(60); time.sleep(9)
children(work)`, killed},
		"many, without their first threads": {`
def work():
    def fill_and_wait(): m = fill(60); time.sleep(9)
    threading.Thread(target=fill_and_wait).start()
    ctypes.CDLL(None).syscall(60, 0)
children(work)`, killed},
		"who starts other programs": {`
import subprocess
m = bytearray(140 << 20)
for _ in range(30): subprocess.run(["/bin/true"], check=True)`, "exit status 0"},
		"page tables": {`
m = mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ)
m.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, len(m), 2 << 20): m[at]
time.sleep(9)`, killed},
		"memory files":     {"os.memfd_create('x')", "Function not implemented"},
		"semaphores":       {"raise SystemExit(ctypes.CDLL(None).semget(0, 1, 0o600))", "exit status 255"},
		"queues":           {"raise SystemExit(ctypes.CDLL(None).msgget(0, 0o600))", "exit status 255"},
		"Landlock's rules": {"raise SystemExit(ctypes.CDLL(None).syscall(444, 0, 0, 1))", "exit status 255"},
		"segments":         {"raise SystemExit(ctypes.CDLL(None).shmget(0, 1 << 20, 0o600))", "exit status 255"},
		"what forks share": {"m = fill(100)\nfor _ in range(10):\n    if os.fork() == 0: time.sleep(0.5); os._exit(0)\nraise SystemExit(max(os.wait()[1] for _ in range(10)))", "exit status 0"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), binary, "exec", "--timeout", "8s", fill+test.code)
			cmd.Dir = folder
			cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + folder, "EXECUTOR_BACKEND=local", "LOCAL_PYTHON=" + hostPython, "MEMORY_LIMIT_MB=256"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if told := string(out) + cmd.ProcessState.String(); !strings.Contains(told, test.want) {
				t.Errorf("%q is not in %s", test.want, told)
			}
		})
	}
}

// withoutRace builds a server without the race detector, whose memory and threads
// would count where there are no cgroups.
func withoutRace(t *testing.T, folder string) string {
	t.Helper()
	binary := filepath.Join(folder, "vivarium")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// folderOf makes a folder of a user's.
func folderOf(t *testing.T, user int) string {
	t.Helper()
	folder := t.TempDir()
	if user == os.Geteuid() {
		return folder
	}
	if err := errors.Join(os.Chmod(filepath.Dir(folder), 0o755), os.Chown(folder, user, user)); err != nil {
		t.Fatal(err)
	}
	return folder
}

// onHost has a server's sandboxes see the machine's own programs, with a Python
// of its.
func onHost(python string, more ...string) []string {
	return append([]string{"LOCAL_ROOTFS=", "LOCAL_PYTHON=" + python}, more...)
}

// Of the host, programs see /usr and what it takes to run it, read-only, and
// nothing else: no files, no network, no processes.
func TestLocalHostIsNotSeen(t *testing.T) {
	marks := make([]string, 0, 3)
	for _, folder := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		made, err := os.MkdirTemp(folder, "vivarium-mark-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(made) })
		marks = append(marks, made)
	}
	abstract, err := net.Listen("unix", "@"+filepath.Base(marks[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = abstract.Close() })
	s := startServer(t, onHost(hostPython, "POOL_SIZE=1")...)
	for _, p := range []program{
		{name: "what there is", code: "import os, sys; print(sys.version_info >= (3, 9), os.path.isdir('/usr/lib'), os.path.exists('/bin/sh'))", stdout: "True True True\n"},
		{
			name: "folders of the host's",
			code: `import os
print(os.listdir("/home"), os.listdir("/mnt")) # the workspace's other names
for path in ("/root", "/var", "/run", "/srv", "/media", "/boot", "/etc/shadow", "/etc/ssh", "/etc/machine-id", "/etc/hostname", "/sys/class", ` + quote(marks) + `):
    if os.path.lexists(path): print(path)`,
			stdout: "['user'] ['data']\n",
		},
		{name: "users of the host's", code: "print([line.split(':')[0] for line in open('/etc/passwd')])", stdout: "['root', 'sandbox']\n"},
		{
			name: "mounts that can be written", code: `for line in open('/proc/self/mountinfo'):
    _, _, _, root, place, options = line.split()[:6]
    device = place.startswith("/dev/") and root == place.removeprefix("/dev") or root == "/null"  # which covers files in /proc
    if "ro" not in options.split(",") and not device: print(place)`,
			stdout: "/proc\n/workspace\n/tmp\n/dev/shm\n",
		},
		{
			name: "mounts on which a setuid file has an effect", code: `mounts = [line.split()[4:6] for line in open('/proc/self/mountinfo')]
print(len(mounts) > 5, [place for place, options in mounts if "nosuid" not in options.split(",")])`,
			stdout: "True []\n",
		},
		{
			name: "network", code: `import errno, socket
def tried(family, address):
    try: socket.socket(family).connect(address)
    except OSError as e: return errno.errorcode[e.errno]
print(tried(socket.AF_INET, ("127.0.0.1", ` + s.url[strings.LastIndex(s.url, ":")+1:] + `)), tried(socket.AF_INET, ("1.1.1.1", 53)), tried(socket.AF_INET6, ("2606:4700::1111", 53)),
      tried(socket.AF_UNIX, "\0` + filepath.Base(marks[0]) + `"))`,
			stdout: "ECONNREFUSED ENETUNREACH ENETUNREACH ECONNREFUSED\n",
		},
		{
			name: "processes", code: `import os
print({name for pid in os.listdir("/proc") if pid.isdigit() for name in open(f"/proc/{pid}/comm")} - {"python3\n", "python3.%d\n" % __import__("sys").version_info[1]})`,
			stdout: "set()\n",
		},
		{name: "host's name", code: "import os; print(os.uname().nodename)", stdout: "sandbox\n"},
	} {
		t.Run(p.name, func(t *testing.T) { p.check(t, mustRun(t, s, request{"code": p.code})) })
	}
}

// quote gives strings as Python has them in a tuple.
func quote(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = strconv.Quote(word)
	}
	return strings.Join(quoted, ", ")
}

// A virtual environment brings its packages, which programs cannot change; its
// surroundings are not seen.
func TestLocalVirtualEnvironment(t *testing.T) {
	home, err := os.MkdirTemp("/var/tmp", "vivarium-home-") // the sandbox has a /tmp of its own
	if err == nil {
		err = os.Chmod(home, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	environment := filepath.Join(home, "venv")
	output(t, exec.CommandContext(t.Context(), hostPython, "-m", "venv", "--without-pip", environment))
	packages, err := filepath.Glob(filepath.Join(environment, "lib", "python3*", "site-packages"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("%q, %v", packages, err)
	}
	const secret = "of nobody's business"
	for path, text := range map[string]string{
		filepath.Join(packages[0], "mine.py"):                  "whose = 'mine'\n",
		filepath.Join(environment, "bin", "tool"):              "#!/bin/sh\necho tool\n",
		filepath.Join(home, "secret"):                          secret,
		filepath.Join(environment, ".env"):                     secret, // as where it is a project's own folder
		filepath.Join(packages[0], "mine-1.dist-info/RECORD"):  "",
		filepath.Join(packages[0], "other-1.dist-info/RECORD"): "",
	} {
		makeFolders(t, filepath.Dir(path))
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o755), os.Chmod(path, 0o777)); err != nil {
			t.Fatal(err)
		}
	}
	linked := filepath.Join(home, "..", filepath.Base(home)+"-link")
	if err := os.Symlink(home, linked); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(linked) })
	s := startServer(t, onHost(filepath.Join(linked, "venv", "bin", "python"), "POOL_SIZE=1")...)
	program{stdout: "mine " + filepath.Join(linked, "venv") + "\n"}.check(t, mustRun(t, s, request{"code": "import mine, sys; print(mine.whose, sys.prefix)"}))
	for _, isolation := range []string{"run", "container"} {
		s := startServer(t, onHost(filepath.Join(environment, "bin", "python"), "POOL_SIZE=1", "ISOLATION="+isolation)...)
		for _, p := range []program{
			{name: "a package", code: "import mine, sys; print(mine.whose, sys.prefix == " + strconv.Quote(environment) + ")", stdout: "mine True\n"},
			{name: "a child's", code: "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'import mine; print(mine.whose)'], capture_output=True, text=True).stdout)", stdout: "mine\n\n"},
			{name: "python3 in PATH", code: "import subprocess; print(subprocess.run(['python3', '-c', 'import mine; print(mine.whose)'], capture_output=True, text=True).stdout)", stdout: "mine\n\n"},
			{name: "a tool", code: "import subprocess; print(subprocess.run(['tool'], capture_output=True, text=True).stdout)", stdout: "tool\n\n"},
			{name: "is read-only", code: "import mine; open(mine.__file__, 'a')", exit: "1", stderr: "~Read-only file system"},
			{name: "so are its folders", code: "import sys; open(sys.prefix + '/x', 'w')", exit: "1", stderr: "~Read-only file system"},
			{name: "what it does not need", code: "import os, sys; print('.env' in os.listdir(sys.prefix), 'lib64' in os.listdir(sys.prefix))", stdout: "False True\n"},
			{name: "its surroundings", code: "import os; print(os.listdir(" + strconv.Quote(home) + "))", stdout: "['venv']\n"},
		} {
			t.Run(isolation+" "+p.name, func(t *testing.T) { p.check(t, mustRun(t, s, request{"code": p.code})) })
		}
	}
}

// An interpreter that cannot be had ends a server at its start, in words; an MCP
// client, which has no use for that, hears them with its first call.
func TestLocalWithoutPython(t *testing.T) {
	const want = `LOCAL_PYTHON is "/nowhere/python": must be the path of a Python, or a name in PATH`
	s, err := startProcess(onHost("/nowhere/python"))
	if err == nil {
		t.Errorf("the server starts (%v)", s.end())
	} else if !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	p := startStdio(t, onHost("/nowhere/python")...)
	p.greet()
	p.say(`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"execute_python","arguments":{"code":"1"}}}`)
	if result := fmt.Sprint(p.hear()["result"]); !strings.Contains(result, want+". Nothing was run.") {
		t.Errorf("result: %s", result)
	}
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.stderr.String())
	}
}

// Where no engine answers, sandboxes are made here, and the log says so.
func TestLocalIsTheFallback(t *testing.T) {
	s := startServer(t, "EXECUTOR_BACKEND=auto", "DOCKER_HOST=tcp://127.0.0.1:1", "POOL_SIZE=1")
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	if log := s.logged(); !strings.Contains(log, "sandboxes run on this machine") || !strings.Contains(log, "Docker Engine does not answer at tcp://127.0.0.1:1") {
		t.Errorf("the log does not say where sandboxes are made, and why:\n%s", log)
	}
}

// What a killed server has left in cgroups and of sessions that have ended is
// removed by any other's sweep. Sessions that go on are left alone.
func TestLocalSweep(t *testing.T) {
	h := shared.host.(*localHost)
	first, err := start([]string{"POOL_SIZE=1"})
	if err != nil {
		t.Fatal(err)
	}
	ended, lasting := startSession(t, first, request{}), startSession(t, first, request{})
	lasting.python(t, "x = 'kept'")
	if !poll(func() bool { return len(mustList(t, first)) >= 3 }) {
		t.Fatal("there are but the sessions")
	}
	kept, err := h.readSession(lasting.id)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.wait() // it was killed
	if err := h.kill(ended.sandbox(t)); err != nil {
		t.Fatal(err)
	}
	if left := awaitSandboxes(first.instance, 1); left != 1 {
		t.Fatalf("%d sandboxes are left, not the session alone", left)
	}
	groups := make([]string, 0, len(kept.Groups))
	for _, group := range kept.Groups {
		groups = append(groups, group)
	}
	slices.Sort(groups)
	lasting.server = startServer(t, "POOL_SIZE=1") // sweeps at its start
	var left []string
	if !poll(func() bool {
		left = h.traces(first.instance)
		slices.Sort(left)
		_, err := os.Stat(h.sessionFolder(ended.id))
		return errors.Is(err, fs.ErrNotExist) && slices.Equal(left, groups)
	}) {
		t.Errorf("left are %q, of which only %q are the session's that goes on", left, groups)
	}
	program{stdout: "'kept'\n"}.check(t, lasting.python(t, "x"))
	if status, text := lasting.server.send(t, http.MethodDelete, lasting.path(""), "", nil); status != http.StatusNoContent {
		t.Errorf("deleting: %d %s", status, text)
	}
	if left := h.traces(first.instance); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
	if _, err := os.Stat(h.sessionFolder(lasting.id)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the session's folder is left: %v", err)
	}
}

// A session is one server's, idle or not, until that ends, whichever way.
func TestLocalSessionHasOneServer(t *testing.T) {
	first, err := start([]string{"POOL_SIZE=0"})
	if err != nil {
		t.Fatal(err)
	}
	s := startSession(t, first, request{})
	s.python(t, "x = 'kept'")
	other := &session{server: startServer(t, "POOL_SIZE=0"), id: s.id}
	var refused struct{ Detail string }
	if status := other.server.post(t, other.path("/bash"), request{"cmd": "true"}, &refused); status != http.StatusServiceUnavailable ||
		refused.Detail != "another server on this machine is connected to the session" {
		t.Errorf("another server: %d %q", status, refused.Detail)
	}
	program{stdout: "'kept'\n"}.check(t, s.python(t, "x"))
	if err := first.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.wait() // it was killed
	program{stdout: "'kept'\n"}.check(t, other.python(t, "x"))
}
