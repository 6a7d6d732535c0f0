package runner_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	greeting = "protocol=3\npython=3.13.5\n"
	manyRuns = "protocol=3\npython=3.13.5\nisolation=run\npreloaded=\npreload_failed=\n"
	renewed  = "clean_us=1\nprepare_us=1\n"
	// fine is what a supervisor says of a program that did nothing.
	fine = "exit_code=0\nsignal=0\ntimed_out=0\nwall_us=1500\nkill_us=100\ncpu_us=1000\npeak_kb=9000\n" +
		"memory_kills=0\nrefused_processes=0\nfull=0\n"
)

// limits are small, so that tests can pass them.
var limits = execution.Limits{
	MaxTimeout: time.Minute, CPUTime: 5 * time.Second, OutputBytes: 64, WorkspaceBytes: 1 << 20,
	ResultFiles: 3, ResultFileBytes: 1000, ResultBytes: 2000,
}

// quiet is a log that keeps nothing.
var quiet = slog.New(slog.DiscardHandler)

var request = execution.Request{Code: "pass", Timeout: 2 * time.Second}

// frame is one frame of the protocol, written here a second time on purpose.
type frame struct {
	kind    byte
	payload string
}

func (f frame) bytes() []byte {
	data := binary.BigEndian.AppendUint32([]byte{f.kind}, uint32(len(f.payload)))
	return append(data, f.payload...)
}

func readFrame(r io.Reader) (frame, error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err
	}
	payload := make([]byte, binary.BigEndian.Uint32(header[1:]))
	_, err := io.ReadFull(r, payload)
	return frame{kind: header[0], payload: string(payload)}, err
}

// supervisor is the sandbox's end of the stream, played by hand.
type supervisor struct {
	conn  net.Conn
	heard chan frame // pings left out
	pings chan time.Time
	// talking holds one token: whoever has it sends.
	talking chan struct{}
	// frozen is closed when the supervisor neither reads nor answers any more.
	frozen chan struct{}
	freeze sync.Once
}

// stop freezes the supervisor, until its connection ends.
func (s *supervisor) stop() { s.freeze.Do(func() { close(s.frozen) }) }

func (s *supervisor) isFrozen() bool {
	select {
	case <-s.frozen:
		return true
	default:
		return false
	}
}

// listen keeps what it hears, to the end.
func (s *supervisor) listen() {
	defer close(s.heard)
	in := bufio.NewReader(s.conn)
	for {
		f, err := readFrame(in)
		if err != nil || s.isFrozen() {
			return
		}
		if f.kind == 'P' {
			s.pings <- time.Now()
			go s.pong() // ours does not wait for the server to read it either
		} else {
			s.heard <- f
		}
	}
}

// say sends one frame. That nobody listens any more is no fault of the test's.
func (s *supervisor) say(kind byte, payload string) { s.send(string(frame{kind, payload}.bytes())) }

// send sends bytes that need not be a frame.
func (s *supervisor) send(data string) {
	s.talking <- struct{}{}
	defer func() { <-s.talking }()
	_, _ = io.WriteString(s.conn, data)
}

// pong sends a pong, unless something else is being sent, which does as well.
func (s *supervisor) pong() {
	select {
	case s.talking <- struct{}{}:
		defer func() { <-s.talking }()
		_, _ = s.conn.Write(frame{'P', ""}.bytes())
	default:
	}
}

// job gives the frames of the job, up to and without "go".
func (s *supervisor) job() []frame {
	var frames []frame
	for f := range s.heard {
		if f.kind == 'G' {
			return frames
		}
		frames = append(frames, f)
	}
	return nil
}

// leave ends the sandbox from within.
func (s *supervisor) leave() { _ = s.conn.Close() }

// instance is the server's end, as a backend gives it.
type instance struct {
	net.Conn
	supervisor  *supervisor
	diagnostics string
	destroyErr  error
	destroyed   atomic.Int64
	killed      atomic.Int64
	scripts     sync.WaitGroup
}

func (i *instance) Diagnostics() string { return i.diagnostics }

func (i *instance) Detach() { _ = i.Close() }

func (i *instance) Destroy(context.Context) error {
	i.destroyed.Add(1)
	_ = i.Close()
	i.supervisor.leave()
	return i.destroyErr
}

func (i *instance) Kill(ctx context.Context) error {
	i.killed.Add(1)
	return i.Destroy(ctx)
}

// newInstance makes an instance whose supervisor follows a script.
func newInstance(t *testing.T, script func(s *supervisor)) *instance {
	t.Helper()
	return start(t, script, (*supervisor).listen)
}

// newDeafInstance makes one whose supervisor never reads.
func newDeafInstance(t *testing.T, script func(s *supervisor)) *instance {
	t.Helper()
	return start(t, script)
}

func start(t *testing.T, scripts ...func(s *supervisor)) *instance {
	t.Helper()
	server, sandbox := net.Pipe()
	s := &supervisor{
		conn: sandbox, heard: make(chan frame, 1000), pings: make(chan time.Time, 10_000), frozen: make(chan struct{}),
		talking: make(chan struct{}, 1),
	}
	i := &instance{Conn: deadlineErrors{server}, supervisor: s}
	for _, script := range scripts {
		i.scripts.Go(func() { script(s) })
	}
	t.Cleanup(func() {
		_ = i.Close()
		s.leave()
		i.scripts.Wait()
	})
	return i
}

// deadlineErrors refuses what the runner does not need: read deadlines.
type deadlineErrors struct{ net.Conn }

func (deadlineErrors) SetDeadline(time.Time) error     { return os.ErrInvalid }
func (deadlineErrors) SetReadDeadline(time.Time) error { return os.ErrInvalid }

// open opens the sandbox of an instance, which must succeed, and closes it in
// the end.
func open(t *testing.T, i *instance) *runner.Sandbox {
	t.Helper()
	s, err := runner.Open(t.Context(), i, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// ready makes a script of what follows once the supervisor has said that it is
// ready.
func ready(then func(s *supervisor)) func(s *supervisor) {
	return func(s *supervisor) {
		s.say('R', greeting)
		then(s)
	}
}

// started makes a script of what follows once the program has been let go.
func started(then func(s *supervisor)) func(s *supervisor) {
	return ready(func(s *supervisor) {
		s.job()
		s.say('A', "")
		then(s)
	})
}

// ended makes a script of what follows once the program has ended well.
func ended(then func(s *supervisor)) func(s *supervisor) {
	return started(func(s *supervisor) {
		s.say('O', "out")
		s.say('X', fine)
		then(s)
	})
}

// run runs the request in a sandbox of that script; it must give a result.
func run(t *testing.T, script func(s *supervisor)) *execution.Result {
	t.Helper()
	result, err := open(t, newInstance(t, script)).Run(t.Context(), request, limits)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return result
}

func exitCode(r *execution.Result) int {
	if r.ExitCode == nil {
		return -1
	}
	return *r.ExitCode
}
