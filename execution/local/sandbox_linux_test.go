package local_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/local"
)

// patience is how long anything may take that a loaded machine does slowly.
const patience = 30 * time.Second

// systemPython is the interpreter of the system, whatever is in PATH before it.
const systemPython = "/usr/bin/python3"

// supervisor is a program in place of the supervisor.
type supervisor string

func (s supervisor) Line(execution.Spec) []string { return []string{"python3", "-I", "-c", string(s)} }

func (supervisor) CompileLine(execution.Isolation) []string {
	return []string{"python3", "-I", "-c", "print('compiled')"}
}

func (s supervisor) CompileDigest(execution.Isolation) string { return string(s) }

func (s supervisor) CompiledLine(execution.Spec) []string {
	return []string{"python3", "-I", "-c", string(s)}
}

// newBackend makes a backend whose sandboxes run a program in place of the supervisor.
func newBackend(t *testing.T, program string, change ...func(*local.Options)) *local.Backend {
	t.Helper()
	opts := local.Options{
		Command:     supervisor(program),
		Environment: []string{"PATH=/usr/bin", "HOME=/tmp"},
		Workspace:   "/workspace", Python: systemPython, Folder: filepath.Join(t.TempDir(), "sessions"),
	}
	for _, c := range change {
		c(&opts)
	}
	b, err := local.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func specOf(t *testing.T, b *local.Backend) execution.Spec {
	t.Helper()
	digest, err := b.Resolve(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return execution.Spec{Image: digest, Settings: execution.Settings{
		Isolation: execution.IsolationContainer, Network: "none", MemoryBytes: 128 << 20, CPUs: 1, Processes: 16,
		WorkspaceBytes: 8 << 20, TempBytes: 4 << 20,
	}}
}

func start(t *testing.T, b *local.Backend) execution.Instance {
	t.Helper()
	i, err := b.Start(t.Context(), specOf(t, b))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := i.Destroy(ctx); err != nil {
			t.Error(err)
		}
	})
	return i
}

// run runs a program in place of the supervisor and gives what it prints.
func run(t *testing.T, b *local.Backend) string {
	t.Helper()
	i := start(t, b)
	out, err := io.ReadAll(i)
	if err != nil || i.Diagnostics() != "" {
		t.Fatalf("%v: %s\n%s", err, i.Diagnostics(), out)
	}
	return string(out)
}

// asNobody runs a test of this binary once more as a user without any power, and
// says what it says.
func asNobody(t *testing.T) bool {
	t.Helper()
	return asUser(t, syscall.Credential{Uid: 65534, Gid: 65534})
}

// asUser runs a test of this binary once more as a user with some settings, and reports
// whether it did: only root can, and not in such a run.
func asUser(t *testing.T, who syscall.Credential, settings ...string) bool {
	t.Helper()
	const inside = "VIVARIUM_TEST_AS_USER"
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		return false
	}
	folder, err := os.MkdirTemp("", "vivarium-local-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	binary := filepath.Join(folder, "test")
	if err := errors.Join(os.Chmod(folder, 0o755), copyFile("/proc/self/exe", binary)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append([]string{inside + "=1", "PATH=/usr/bin:/bin", "HOME=/nonexistent"}, settings...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &who}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as user %d: %v\n%s", who.Uid, err, out)
	}
	return true
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	return errors.Join(err, os.WriteFile(to, content, 0o755))
}

// view returns what a process sees of itself and the machine.
const view = `
import ctypes, json, os, socket
status = dict(line.rstrip().split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line.rstrip())
libc = ctypes.CDLL(None, use_errno=True)
def writable(path):
    try:
        open(path + "/probe", "w").close()
        os.unlink(path + "/probe")
        return True
    except OSError:
        return False
def removed(path):
    try:
        os.symlink("/tmp", path) if path.endswith("new") else os.unlink(path)
        return True
    except OSError:
        return False
def reachable():
    try:
        socket.create_connection(("192.0.2.1", 80), 1)
        return True
    except OSError as error:
        return error.strerror
with socket.socket() as own:
    own.bind(("127.0.0.1", 0)); own.listen()
    socket.create_connection(own.getsockname()).close()
print(json.dumps({
    "pid": os.getpid(), "user": [os.getuid(), os.getgid(), *os.getgroups()], "host": socket.gethostname(), "folder": os.getcwd(),
    "root": sorted(os.listdir("/")), "etc": sorted(os.listdir("/etc")), "devices": sorted(os.listdir("/dev")),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:3], "processes": [p for p in os.listdir("/proc") if p.isdigit()],
    "caps": sorted({status[c] for c in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}), "nnp": status["NoNewPrivs"], "filter": status["Seccomp"],
    "writable": [p for p in ("/", "/usr", "/etc", "/dev", "/proc/sys", "/sys", "/workspace", "/tmp", "/dev/shm", "/dev/mqueue") if writable(p)],
    "names": sorted(p for p in ("/mnt/data", "/home/user", "/content", "/output", "/app/output", "/data") if os.path.samefile(p, "/workspace") and writable(p)),
    "replaced": [p for p in ("/mnt/data", "/data", "/app/new", "/mnt/data/../new") if removed(p)], "address": socket.gethostbyname(socket.gethostname()),
    "network": reachable(), "mount": libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), "errno": ctypes.get_errno(),
}))
`

