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
	checkTime   = 1 * time.Second  // to answer one ping, while callers wait
)

// stream is the two-way stream of frames between this server and a supervisor.
type stream struct {
	instance execution.Instance
	log      *slog.Logger
	lasting  bool          // the sandbox is a session's, which goes on without this server
	pulse    *pulse        // whether the supervisor is alive
	frames   chan frame    // what it says; closed when the stream ends
	ended    chan struct{} // closed when the stream has ended
	done     chan struct{} // closed when the sandbox has ended or is silent
	doneOnce sync.Once
	silent   chan struct{} // closed when it is given up since it shows no sign of life
	quit     chan struct{} // closed when no frame is read any more
	quitOnce sync.Once
	unasked  atomic.Bool            // of a session: no job is sent whole and unanswered, so that what comes is for another server
	broken   atomic.Bool            // the supervisor broke the protocol
	readErr  error                  // why the stream ended; valid once ended is closed
	gone     atomic.Pointer[string] // why the supervisor ends, in its words; nil if it has not said so

	writing chan struct{} // holds one token: the goroutine that has it writes whole groups of frames
	out     frameWriter
}

func newStream(instance execution.Instance, log *slog.Logger) *stream {
	s := &stream{
		instance: instance,
		log:      log,
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

// rest returns what is expected of the sandbox while it has nothing to do.
func (s *stream) rest() mode {
	if s.lasting {
		return atRest
	}
	return idle
}

// Check waits until the sandbox, which must be idle, has answered a ping. One
// that does not within a second is silent from then on.
func (s *stream) Check(ctx context.Context) error {
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
func (s *stream) Silent() bool {
	select {
	case <-s.silent:
		return true
	default:
		return false
	}
}

// giveUp marks the sandbox as silent and ends what waits for it. It may be called
// more than once.
func (s *stream) giveUp() {
	s.pulse.stop()
	s.doneOnce.Do(func() {
		close(s.silent)
		close(s.done)
	})
	_ = s.instance.SetWriteDeadline(time.Now()) // after silent: see bound
}

// Done is closed when the sandbox has ended, or is silent.
func (s *stream) Done() <-chan struct{} { return s.done }

// distrust notes an error that means that the supervisor broke the protocol.
func (s *stream) distrust(err error) {
	if errors.Is(err, errFrame) {
		s.broken.Store(true)
	}
}

// stopReading has the reader drop what the supervisor still says.
func (s *stream) stopReading() { s.quitOnce.Do(func() { close(s.quit) }) }

// Close ends the sandbox and returns when it is gone.
func (s *stream) Close() error {
	s.stopReading()
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
func (s *stream) read(begin func(*bufio.Reader) error) {
	defer close(s.ended) // after done: Close waits for it
	defer s.doneOnce.Do(func() { close(s.done) })
	defer close(s.frames)
	defer s.pulse.stop()
	defer func() { s.distrust(s.readErr) }()
	in := bufio.NewReaderSize(living{s.instance, s.pulse}, 16<<10)
	if s.readErr = begin(in); s.readErr != nil {
		return
	}
	for {
		var f frame
		if f, s.readErr = s.receive(in); s.readErr != nil {
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

// receive reads the next frame that has a turn.
func (s *stream) receive(in *bufio.Reader) (frame, error) {
	for {
		f, err := readFrame(in)
		if err != nil {
			return f, err
		}
		if taken, err := s.takeSign(f); !taken || err != nil {
			return f, err
		}
	}
}

// takeSign takes in a frame that may come at any time. It reports false for any other.
func (s *stream) takeSign(f frame) (taken bool, err error) {
	switch {
	case f.kind == kindPing && len(f.payload) == 0:
		if !s.pulse.pong() {
			err = fmt.Errorf("%w: too many pongs", errFrame)
		}
	case f.kind == kindGone:
		said := string(f.payload[:min(len(f.payload), maxGone)])
		if !s.gone.CompareAndSwap(nil, &said) {
			err = fmt.Errorf("%w: a second end", errFrame)
		}
	default:
		return false, nil
	}
	return true, err
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
func (s *stream) ping() {
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
func (s *stream) hold(ctx context.Context) error {
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
func (s *stream) release() { <-s.writing }

// bound limits the time of the writes that follow. It fails where the sandbox is
// silent: the deadline that giveUp sets must stand.
func (s *stream) bound(within time.Duration) error {
	err := s.instance.SetWriteDeadline(time.Now().Add(within))
	if s.Silent() {
		return errSilent
	}
	return err
}

// errLate is the cause of a context whose deadline was ours.
var errLate = errors.New("time is up")

// next waits for a frame, until the sandbox is silent, ctx ends or a timer fires,
// whichever comes first. A nil timer never fires.
func (s *stream) next(ctx context.Context, timer <-chan time.Time) (frame, error) {
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
