package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// interruptTime is what a cell gets to react to the interrupt at its timeout, and
	// its processes to die when it does not.
	interruptTime = 4 * time.Second
	// callOffTime is how long a call that was called off may take to end.
	callOffTime = interruptTime + graceTime
	// untilTime bounds the sending of a session's end, which a frozen sandbox need not
	// read.
	untilTime = 1 * time.Second
	// callBackTime bounds the sending of one frame to a sandbox that does not answer.
	callBackTime = 100 * time.Millisecond
)

// Sessions starts sessions on a backend, and finds them there again.
type Sessions struct {
	backend execution.SessionBackend
	log     *slog.Logger
}

// NewSessions returns the Sessions of a backend.
func NewSessions(backend execution.SessionBackend, log *slog.Logger) *Sessions {
	return &Sessions{backend: backend, log: log}
}

// Start starts a session and waits until it takes calls.
func (s *Sessions) Start(ctx context.Context, spec execution.Spec) (execution.Session, error) {
	instance, err := s.backend.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	conn := s.connect(instance)
	go conn.stream.read(atOnce)
	if _, err := conn.stream.begin(ctx); err != nil {
		return nil, err
	}
	conn.stream.unasked.Store(true)
	return conn, nil
}

// Attach connects to a session that runs, and waits until it takes calls. A call
// that another server has under way there ends.
func (s *Sessions) Attach(ctx context.Context, id string) (execution.Session, error) {
	instance, err := s.backend.Attach(ctx, id)
	if err != nil {
		return nil, err
	}
	conn := s.connect(instance)
	if err := conn.sync(ctx); err != nil {
		conn.Detach()
		return nil, fmt.Errorf("the session does not answer: %w", err)
	}
	conn.stream.unasked.Store(true)
	return conn, nil
}

func (s *Sessions) connect(instance execution.Instance) *sessionConn {
	stream := newStream(instance, s.log)
	stream.lasting = true
	return &sessionConn{stream: stream}
}

// Find returns a session that runs.
func (s *Sessions) Find(ctx context.Context, id string) (execution.SessionInfo, error) {
	return s.backend.Find(ctx, id)
}

// Owned lists the running sessions of an owner.
func (s *Sessions) Owned(ctx context.Context, owner execution.Owner) ([]execution.SessionInfo, error) {
	return s.backend.Owned(ctx, owner)
}

// Count counts the sessions that run.
func (s *Sessions) Count(ctx context.Context, owner execution.Owner, except []string) (own, all int, err error) {
	return s.backend.Count(ctx, owner, except)
}

// Announce records when a session ends.
func (s *Sessions) Announce(ctx context.Context, session execution.SessionInfo) error {
	return s.backend.Announce(ctx, session)
}

// End ends a session.
func (s *Sessions) End(ctx context.Context, id string) error { return s.backend.End(ctx, id) }

// sessionConn is a connection to a session's supervisor. It implements
// [execution.Session].
type sessionConn struct {
	stream *stream
	broken atomic.Bool
}

// Usable reports whether calls can still be made over this connection. A frame that
// arrives between calls means that they cannot: another server has the session now.
func (c *sessionConn) Usable() bool {
	select {
	case <-c.stream.done:
		return false
	default:
		return !c.broken.Load() && len(c.stream.frames) == 0
	}
}

// Done is closed when the connection has ended. One to a session that does not
// answer ends with the call that notices.
func (c *sessionConn) Done() <-chan struct{} { return c.stream.ended }

// Detach closes the connection.
func (c *sessionConn) Detach() {
	c.broken.Store(true)
	c.stream.stopReading()
	c.stream.instance.Detach()
}

// RunPython runs a program in the session's interpreter.
func (c *sessionConn) RunPython(ctx context.Context, req execution.Request, limits execution.Limits) (*execution.Result, error) {
	return c.call(ctx, pythonTask(req, limits))
}

// RunBash runs a command in a shell of its own.
func (c *sessionConn) RunBash(ctx context.Context, cmd execution.Command, limits execution.Limits) (*execution.Result, error) {
	return c.call(ctx, bashTask(cmd, limits))
}

// SetEnd sends the supervisor the time at which the session ends. A connection on which that fails
// may have half a frame on it, and is closed.
func (c *sessionConn) SetEnd(ctx context.Context, end time.Time) error {
	if !c.Usable() {
		return errOver
	}
	err := (&sender{stream: c.stream, left: untilTime}).write(ctx, func(out frameWriter) error {
		_ = out.frame(kindUntil, fmt.Appendf(nil, "expires_ms=%d\n", end.UnixMilli()))
		return out.w.Flush()
	})
	if err != nil {
		c.Detach()
	}
	return err
}

func (c *sessionConn) call(ctx context.Context, t task) (*execution.Result, error) {
	call := &sessionCall{dispatch: c.stream.newDispatch(&t), conn: c}
	defer call.end()
	c.stream.pulse.set(busy) // the session also waits for a slow store as long as it receives pings
	result, err := call.make(ctx)
	c.stream.pulse.set(atRest)
	c.stream.unasked.Store(true)
	if !call.inOrder || !c.Usable() {
		c.Detach() // what may still arrive has no reader
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, errSilent): // another connection would wait for the same sandbox
		return nil, &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again, or end it", Err: errSilent}
	}
	return result, err
}
