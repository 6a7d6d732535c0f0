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
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// How long the parts of a run may take that no program takes part in. A sandbox
// that shows no sign of life is given up within 2 s (see pulse). These bound one
// that shows life and does not get on, as a machine that is loaded to the brim or
// a supervisor that is not ours any more. Past them the sandbox counts as lost.
const (
	stageTime   = 30 * time.Second // to take the job, and then to start the program
	faultTime   = 1 * time.Second  // to explain why a job was not taken
	graceTime   = 5 * time.Second  // past its timeout, for a run to be reported; killing may take 2 s
	collectTime = 30 * time.Second // to send the files
	destroyTime = 30 * time.Second // to end the sandbox
	renewTime   = 5 * time.Second  // to clean up and fork again
	checkTime   = 1 * time.Second  // to answer one ping, while callers wait
)

const protocolVersion = 3

// Sandbox is the server's side of one supervisor. It implements
// [execution.Sandbox].
type Sandbox struct {
	instance execution.Instance
	log      *slog.Logger
	python   string
	preload  string        // what could not be imported ahead, and why
	bare     bool          // modules were not imported ahead, as was asked
	many     bool          // it serves more than one run
	odd      atomic.Bool   // something happened after which it must serve no other run
	prepared prepared      // how it got ready for the next run
	pulse    *pulse        // whether it is alive
	lasting  bool          // it is a session's, which goes on without this server
	frames   chan frame    // what the supervisor says; closed when the stream ends
	ended    chan struct{} // closed when the stream has ended
	done     chan struct{} // closed when the sandbox has ended or is silent
	doneOnce sync.Once
	silent   chan struct{} // closed when it is given up since it shows no sign of life
	quit     chan struct{} // closed by Close: no frame is read any more
	quitOnce sync.Once
	unasked  atomic.Bool // of a session: no job is sent whole and unanswered, so that what comes is for another server
	readErr  error       // why the stream ended; valid once ended is closed

	writing chan struct{} // holds one token: the goroutine that has it writes whole groups of frames
	out     frameWriter
}

// Open waits until the supervisor of a started instance says that it is ready.
// When it fails, it destroys the instance. It logs what is odd about the sandbox.
func Open(ctx context.Context, instance execution.Instance, log *slog.Logger) (*Sandbox, error) {
	s := newSandbox(instance)
	s.log = log
	go s.read(atOnce)
	s.pulse.set(starting)
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func newSandbox(instance execution.Instance) *Sandbox {
	s := &Sandbox{
		instance: instance,
		log:      slog.New(slog.DiscardHandler),
		frames:   make(chan frame, 4),
		ended:    make(chan struct{}),
		done:     make(chan struct{}),
		silent:   make(chan struct{}),
		quit:     make(chan struct{}),
		writing:  make(chan struct{}, 1),
		out:      frameWriter{w: bufio.NewWriterSize(instance, chunkBytes)},
	}
	s.pulse = newPulse(s.ping, s.giveUp)
	return s
}

// begin waits until the supervisor is ready. When it fails, it destroys the
// instance.
func (s *Sandbox) begin(ctx context.Context) error {
	err := s.handshake(ctx)
	if err == nil {
		s.pulse.set(s.rest())
		return nil
	}
	closeErr := s.Close()
	if cause, text := diagnosis(s.instance.Diagnostics()); text != "" {
		err = execution.WithCause(cause, fmt.Errorf("%w: %s", err, text))
	}
	return errors.Join(fmt.Errorf("the supervisor did not start: %w", err), closeErr)
}

// Bare reports whether modules were not preloaded because of Spec.Bare.
func (s *Sandbox) Bare() bool { return s.bare }

// PreloadFault returns what could not be imported ahead, and why. Empty where all could.
func (s *Sandbox) PreloadFault() string { return s.preload }

// Reusable reports whether the sandbox may serve another run.
func (s *Sandbox) Reusable() bool { return s.many && !s.odd.Load() }

// errOdd is the error of a sandbox that is given up.
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
		if text := s.diagnostics(); text != "" {
			err = fmt.Errorf("%w: %s", err, shown(text, maxShownPath))
		}
		return err
	}
	s.pulse.set(s.rest())
	return nil
}

// rest returns what is expected of the sandbox while it has nothing to do.
func (s *Sandbox) rest() mode {
	if s.lasting {
		return atRest
	}
	return idle
}

