package integration

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/launch"
	"github.com/vivarium-sandbox/vivarium/execution/link"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// openLinked is openLinkedImage with the image slim.
func openLinked(t *testing.T, isolation execution.Isolation) (*linkedBackend, *launch.Launcher, execution.Spec) {
	t.Helper()
	return openLinkedImage(t, slimImage, isolation)
}

// openLinkedImage returns a backend whose sandboxes are behind a link, what starts them, and a spec.
func openLinkedImage(t *testing.T, image string, isolation execution.Isolation) (*linkedBackend, *launch.Launcher, execution.Spec) {
	t.Helper()
	var backend *linkedBackend
	_, launcher := newLauncher(t, func(t *testing.T, command supervisor.Command) instanceBackend {
		t.Helper()
		backend = newLinkedBackend(t, command, image)
		return backend
	})
	digest, err := backend.Resolve(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	return backend, launcher, execution.Spec{Image: digest, Settings: conformanceSettings(isolation)}
}

// messy is a program that leaves as much as a program can, and does not end.
const messy = `
import os, socket, time
for folder in "/workspace", "/tmp", "/dev/shm":
    os.makedirs(folder + "/a/b/c")
    open(folder + "/left", "w").write("secret of the first run")
os.chmod("/workspace/a", 0)
listener = socket.create_server(("127.0.0.1", 5000))
client = socket.create_connection(("127.0.0.1", 5000))
listener.accept()[0].close()
client.close()
if os.fork() == 0:
    os.setsid()
time.sleep(60)
`

// remains is a program that lists what the one before has left.
const remains = `
import os, socket
for folder in "/workspace", "/tmp", "/dev/shm":
    print(folder, sorted(set(os.listdir(folder)) - {"__main__.py"}))
print([pid for pid in os.listdir("/proc") if pid.isdigit() and b"secret" in open(f"/proc/{pid}/cmdline", "rb").read()])
socket.socket().bind(("127.0.0.1", 5000))
print(len(open("/proc/net/tcp").readlines()))
`

// A sandbox whose program did not end by itself begins anew in place. Nothing is left then, and the
// key still answers for the sandbox.
func TestLocalLinkReset(t *testing.T) {
	backend, launcher, spec := openLinked(t, execution.IsolationRun)
	sandbox, err := launcher.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sandbox.Close(); err != nil {
			t.Error(err)
		}
	}()
	started := backend.count
	for round := range 3 {
		result, err := sandbox.Run(t.Context(), execution.Request{Code: messy, Timeout: time.Second}, conformanceLimits())
		if err != nil || result.End.Reason != execution.Timeout {
			t.Fatalf("round %d: %v, %+v", round, err, result)
		}
		if !sandbox.Resettable() {
			t.Fatalf("round %d: the sandbox cannot be reset", round)
		}
		if sandbox, err = sandbox.Reset(t.Context()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		result, err = sandbox.Run(t.Context(), execution.Request{Code: remains, Timeout: patience}, conformanceLimits())
		const nothing = "/workspace []\n/tmp []\n/dev/shm []\n[]\n1\n"
		if err != nil || result.Stdout != nothing || result.Stderr != "" {
			t.Fatalf("round %d: %v, %+v", round, err, result)
		}
		if err := sandbox.Renew(t.Context()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if backend.count != started {
		t.Errorf("%d sandboxes were started for the resets", backend.count-started)
	}
}

// A sandbox answers what arrives together with the end of the handshake. TLS has then taken it from the connection.
func TestLocalLinkAnswersAtOnce(t *testing.T) {
	backend, _, spec := openLinked(t, execution.IsolationRun)
	blank, err := backend.startBlank(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blank.Instance.Destroy(context.WithoutCancel(t.Context())) }()
	const later = 7
	for n := range 20 {
		conn, err := blank.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := (link.Boot{Generation: later, Texts: backend.boot(spec)}).Send(conn); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(conn) // it ends without a notice
		if !strings.Contains(string(answer), "generation 1 of the sandbox, not 7") {
			t.Fatalf("connection %d: %q", n, answer)
		}
		_ = conn.Close()
	}
}

// A server that goes away leaves no sandbox for runs behind.
func TestLocalLinkEndsWithoutAServer(t *testing.T) {
	backend, _, spec := openLinked(t, execution.IsolationRun)
	instance, err := backend.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = instance.Destroy(t.Context()) }()
	instance.Detach()
	awaitEnd(t, instance)
}

// A blank prepares what servers are going to send: it compiles the modules, and makes the zygotes. If a server sends
// something else, none of these are left.
func TestLocalLinkPreparesAhead(t *testing.T) {
	for name, test := range map[string]struct {
		image     string
		expected  string // modules
		isolation execution.Isolation
		preload   string
		kept      bool
	}{
		"what was expected":       {slimImage, "", execution.IsolationRun, "", true},
		"other modules":           {slimImage, "", execution.IsolationRun, "json", false},
		"a session":               {slimImage, "", execution.IsolationSession, "", false},
		"the image's modules":     {dataImage, "auto", execution.IsolationRun, "auto", true},
		"a session of that image": {dataImage, "auto", execution.IsolationSession, "auto", false},
	} {
		t.Run(name, func(t *testing.T) {
			backend, launcher, spec := openLinkedImage(t, test.image, execution.IsolationRun)
			spec.Preload = test.expected
			i := startExpecting(t, backend, spec)
			compiled := make(chan string, 1)
			go func() {
				said, _ := io.ReadAll(i.Instance) // nothing else is said there
				compiled <- string(said)
			}()
			count := 1
			if test.expected != "" {
				count = 2
			}
			zygotes := i.awaitZygotes(t, count)
			spec.Isolation, spec.Preload = test.isolation, test.preload
			spec.Session = execution.SessionInfo{ID: "session", Created: time.Now(), Expires: time.Now().Add(time.Hour)}
			i.spec, backend.next = spec, i
			run := start42(t, backend, launcher, spec)
			if result, err := run(); err != nil || result.Stdout != "42\n" {
				t.Fatalf("%v, %+v", err, result)
			}
			for _, zygote := range zygotes {
				if _, err := os.Stat(fmt.Sprintf("/proc/%d", zygote)); (err == nil) != test.kept {
					t.Errorf("zygote %d: %v", zygote, err)
				}
			}
			if err := i.Instance.Destroy(t.Context()); err != nil {
				t.Error(err)
			}
			if n := len(<-compiled); test.kept && n != 1 {
				t.Errorf("the modules were compiled %d times", n)
			}
		})
	}
}

// start42 starts a sandbox, or a session, and returns what has it calculate.
func start42(t *testing.T, backend *linkedBackend, launcher *launch.Launcher, spec execution.Spec) func() (*execution.Result, error) {
	t.Helper()
	asked := execution.Request{Code: "print(6*7)", Timeout: patience}
	if spec.Isolation == execution.IsolationSession {
		s, err := runner.NewSessions(backend, slog.New(slog.DiscardHandler)).Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		return func() (*execution.Result, error) { return s.RunPython(t.Context(), asked, conformanceLimits()) }
	}
	s, err := launcher.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return func() (*execution.Result, error) { return s.Run(t.Context(), asked, conformanceLimits()) }
}

// startExpecting starts a blank that expects a spec.
func startExpecting(t *testing.T, backend *linkedBackend, spec execution.Spec) *linkedInstance {
	t.Helper()
	backend.boot = func(spec execution.Spec) []string {
		texts := backend.command.Boot(spec)
		texts[0] += "\n__import__('os').write(1, b'x')\n"
		return texts
	}
	folder := t.TempDir()
	if err := link.WriteFolder(folder, "sandbox", backend.bootOf(spec)); err != nil {
		t.Fatal(err)
	}
	ahead, err := os.ReadFile(filepath.Join(folder, "0.ahead"))
	if err != nil {
		t.Fatal(err)
	}
	backend.before = fmt.Sprintf(`os.mkdir("/tmp/ahead")
sys.argv[0] = "/tmp/ahead/link.py"
with open(0, "rb", closefd=False) as stdin, open("/tmp/ahead/0.ahead", "wb") as file: file.write(stdin.read(%d))
`, len(ahead))
	i, err := backend.startBlank(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Instance.Destroy(context.WithoutCancel(t.Context())) })
	if _, err := i.Instance.Write(ahead); err != nil {
		t.Fatal(err)
	}
	return i
}

// awaitZygotes waits until so many zygotes wait for the word to prepare a program, and returns them.
func (i *linkedInstance) awaitZygotes(t *testing.T, count int) (zygotes []int) {
	t.Helper()
	if !poll(func() bool {
		zygotes = slices.DeleteFunc(descendants(i.pid), func(pid int) bool { return !inNamespace(pid) || !receives(pid) })
		return len(zygotes) == count
	}) {
		t.Fatalf("there are %d zygotes", len(zygotes))
	}
	for _, zygote := range zygotes {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", zygote))
		if err != nil || len(files) == 0 {
			t.Errorf("%d files, %v", len(files), err)
		}
		for _, file := range files {
			if leads, err := os.Readlink(file); err != nil || strings.Contains(leads, "memfd:data") || strings.Contains(leads, "memfd:compiled") {
				t.Errorf("a zygote has %s open (%v)", leads, err)
			}
		}
	}
	return zygotes
}

// inNamespace reports whether a process is in a pid namespace below that of a sandbox.
func inNamespace(pid int) bool {
	const ours, sandboxes, below = 1, 1, 1
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, numbers, _ := strings.Cut(string(status), "\nNSpid:")
	line, _, _ := strings.Cut(numbers, "\n")
	return len(strings.Fields(line)) == ours+sandboxes+below
}

// receives reports whether a process waits for a message.
func receives(pid int) bool {
	call, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
	return strings.HasPrefix(string(call), fmt.Sprint(unix.SYS_RECVFROM, " "))
}

// children returns the children of a process.
func children(pid int) (all []int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for field := range strings.FieldsSeq(string(text)) {
		child, _ := strconv.Atoi(field)
		all = append(all, child)
	}
	return all
}

// tardy is a connection that is not read any further, once it is held, until PID 1 has closed it. Meanwhile it sends pings
// that nobody reads.
type tardy struct {
	net.Conn
	instance *linkedInstance
	held     atomic.Bool
}

func (c *tardy) Read(p []byte) (int, error) {
	if c.held.Swap(false) {
		poll(func() bool {
			_, _ = c.Write([]byte("P\x00\x00\x00\x00"))
			return !c.instance.isConnected()
		})
	}
	return c.Conn.Read(p)
}

// isConnected reports whether PID 1 has a connection that it has not closed (proc_net_tcp: state 1).
func (i *linkedInstance) isConnected() bool {
	there := false
	_ = i.call(func(string) error {
		for _, file := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				fields := strings.Fields(line)
				there = there || strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", link.Port)) && fields[3] == "01"
			}
		}
		return nil
	})
	return there
}