type viewed struct {
	PID                                           int
	User, FDs                                     []int
	Host, Folder, NNP, Filter, Address            string
	Names, Replaced                               []string
	Root, Etc, Devices, Caps, Writable, Processes []string
	Network                                       any
	Mount, Errno                                  int
}

// A sandbox has a root with nothing of the host except its programs, no other process, no
// capability and no network. That is the same for servers of root and of other users.
func TestWalls(t *testing.T) {
	_ = asNobody(t)
	var got viewed
	text := run(t, newBackend(t, view))
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err, text)
	}
	const refused = int(syscall.EPERM)
	if got.PID != 1 || got.Host != "sandbox" || got.Folder != "/workspace" || !slices.Equal(got.Processes, []string{"1"}) {
		t.Errorf("it is process %d of %v on %s in %s", got.PID, got.Processes, got.Host, got.Folder)
	}
	if len(got.User) < 2 || got.User[0] != hardening.User || got.User[1] != hardening.User || slices.Contains(got.User, 0) {
		t.Errorf("it is %v", got.User)
	}
	if !slices.Equal(got.Caps, []string{"0000000000000000"}) || got.NNP != "1" || got.Filter != "2" || got.Mount != -1 || got.Errno != refused {
		t.Errorf("it has capabilities %v, no_new_privs %s, filter %s; mount gives %d, %d", got.Caps, got.NNP, got.Filter, got.Mount, got.Errno)
	}
	if want := []string{"/workspace", "/tmp", "/dev/shm"}; !slices.Equal(got.Writable, want) {
		t.Errorf("it can write %v", got.Writable)
	}
	if got.Network != "Network is unreachable" {
		t.Errorf("the network: %v", got.Network)
	}
	if want := hardening.WorkspaceNames(); !slices.Equal(got.Names, slices.Sorted(slices.Values(want))) || len(got.Replaced) > 0 {
		t.Errorf("the workspace is also at %v, not at %v; it can replace %v", got.Names, want, got.Replaced)
	}
	if got.Address != "127.0.0.1" {
		t.Errorf("its own name leads to %q", got.Address)
	}
	allowed := []string{"app", "bin", "content", "data", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "mnt", "opt", "output", "proc", "sbin", "sys", "tmp", "usr", "workspace"}
	if foreign := except(got.Root, allowed); len(foreign) > 0 {
		t.Errorf("the root has %v", foreign)
	}
	harmless := []string{"group", "hosts", "nsswitch.conf", "passwd"}
	if secret := except(got.Etc, append(harmless, local.SystemFiles()...)); len(secret) > 0 {
		t.Errorf("/etc has %v", secret)
	}
	nodes := []string{"fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
	if !slices.Equal(got.Devices, nodes) {
		t.Errorf("/dev has %v", got.Devices)
	}
}

