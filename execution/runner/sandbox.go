package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// How long the parts of a run may take that no program takes part in. They are
// generous, for a loaded machine: past them the sandbox counts as lost.
const (
	stageTime   = 30 * time.Second // to send the job
	faultTime   = 1 * time.Second  // for the supervisor's word on a job that it did not take
	graceTime   = 2 * time.Second  // past its timeout, for a run to be reported
	collectTime = 30 * time.Second // to send the files
	destroyTime = 30 * time.Second // to end the sandbox
	exitTime    = 2 * time.Second  // for the supervisor to leave by itself
	renewTime   = 5 * time.Second  // to clean up and fork again
)

const protocolVersion = 2

// Sandbox is the server's side of one supervisor. It implements
// [execution.Sandbox].
type Sandbox struct {
	instance execution.Instance
	log      *slog.Logger
	python   string
	preload  string        // what could not be imported ahead, and why
	many     bool          // it serves more than one run
	odd      atomic.Bool   // something happened after which it must serve no other run
	prepared prepared      // how it got ready for the next run
	frames   chan frame    // what the supervisor says; closed when the stream ends
	done     chan struct{} // closed when the stream has ended
	quit     chan struct{} // closed by Close: nobody listens any more
	quitOnce sync.Once
	unasked  atomic.Bool // of a session: no job is sent whole and unanswered, so that what comes is for another server
	readErr  error       // why the stream ended; valid once done is closed

	writeMu sync.Mutex // serialises whole groups of frames
	out     frameWriter
}

// Open waits until the supervisor of a started instance says that it is ready.
// When it fails, it destroys the instance.
func Open(ctx context.Context, instance execution.Instance) (*Sandbox, error) {
	s := newSandbox(instance)
	go s.read(atOnce)
	go s.ping(s.done)
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func newSandbox(instance execution.Instance) *Sandbox {
	return &Sandbox{
		instance: instance,
		log:      slog.New(slog.DiscardHandler),
		frames:   make(chan frame, 4),
		done:     make(chan struct{}),
		quit:     make(chan struct{}),
		out:      frameWriter{w: bufio.NewWriterSize(instance, chunkBytes)},
	}
}

// begin waits until the supervisor is ready. When it fails, it destroys the
// instance.
func (s *Sandbox) begin(ctx context.Context) error {
	err := s.handshake(ctx)
	if err == nil {
		return nil
	}
	closeErr := s.Close()
	if text := s.instance.Diagnostics(); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return errors.Join(fmt.Errorf("the supervisor did not start: %w", err), closeErr)
}

// Reusable says whether the sandbox may serve another run.
func (s *Sandbox) Reusable() bool { return s.many && !s.odd.Load() }

// errOdd says that a sandbox is given up.
var errOdd = errors.New("the sandbox must not be used again")

// Renew waits until the supervisor has cleaned up after a run and is ready for
// another.
func (s *Sandbox) Renew(ctx context.Context) error {
	if !s.Reusable() {
		return errOdd
	}
	timer := time.NewTimer(renewTime)
	defer timer.Stop()
	f, err := s.next(ctx, timer.C)
	if err == nil && f.kind != kindReady {
		err = fmt.Errorf("%w: frame %q instead of ready", errFrame, f.kind)
	}
	if err == nil {
		err = s.prepared.parse(f.payload)
	}
	if err != nil {
		s.odd.Store(true)
		if text := s.instance.Diagnostics(); text != "" {
			err = fmt.Errorf("%w: %s", err, printable(text))
		}
	}
	return err
}

// Python is the version of the sandbox's Python, as "3.13.5".
func (s *Sandbox) Python() string { return s.python }

// Done is closed when the sandbox has ended.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// Close ends the sandbox and returns when it is gone.
func (s *Sandbox) Close() error {
	s.quitOnce.Do(func() { close(s.quit) })
	ctx, cancel := context.WithTimeout(context.Background(), destroyTime)
	defer cancel()
	err := s.instance.Destroy(ctx)
	<-s.done
	return err
}

// read passes on what the supervisor says until the stream ends. In an idle
// sandbox that is nothing: a frame out of turn waits in the channel and spoils
// the next run, before that starts. Where the frames begin says begin.
func (s *Sandbox) read(begin func(*bufio.Reader) error) {
	defer close(s.done)
	defer close(s.frames)
	in := bufio.NewReaderSize(s.instance, 16<<10)
	if s.readErr = begin(in); s.readErr != nil {
		return
	}
	for {
		f, err := readFrame(in)
		if err != nil {
			s.readErr = err
			return
		}
		if s.unasked.Load() {
			s.instance.Detach() // the engine waits for each connection to read, and who has the session with it
			s.readErr = errTaken
			return
		}
		select {
		case s.frames <- f:
		case <-s.quit:
			_, s.readErr = io.Copy(io.Discard, in) // its end shows that the sandbox's has come
			return
		}
	}
}

// errTaken says that another server has the session now.
var errTaken = errors.New("another server has the session")

// atOnce is where the frames of a new sandbox begin.
func atOnce(*bufio.Reader) error { return nil }

// ping keeps the supervisor from taking an idle or waiting server for a dead one,
// until a channel is closed.
func (s *Sandbox) ping(over <-chan struct{}) {
	ticker := time.NewTicker(Silence / 3)
	defer ticker.Stop()
	for {
		select {
		case <-over:
			return
		case <-ticker.C:
		}
		s.writeMu.Lock()
		_ = s.out.frame(kindPing, nil)
		_ = s.flush(Silence) // a failure shows as the stream's end
		s.writeMu.Unlock()
	}
}

// flush sends what was written, within a time. It needs writeMu.
func (s *Sandbox) flush(within time.Duration) error {
	if err := s.instance.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	return s.out.w.Flush()
}

func (s *Sandbox) handshake(ctx context.Context) error {
	f, err := s.next(ctx, nil)
	if err != nil {
		return err
	}
	values := parseFields(f.payload)
	if f.kind != kindReady {
		return fmt.Errorf("%w: first frame %q", errFrame, f.kind)
	}
	if version, err := values.number("protocol", 1<<20); err != nil || version != protocolVersion {
		return fmt.Errorf("%w: protocol %.20q, not %d", errFrame, values["protocol"], protocolVersion)
	}
	if s.python = values["python"]; len(s.python) > 20 {
		return fmt.Errorf("%w: Python %.40q", errFrame, s.python)
	}
	s.many = values["isolation"] == string(execution.IsolationRun)
	s.preload = printable(values["preload_failed"])
	return nil
}

// errLate says that a deadline of ours has passed.
var errLate = errors.New("time is up")

// next waits for a frame, for ctx or for a timer, whichever comes first. A nil
// timer never fires.
func (s *Sandbox) next(ctx context.Context, timer <-chan time.Time) (frame, error) {
	select {
	case f, ok := <-s.frames:
		if !ok {
			<-s.done
			return frame{}, fmt.Errorf("the sandbox ended: %w", s.readErr)
		}
		return f, nil
	case <-timer:
		return frame{}, errLate
	case <-ctx.Done():
		return frame{}, context.Cause(ctx)
	}
}