// What a sandbox sends at its end arrives, also where it has not read everything that the server has sent.
func TestLocalLinkClosesInOrder(t *testing.T) {
	backend, _, spec := openLinked(t, execution.IsolationContainer)
	i, err := backend.startBlank(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := i.conn.(*link.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4096); err != nil { // the rest waits in the sandbox
		t.Fatal(err)
	}
	conn := &tardy{Conn: i.conn, instance: i}
	i.conn = conn
	sandbox, err := runner.Open(t.Context(), i, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sandbox.Close() }()
	conn.held.Store(true)
	const most = 90_000 // more than the kernel accepts for a reader that does not read
	result, err := sandbox.Run(t.Context(), execution.Request{Code: fmt.Sprintf("print('a' * %d)", most-1), Timeout: patience}, conformanceLimits())
	if err != nil || len(result.Stdout) != most {
		t.Errorf("%d bytes, %v", len(result.Stdout), err)
	}
}

// awaitEnd waits for the end of PID 1 of a sandbox, with which the streams of the blank end.
func awaitEnd(t *testing.T, instance execution.Instance) {
	t.Helper()
	if _, err := io.Copy(io.Discard, instance.(*linkedInstance).Instance); err != nil {
		t.Fatal(err)
	}
}

// A sandbox ends when a server says so: one for runs when its stream has ended, a session also while a server is
// connected.
func TestLocalLinkEnds(t *testing.T) {
	for _, isolation := range []execution.Isolation{execution.IsolationRun, execution.IsolationSession} {
		backend, _, spec := openLinked(t, isolation)
		spec.Session = execution.SessionInfo{ID: "session", Created: time.Now(), Expires: time.Now().Add(time.Hour)}
		instance, err := backend.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = instance.Destroy(context.WithoutCancel(t.Context())) }()
		if isolation == execution.IsolationRun {
			instance.Detach()
		}
		if err := instance.(*linkedInstance).end(t.Context()); err != nil {
			t.Error(err)
		}
		awaitEnd(t, instance)
	}
}