func except(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// echo is a supervisor that echoes its input, line by line.
const echo = "import sys\nprint('ready', flush=True)\nfor line in sys.stdin: print(line, end='', flush=True)\nprint('over', flush=True)"

// A sandbox ends with its stdin, and so with its server.
func TestStreams(t *testing.T) {
	_ = asNobody(t)
	i := start(t, newBackend(t, echo))
	in := bufio.NewReader(i)
	hear(t, in, "ready\n")
	if err := i.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(i, "one\n"); err != nil {
		t.Fatal(err)
	}
	hear(t, in, "one\n")
	if err := i.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Write([]byte("x")); err == nil {
		t.Error("it can be spoken to after its end")
	}
}

func hear(t *testing.T, in *bufio.Reader, want string) {
	t.Helper()
	if line, err := in.ReadString('\n'); line != want {
		t.Fatalf("it says %q, not %q: %v", line, want, err)
	}
}

// What a supervisor writes to stderr is kept, up to a limit, and available when its
// stream has ended.
func TestDiagnostics(t *testing.T) {
	i := start(t, newBackend(t, "import sys; sys.exit('no' * 100_000)"))
	if _, err := io.Copy(io.Discard, i); err != nil {
		t.Fatal(err)
	}
	if text := i.Diagnostics(); !strings.HasPrefix(text, "nono") || len(text) > 4096 {
		t.Errorf("it has said %d bytes: %.20q", len(text), text)
	}
}

// A supervisor that ignores the end of its stdin is killed.
func TestDestroyKills(t *testing.T) {
	i := start(t, newBackend(t, "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nprint('ready', flush=True)\nwhile True: time.sleep(9)"))
	hear(t, bufio.NewReader(i), "ready\n")
	if err := i.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStartHeedsItsContext(t *testing.T) {
	b := newBackend(t, echo)
	spec := specOf(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if i, err := b.Start(ctx, spec); err == nil {
		_ = i.Destroy(context.Background())
		t.Error("no error")
	}
}

// startedWith returns what a sandbox of a backend starts with, if it says so.
func startedWith(t *testing.T, b *local.Backend, isolation execution.Isolation) string {
	t.Helper()
	spec := specOf(t, b)
	spec.Isolation = isolation
	i, err := b.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(i)
	if err := errors.Join(err, i.Destroy(t.Context())); err != nil {
		t.Fatal(err)
	}
	return string(said)
}

const sayWith = "import os; fd = os.environ.get('VIVARIUM_COMPILED'); print(open(int(fd)).read() if fd else [])"

// All sandboxes start the compiled supervisor, except the first one if nothing can be remembered.
func TestCompiled(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/proc/none")
	b := newBackend(t, sayWith)
	for n, isolation := range []execution.Isolation{execution.IsolationRun, execution.IsolationContainer, execution.IsolationContainer, execution.IsolationRun} {
		said := startedWith(t, b, isolation)
		if want := []string{"[]\n", "[]\n", "compiled\n\n", "compiled\n\n"}[n]; said != want {
			t.Errorf("%d, %s: it is started with %q", n, isolation, said)
		}
	}
}

func checksum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return string(sum[:])
}

// Later servers and commands of the same user do not compile the supervisor again.
func TestCompiledIsRemembered(t *testing.T) {
	place := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", place)
	if said := startedWith(t, newBackend(t, sayWith), execution.IsolationContainer); said != "compiled\n\n" {
		t.Errorf("the first sandbox is started with %q", said)
	}
	files, err := filepath.Glob(place + "/vivarium-compiled/*")
	if err != nil || len(files) != 1 {
		t.Fatalf("%q are remembered, %v", files, err)
	}
	for content, want := range map[string]string{
		checksum("remembered") + "remembered": "remembered\n",
		checksum("remembered") + "remember":   "compiled\n\n", // the machine has failed meanwhile
		"":                                    "compiled\n\n",
	} {
		if err := os.WriteFile(files[0], []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if said := startedWith(t, newBackend(t, sayWith), execution.IsolationContainer); said != want {
			t.Errorf("with %q a sandbox of the next server is started with %q", content, said)
		}
	}
	if err := os.Chmod(place+"/vivarium-compiled", 0o777); err != nil { // others could have written it
		t.Fatal(err)
	}
	if said := startedWith(t, newBackend(t, sayWith), execution.IsolationContainer); said != "[]\n" {
		t.Errorf("where others may write it is started with %q", said)
	}
}

// The error for an unusable interpreter names what to do.
func TestInterpreters(t *testing.T) {
	folder := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	facts := func(changes string) string {
		return fmt.Sprintf(`cat <<'END'
{"Version": [3, 12, 1], "Executable": "/usr/bin/python3", "Prefixes": ["/usr"], "Preload": [], "Ctypes": true%s}
END
`, changes)
	}
	for name, test := range map[string]struct {
		python string
		want   []string
	}{
		"none":                 {"/does/not/exist", []string{`LOCAL_PYTHON is "/does/not/exist"`, "path of a Python"}},
		"not in PATH":          {"python-unknown", []string{`LOCAL_PYTHON is "python-unknown"`}},
		"no Python":            {script("false", "exit 3"), []string{"not a Python that runs"}},
		"in /usr, and none":    {"/bin/ls", []string{"/bin/ls is not a Python"}},
		"something else":       {script("cat", "echo hello"), []string{"is not a Python"}},
		"too old":              {script("old", facts(`, "Version": [3, 8, 10]`)), []string{"Python 3.8.10", "3.9 or newer", "LOCAL_PYTHON"}},
		"without ctypes":       {script("minimal", facts(`, "Ctypes": false`)), []string{"ctypes", "python3-minimal"}},
		"in the root":          {script("root", facts(`, "Prefixes": ["/"]`)), []string{"is in /,", "virtual environment"}},
		"in all homes":         {script("homes", facts(`, "Prefixes": ["/home"]`)), []string{"is in /home,"}},
		"in one's home":        {script("home", facts(`, "Prefixes": ["`+home(t)+`"]`)), []string{"is in " + home(t)}},
		"in the sandbox's own": {script("own", facts(`, "Prefixes": ["/tmp/venv"]`)), []string{"is in /tmp/venv, and a sandbox has a /tmp of its own", "set LOCAL_PYTHON to another"}},
		"in another's home":    {script("other", facts(`, "Prefixes": ["/root"]`)), []string{"is in /root,"}},
		"above one's home":     {script("above", facts(`, "Prefixes": ["`+filepath.Dir(home(t))+`"]`)), []string{"is in " + filepath.Dir(home(t))}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newBackend(t, "", func(o *local.Options) { o.Python = test.python }).Resolve(t.Context(), "")
			checkUnavailable(t, err, test.want...)
		})
	}
}

func home(t *testing.T) string {
	t.Helper()
	folder, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

func checkUnavailable(t *testing.T, err error, want ...string) {
	t.Helper()
	var e *execution.Error
	if !errors.As(err, &e) || e.Code != execution.Unavailable {
		t.Fatalf("the error is %v", err)
	}
	for _, part := range want {
		if !strings.Contains(e.Message, part) {
			t.Errorf("%q is not in the message: %s", part, e.Message)
		}
	}
}

// A home is recognised under every path.
func TestHomesBehindLinks(t *testing.T) {
	folder, err := os.MkdirTemp("/var/tmp", "vivarium-") // the sandbox has a /tmp of its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	home := filepath.Join(folder, "home")
	if err := errors.Join(os.Mkdir(filepath.Join(folder, "real"), 0o755), os.Symlink("real", home)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	python := filepath.Join(folder, "python")
	text := fmt.Sprintf("#!/bin/sh\ncat <<'END'\n"+`{"Version": [3, 12, 1], "Executable": "/usr/bin/python3", "Prefixes": [%q], "Ctypes": true}`+"\nEND\n", filepath.Join(folder, "real"))
	if err := os.WriteFile(python, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = newBackend(t, "", func(o *local.Options) { o.Python = python }).Resolve(t.Context(), "")
	checkUnavailable(t, err, "is in "+filepath.Join(folder, "real"), "a user's home")
}

// A script that starts an interpreter may come to start another, when the first is gone.
func TestInterpreterGoes(t *testing.T) {
	folder, err := os.MkdirTemp("/var/tmp", "vivarium-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	script, first, second := filepath.Join(folder, "python"), filepath.Join(folder, "1", "bin"), filepath.Join(folder, "2", "bin")
	for _, bin := range []string{first, second} {
		if err := errors.Join(os.MkdirAll(bin, 0o755), os.Symlink(systemPython, filepath.Join(bin, "python"))); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(`#!/bin/sh
for bin in %s %s; do test -e $bin && break; done
echo '{"Version": [3, 12, 1], "Executable": "'$bin'/python", "Prefixes": ["'$bin'"], "Ctypes": true}'
`, first, second)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, "", func(o *local.Options) { o.Python = script })
	resolve := func() string {
		digest, err := b.Resolve(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	before := resolve()
	if again := resolve(); again != before {
		t.Errorf("the digest is %s, then %s", before, again)
	}
	if err := os.RemoveAll(filepath.Dir(first)); err != nil {
		t.Fatal(err)
	}
	if after := resolve(); after == before {
		t.Errorf("it is %s still", after)
	}
}

// A root file system that lacks what it takes is refused.
func TestRootFileSystems(t *testing.T) {
	folder := t.TempDir()
	backend := func() *local.Backend {
		return newBackend(t, "", func(o *local.Options) { o.Rootfs, o.Python = folder, "" })
	}
	_, err := backend().Resolve(t.Context(), "")
	checkUnavailable(t, err, "LOCAL_ROOTFS", folder, "no folder usr")
	_, err = newBackend(t, "", func(o *local.Options) { o.Rootfs = "/proc/self/root/" }).Resolve(t.Context(), "")
	checkUnavailable(t, err, "LOCAL_ROOTFS", "/proc/self/root", "this machine's own root")
	if err := os.MkdirAll(filepath.Join(folder, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = backend().Resolve(t.Context(), "")
	checkUnavailable(t, err, "LOCAL_ROOTFS", "no Python", "LOCAL_PYTHON")
}

// An interpreter that is replaced has another digest.
func TestDigests(t *testing.T) {
	b := newBackend(t, "")
	first, err := b.Resolve(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Resolve(t.Context(), "whatever is asked for")
	if err != nil || again != first {
		t.Errorf("the digest is %s, then %s (%v)", first, again, err)
	}
	if _, err := b.Start(t.Context(), execution.Spec{Image: "local:other"}); err == nil {
		t.Error("an unknown digest is started")
	}
}
