package integration

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/link"
	"github.com/vivarium-sandbox/vivarium/execution/local"
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// The link does what every way to a supervisor must do, with either isolation.
func TestLocalLinkConformance(t *testing.T) {
	conformBare(t, func(t *testing.T, command supervisor.Command) instanceBackend {
		t.Helper()
		return newLinkedBackend(t, command, slimImage)
	})
}

// linkedBackend has the local backend make blank sandboxes, and reaches them over the link as the Kubernetes backend does.
type linkedBackend struct {
	*local.Backend
	command     supervisor.Command
	credentials *link.Credentials
	before      string                             // what PID 1 executes before its program
	boot        func(spec execution.Spec) []string // what PID 1 becomes

	starting sync.Mutex      // held while a blank starts
	mark     string          // on the command line of that
	count    int             // of those started
	next     *linkedInstance // a blank that the next start takes, if any
	last     *linkedInstance
}

func newLinkedBackend(t *testing.T, command supervisor.Command, image string) *linkedBackend {
	t.Helper()
	authority, err := link.NewCA("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := authority.Issue("test", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for name, text := range map[string][]byte{"tls.crt": certificate, "tls.key": key, "ca.crt": authority.Certificate} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := &linkedBackend{command: command, boot: command.Boot}
	if b.credentials, err = link.LoadCredentials(folder); err != nil {
		t.Fatal(err)
	}
	b.Backend, err = local.New(local.Options{
		Command: b, Environment: append(supervisor.Environment(), "VIVARIUM_LINK_CA="+string(authority.Certificate)),
		Workspace: supervisor.Workspace, Rootfs: rootfs(image), Folder: filepath.Join(t.TempDir(), "sessions"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// networkFD is a descriptor of PID 1 for the network in which it was started.
const networkFD = 20

// beforeLink is the beginning of PID 1's program. It does what an init container does: it writes the key, which comes
// from stdin. That is another process, so that PID 1 has read nothing of it. It also opens networkFD.
const beforeLink = `import os, sys
if len(sys.argv) == 3:  # the first generation
    if os.fork() == 0:
        with open("/workspace/.vivarium-link", "wb") as file: file.write(os.read(0, 4096))
        os._exit(0)
    os.wait()
    os.dup2(os.open("/proc/self/ns/net", os.O_RDONLY), 20)
    os.write(1, b"!")
`

// Line returns the command line of the next blank.
func (b *linkedBackend) Line(execution.Spec) []string {
	line := link.Line(link.Port)
	at := slices.Index(line, link.ProgramFile)
	return slices.Replace(line, at, at+1, "-c", "# "+b.mark+"\n"+beforeLink+b.before+link.Program())
}

// CompileLine, CompileDigest and CompiledLine: a blank has nothing that is compiled ahead.
func (b *linkedBackend) CompileLine(execution.Isolation) []string {
	return []string{"python3", "-I", "-c", "print('nothing')"}
}
func (b *linkedBackend) CompileDigest(execution.Isolation) string  { return "link" }
func (b *linkedBackend) CompiledLine(spec execution.Spec) []string { return b.Line(spec) }

// Start starts a blank, and has it become what the spec says.
func (b *linkedBackend) Start(ctx context.Context, spec execution.Spec) (execution.Instance, error) {
	i, err := b.next, error(nil)
	if i == nil {
		i, err = b.startBlank(ctx, spec)
	}
	if err != nil {
		return nil, err
	}
	if err := i.connect(ctx); err != nil {
		return nil, errors.Join(err, i.Instance.Destroy(context.WithoutCancel(ctx)))
	}
	return i, nil
}

// startBlank starts a sandbox with a key of its own.
func (b *linkedBackend) startBlank(ctx context.Context, spec execution.Spec) (*linkedInstance, error) {
	b.starting.Lock()
	defer b.starting.Unlock()
	folder, err := os.MkdirTemp("", "vivarium-key-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	file := filepath.Join(folder, "key")
	pin, err := link.WriteIdentity(file)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	i := &linkedInstance{backend: b, spec: spec, pin: pin, key: key}
	b.mark = "blank-" + rand.Text()
	b.count++
	spec.Isolation = execution.IsolationRun // which allows namespaces
	if i.Instance, err = b.Backend.Start(ctx, spec); err != nil {
		return nil, err
	}
	_, err = i.Instance.Write(key)
	if err == nil {
		_, err = i.Instance.Read(make([]byte, 1)) // when the key is written
	}
	if err == nil {
		i.pid, err = findPID1(b.mark)
	}
	if err != nil {
		return nil, errors.Join(err, i.Instance.Destroy(context.WithoutCancel(ctx)))
	}
	b.last = i
	return i, nil
}

// Attach connects once more to the sandbox that was started last.
func (b *linkedBackend) Attach(ctx context.Context, _ string) (execution.Instance, error) {
	i := *b.last
	conn, err := i.dial(ctx)
	i.conn = conn
	return &i, err
}

// linkedInstance is a sandbox behind a link.
type linkedInstance struct {
	execution.Instance
	backend    *linkedBackend
	spec       execution.Spec
	pin        string
	key        []byte
	pid        int // of PID 1, as this machine numbers it
	generation int
	conn       net.Conn
}

// connect has PID 1 begin its next generation.
func (i *linkedInstance) connect(ctx context.Context) error {
	conn, err := i.dial(ctx)
	if err != nil {
		return err
	}
	i.conn = conn
	i.generation++
	boot := i.backend.bootOf(i.spec)
	boot.Generation = i.generation
	return boot.Send(conn)
}

// bootOf returns what PID 1 becomes.
func (b *linkedBackend) bootOf(spec execution.Spec) link.Boot {
	return link.Boot{
		Generation: 1, Texts: b.boot(spec), OwnNetwork: true,
		Lasting: spec.Isolation == execution.IsolationSession, Zygotes: spec.Isolation == execution.IsolationRun,
	}
}

// dial connects to the sandbox.
func (i *linkedInstance) dial(ctx context.Context) (conn net.Conn, err error) {
	err = i.call(func(address string) (err error) {
		conn, err = i.backend.credentials.Dial(ctx, address, i.pin)
		for errors.Is(err, link.ErrRefused) && ctx.Err() == nil { // PID 1 does not listen yet
			runtime.Gosched()
			conn, err = i.backend.credentials.Dial(ctx, address, i.pin)
		}
		return err
	})
	return conn, err
}

// end has PID 1 exit.
func (i *linkedInstance) end(ctx context.Context) error {
	return i.call(func(address string) error { return i.backend.credentials.End(ctx, address, i.pin) })
}

// call calls a function in the network in which the sandbox was made, with the address of its PID 1 there.
func (i *linkedInstance) call(reach func(address string) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		network, err := os.Open(fmt.Sprintf("/proc/%d/fd/%d", i.pid, networkFD))
		if err == nil {
			err = unix.Setns(int(network.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = reach(net.JoinHostPort("127.0.0.1", strconv.Itoa(link.Port)))
		}
		done <- err
	}()
	return <-done
}

func (i *linkedInstance) Read(p []byte) (int, error)  { return i.conn.Read(p) }
func (i *linkedInstance) Write(p []byte) (int, error) { return i.conn.Write(p) }
func (i *linkedInstance) SetWriteDeadline(t time.Time) error {
	return i.conn.SetWriteDeadline(t)
}
func (i *linkedInstance) Detach() { _ = i.conn.Close() }

func (i *linkedInstance) Destroy(ctx context.Context) error {
	i.Detach()
	return i.Instance.Kill(ctx)
}

func (i *linkedInstance) Kill(ctx context.Context) error { return i.Destroy(ctx) }

// Reset has the sandbox begin anew.
func (i *linkedInstance) Reset(ctx context.Context) (execution.Instance, error) {
	i.Detach()
	again := *i
	return &again, again.connect(ctx)
}

// findPID1 returns the number of the process that is PID 1 of its namespace and has a mark on its command line.
func findPID1(mark string) (int, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, folder := range folders {
		line, err := os.ReadFile(filepath.Join(folder, "cmdline"))
		if err != nil || !strings.Contains(string(line), mark) {
			continue
		}
		status, err := os.ReadFile(filepath.Join(folder, "status"))
		if err == nil && numberInside(status) == "1" {
			return strconv.Atoi(filepath.Base(folder))
		}
	}
	return 0, errors.New("PID 1 of the sandbox is not there")
}

// numberInside returns the number of a process in its own namespace, from its status (proc_pid_status(5)).
func numberInside(status []byte) string {
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			return fields[len(fields)-1]
		}
	}
	return ""
}