// Servers come and go at a session. Each finds what the ones before have left in it.
func TestLocalLinkSession(t *testing.T) {
	backend, _, spec := openLinked(t, execution.IsolationSession)
	spec.Session = execution.SessionInfo{ID: "session", Created: time.Now(), Expires: time.Now().Add(time.Hour)}
	servers := runner.NewSessions(backend, slog.New(slog.DiscardHandler))
	first, err := servers.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = backend.last.Destroy(context.WithoutCancel(t.Context())) }()
	checkCell(t, first, "n = 1; print(n)", "1\n")
	second, err := servers.Attach(t.Context(), "session") // while the first is connected
	if err != nil {
		t.Fatal(err)
	}
	checkCell(t, second, "n += 1; print(n)", "2\n")
	select {
	case <-first.Done():
	case <-time.After(patience):
		t.Error("the first server does not notice that another has the session")
	}
	for n := range 20 {
		if n%2 == 0 {
			second.Detach()
		}
		next, err := servers.Attach(t.Context(), "session")
		if err != nil {
			t.Fatal(err)
		}
		checkCell(t, next, "n += 1; print(n, '.' * 50_000)", fmt.Sprint(n+3, " ", strings.Repeat(".", 50_000), "\n"))
		second = next
	}
	second.Detach()
}