// Check waits until the sandbox, which must be idle, has answered a ping. One
// that does not within a second is silent from then on.
func (s *Sandbox) Check(ctx context.Context) error {
	select {
	case <-s.pulse.answers: // an earlier answer
	default:
	}
	go s.ping() // which may block
	timer := time.NewTimer(checkTime)
	defer timer.Stop()
	select {
	case <-s.pulse.answers:
		return nil
	case <-s.done:
		return errOver
	case <-timer.C:
		s.giveUp()
		return errSilent
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errOver = errors.New("the sandbox has ended")

// Silent reports whether the sandbox was given up because it showed no sign of
// life.
func (s *Sandbox) Silent() bool {
	select {
	case <-s.silent:
		return true
	default:
		return false
	}
}

// giveUp marks the sandbox as silent and ends what waits for it. It may be called
// more than once.
func (s *Sandbox) giveUp() {
	s.odd.Store(true)
	s.pulse.stop()
	s.doneOnce.Do(func() {
		close(s.silent)
		close(s.done)
	})
	_ = s.instance.SetWriteDeadline(time.Now()) // after silent: see bound
}

// Python is the version of the sandbox's Python, as "3.13.5".
func (s *Sandbox) Python() string { return s.python }

// Done is closed when the sandbox has ended, or is silent.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// Close ends the sandbox and returns when it is gone.
func (s *Sandbox) Close() error {
	s.quitOnce.Do(func() { close(s.quit) })
	ctx, cancel := context.WithTimeout(context.Background(), destroyTime)
	defer cancel()
	end := s.instance.Destroy
	if s.Silent() { // it would not heed the request to leave
		end = s.instance.Kill
	}
	err := end(ctx)
	<-s.ended
	return err
}

// read passes on what the supervisor says until the stream ends. In an idle
// sandbox that is nothing: a frame out of turn waits in the channel and spoils
// the next run, before that starts. Where the frames begin says begin.
func (s *Sandbox) read(begin func(*bufio.Reader) error) {
	defer close(s.ended) // after done: Close waits for it
	defer s.doneOnce.Do(func() { close(s.done) })
	defer close(s.frames)
	defer s.pulse.stop()
	in := bufio.NewReaderSize(living{s.instance, s.pulse}, 16<<10)
	if s.readErr = begin(in); s.readErr != nil {
		return
	}
	for {
		f, err := readFrame(in)
		if err != nil {
			s.readErr = err
			return
		}
		if f.kind == kindPing && len(f.payload) == 0 {
			if s.pulse.pong() {
				continue
			}
			s.readErr = fmt.Errorf("%w: too many pongs", errFrame)
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

// errTaken is the error of a session that another server has attached to.
var errTaken = errors.New("another server has the session")

// atOnce is where the frames of a new sandbox begin.
func atOnce(*bufio.Reader) error { return nil }

// living is an instance whose every byte is a sign of life.
type living struct {
	execution.Instance
	pulse *pulse
}

func (l living) Read(p []byte) (int, error) {
	n, err := l.Instance.Read(p)
	if n > 0 {
		l.pulse.sign()
	}
	return n, err
}

// ping sends a ping, which the supervisor answers, and which keeps it from treating
// the server as dead. While a job is being written there is no need: what arrives
// of that does both.
func (s *Sandbox) ping() {
	select {
	case s.writing <- struct{}{}:
	default:
		return
	}
	defer s.release()
	if s.bound(supervisor.Silence) == nil {
		_ = s.out.frame(kindPing, nil)
		_ = s.out.w.Flush() // a failure shows as the stream's end
	}
}

// hold waits for the right to write.
func (s *Sandbox) hold(ctx context.Context) error {
	select {
	case s.writing <- struct{}{}:
		return nil
	case <-s.silent:
		return errSilent
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// release returns the right to write.
func (s *Sandbox) release() { <-s.writing }

// bound limits the time of the writes that follow. It fails where the sandbox is
// silent: the deadline that giveUp sets must stand.
func (s *Sandbox) bound(within time.Duration) error {
	err := s.instance.SetWriteDeadline(time.Now().Add(within))
	if s.Silent() {
		return errSilent
	}
	return err
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
	s.bare = values["bare"] == "1"
	s.preload = shown(values["preload_failed"], maxShownPath)
	return nil
}

// errLate is the cause of a context whose deadline was ours.
var errLate = errors.New("time is up")

// next waits for a frame, until the sandbox is silent, ctx ends or a timer fires,
// whichever comes first. A nil timer never fires.
func (s *Sandbox) next(ctx context.Context, timer <-chan time.Time) (frame, error) {
	s.pulse.wait()
	defer s.pulse.resume()
	select {
	case f, ok := <-s.frames:
		if !ok {
			<-s.ended
			return frame{}, fmt.Errorf("the sandbox ended: %w", s.readErr)
		}
		return f, nil
	case <-s.silent:
		return frame{}, errSilent
	case <-timer:
		return frame{}, errLate
	case <-ctx.Done():
		return frame{}, context.Cause(ctx)
	}
}