func checkCell(t *testing.T, s execution.Session, code, want string) {
	t.Helper()
	result, err := s.RunPython(t.Context(), execution.Request{Code: code, Timeout: patience}, conformanceLimits())
	if err != nil || result.Stdout != want {
		t.Fatalf("%s: %v, %.200q, not %.200q", code, err, result.Stdout, want)
	}
}

// No process that a program is a copy of, and no program, has the sandbox's key in its memory.
func TestLocalLinkKeepsTheKey(t *testing.T) {
	backend, _, spec := openLinked(t, execution.IsolationRun)
	instance, err := backend.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	sandbox, err := runner.Open(t.Context(), instance, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sandbox.Close() }()
	linked := instance.(*linkedInstance)
	text, secret := linked.key[100:150], secretOf(t, linked.key)
	if !holds(t, linked.pid, secret) {
		t.Error("PID 1 is not seen to have the key, so the search would not find it elsewhere either")
	}
	children := descendants(linked.pid)
	if len(children) == 0 {
		t.Error("PID 1 has no descendants")
	}
	for _, child := range children {
		if holds(t, child, secret) || holds(t, child, text) {
			t.Errorf("process %d has the key in its memory", child)
		}
	}
}

// secretOf returns the secret number of a key as OpenSSL has it in memory, the lowest byte first.
func secretOf(t *testing.T, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(secret)
	return secret
}

// holds reports whether a process has bytes in its memory.
func holds(t *testing.T, pid int, secret []byte) bool {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var access string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &access); n != 3 || access[0] != 'r' {
			continue
		}
		text := make([]byte, to-from)
		n, _ := memory.ReadAt(text, from) // not all that is mapped can be read
		if bytes.Contains(text[:n], secret) {
			return true
		}
	}
	return false
}

// descendants returns the processes below one.
func descendants(pid int) (all []int) {
	for _, child := range children(pid) {
		all = append(append(all, child), descendants(child)...)
	}
	return all
}
