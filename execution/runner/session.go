package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// interruptTime is what a cell gets to heed the interrupt at its timeout, and
	// its processes to die when it does not.
	interruptTime = 4 * time.Second
	// callOffTime is how long a call that was called off may take to end.
	callOffTime = interruptTime + graceTime
	// callBackTime bounds the sending of one frame to a sandbox that does not answer.
	callBackTime = 100 * time.Millisecond
)

// Sessions starts sessions on a backend, and finds them there again.
type Sessions struct {
	backend execution.SessionBackend
	log     *slog.Logger
}

// NewSessions makes a Sessions.
func NewSessions(backend execution.SessionBackend, log *slog.Logger) *Sessions {
	return &Sessions{backend: backend, log: log}
}

// Start starts a session and waits until it takes calls.
func (s *Sessions) Start(ctx context.Context, spec execution.Spec) (execution.Session, error) {
	instance, err := s.backend.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	sandbox := newSandbox(instance)
	sandbox.log, sandbox.lasting = s.log, true
	go sandbox.read(atOnce)
	sandbox.pulse.set(starting)
	if err := sandbox.begin(ctx); err != nil {
		return nil, err
	}
	sandbox.unasked.Store(true)
	return &Session{sandbox: sandbox}, nil
}

// Attach connects to a session that runs, and waits until it takes calls. What
// another server has under way there ends.
func (s *Sessions) Attach(ctx context.Context, id string) (execution.Session, error) {
	instance, err := s.backend.Attach(ctx, id)
	if err != nil {
		return nil, err
	}
	sandbox := newSandbox(instance)
	sandbox.log, sandbox.lasting = s.log, true
	session := &Session{sandbox: sandbox}
	if err := session.sync(ctx); err != nil {
		session.Detach()
		return nil, fmt.Errorf("the session does not answer: %w", err)
	}
	sandbox.unasked.Store(true)
	return session, nil
}

// Sessions lists the sessions that run.
func (s *Sessions) Sessions(ctx context.Context) ([]execution.SessionInfo, error) {
	return s.backend.Sessions(ctx)
}

// End ends a session.
func (s *Sessions) End(ctx context.Context, id string) error { return s.backend.End(ctx, id) }

// Session is the server's side of a session's supervisor. It implements
// [execution.Session].
type Session struct {
	sandbox *Sandbox // the connection
	broken  atomic.Bool
}

// Usable says whether calls can still be made over this connection. What has
// come unasked says that they cannot: another server has the session now.
func (s *Session) Usable() bool {
	select {
	case <-s.sandbox.done:
		return false
	default:
		return !s.broken.Load() && len(s.sandbox.frames) == 0
	}
}

// Done is closed when the connection has ended. One to a session that does not
// answer ends with the call that finds that.
func (s *Session) Done() <-chan struct{} { return s.sandbox.ended }

// Detach gives the connection up.
func (s *Session) Detach() {
	s.broken.Store(true)
	s.sandbox.quitOnce.Do(func() { close(s.sandbox.quit) })
	s.sandbox.instance.Detach()
}

// Call makes a call.
func (s *Session) Call(
	ctx context.Context, operation execution.Operation, req execution.Request, limits execution.Limits,
) (*execution.Result, error) {
	if operation == execution.ReadFile { // any file that the workspace can hold
		limits.ResultFiles, limits.ResultFileBytes, limits.ResultBytes = 1, limits.WorkspaceBytes, limits.WorkspaceBytes
	}
	c := &exchange{session: s, operation: operation, req: req, limits: limits, began: time.Now()}
	s.sandbox.pulse.set(busy) // the session also waits for a slow store as long as it hears pings
	result, err := c.make(ctx)
	s.sandbox.pulse.set(atRest)
	s.sandbox.unasked.Store(true)
	if !c.sound || !s.Usable() {
		s.Detach() // nobody reads it any more
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, errSilent): // another connection would wait for the same sandbox
		return nil, &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again, or end it", Err: errSilent}
	}
	return result, err
}

// exchange is a call that is being made.
type exchange struct {
	session   *Session
	operation execution.Operation
	req       execution.Request
	limits    execution.Limits
	began     time.Time
	sound     bool // both sides know where they are
}

func (c *exchange) make(ctx context.Context) (*execution.Result, error) {
	if !c.session.Usable() {
		return nil, fmt.Errorf("%w: %w: another server has the session", execution.ErrNotStarted, errFrame)
	}
	head := fmt.Appendf(jobLimits(c.req, c.limits), "op=%d\n", c.operation)
	if err := c.session.sandbox.send(ctx, c.req, head); err != nil {
		return nil, c.takeBack(ctx, err)
	}
	lasting, cancel := c.outlive(ctx)
	defer cancel()
	timer := time.NewTimer(stageTime)
	defer timer.Stop()
	f, err := c.session.sandbox.next(lasting, timer.C)
	switch {
	case err != nil:
		return c.unheard(ctx, err)
	case f.kind == kindLost:
		return nil, fmt.Errorf("%w: the job did not arrive in order", execution.ErrNotStarted)
	case f.kind == kindFault:
		c.sound = true
		return nil, c.fault(parseFields(f.payload))
	case f.kind != kindStarted || len(f.payload) != 0:
		return c.unheard(ctx, fmt.Errorf("%w: frame %q before the start", errFrame, f.kind))
	}
	if c.req.Started != nil {
		c.req.Started()
	}
	timer.Reset(c.req.Timeout + interruptTime + graceTime)
	result := c.collect(lasting, timer)
	if result.StateLost && c.sound && ctx.Err() == nil {
		_ = c.session.sandbox.note(ctx, kindHeard, graceTime) // or it is told again
	}
	return result, nil
}

// unheard is what comes of a call that was sent whole and of whose start no word
// came. The supervisor may make it all the same: it says that a program starts, and
// starts it, whether or not anybody hears that. So only what may be done twice, or
// what was called back, may be tried again.
func (c *exchange) unheard(ctx context.Context, cause error) (*execution.Result, error) {
	if c.operation == execution.ReadFile || c.operation == execution.WriteFiles || errors.Is(cause, errSilent) && c.callBack() {
		return nil, fmt.Errorf("%w: %w", execution.ErrNotStarted, cause)
	}
	sandbox := c.session.sandbox
	sandbox.log.WarnContext(ctx, "the start of a call was not heard of", "error", cause, "diagnostics", shown(sandbox.diagnostics(), maxReason))
	r := newReport(ctx, c.req, c.limits)
	r.facts = facts{lost: true}
	r.failure = "the session ended, or the connection to it, before it said that the program starts; it may have run"
	return r.result(), nil
}

// callBack calls off a call that a silent supervisor has been sent whole. A
// supervisor that is frozen finds that before it begins the call. It reports
// whether that could be sent.
func (c *exchange) callBack() bool {
	s := c.session.sandbox
	s.writing <- struct{}{} // whoever writes to a silent sandbox gives up at once
	defer s.release()
	if err := s.instance.SetWriteDeadline(time.Now().Add(callBackTime)); err != nil {
		return false
	}
	_ = s.out.frame(kindCallOff, nil)
	return s.out.w.Flush() == nil
}

// takeBack tells the supervisor, where a file's source is at fault, that the job
// is not sent to its end.
func (c *exchange) takeBack(ctx context.Context, cause error) error {
	if errors.Is(cause, execution.ErrNotStarted) {
		return cause // the stream is
	}
	c.sound = c.session.sandbox.note(ctx, kindNever, stageTime) == nil
	return cause
}

// outlive gives a context that ends some time after the caller's has: until then
// the call, which is called off, is to end in good order.
func (c *exchange) outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	lasting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	called := make(chan struct{})
	forget := context.AfterFunc(ctx, func() {
		defer close(called)
		_ = c.session.sandbox.note(lasting, kindCallOff, graceTime) // a failure shows as the stream's end
		time.AfterFunc(callOffTime, func() { cancel(errLate) })
	})
	return lasting, func() {
		if !forget() {
			<-called // or it might call off the next call
		}
		cancel(nil)
	}
}

// collect takes in the report.
func (c *exchange) collect(ctx context.Context, timer *time.Timer) *execution.Result {
	sandbox := c.session.sandbox
	r := newReport(ctx, c.req, c.limits)
	r.sent = c.began
	err := (&collection{sandbox: sandbox, report: r, keep: c.req.Keep, timer: timer, left: collectTime}).collect(ctx)
	if err != nil {
		sandbox.log.WarnContext(ctx, "a call's report is not whole", "error", err, "diagnostics", shown(sandbox.diagnostics(), maxReason))
		c.fail(r, err)
	}
	c.sound = err == nil
	result := r.result()
	result.StateLost = r.facts.stateLost
	result.Stages = execution.Stages{
		Send: r.started.Sub(c.began), Run: r.facts.wall, Kill: r.facts.kill,
		Collect: max(0, time.Since(r.started)-r.facts.wall-r.facts.kill),
	}
	c.explain(result, r.facts.lostForMemory)
	return result
}

// fail notes that the report ends here.
func (c *exchange) fail(r *report, err error) {
	ended := r.ended
	r.fail(err)
	switch {
	case ended: // as of a run
	case errors.Is(err, errLate):
		r.failure = "the session did not report back in time"
	case errors.Is(err, errSilent):
		r.failure = "the session does not answer any more; it may be frozen, and the program may go on"
	default:
		r.failure = "the session ended, or the connection to it (out of memory, deleted, or the engine stopped)"
	}
}

// explain says what has become of the interpreter, and why where it is known.
func (c *exchange) explain(result *execution.Result, forMemory bool) {
	more := ""
	switch {
	case result.StateLost:
		more = "the session's interpreter was ended: its variables, imports and threads are lost, files are not"
		if forMemory && result.End.Reason != execution.MemoryLimit {
			more += " (" + stoppedForMemory + ")"
		}
	case result.TimedOut() && c.operation == execution.RunPython && c.sound:
		more = "it was interrupted, and the session's variables are kept"
	default:
		return
	}
	if result.End.Message != "" {
		more = result.End.Message + "; " + more
	}
	result.End.Message = more
}

// fault gives the error of a call that the supervisor refused, by its errno.
func (c *exchange) fault(values fields) error {
	number, _ := values.number("errno", 1<<16)
	message := shown(values["message"], maxReason)
	cause := fmt.Errorf("the session refused: %.300q", message)
	reading := c.operation == execution.ReadFile
	switch code := syscall.Errno(number); {
	case reading && (code == syscall.ENOENT || code == syscall.ENOTDIR):
		return &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf("File '%s' not found in the session", execution.Clip(c.req.Code))}
	case code == syscall.ENOSPC || code == syscall.EFBIG:
		return &execution.Error{Code: execution.TooLarge, Message: fmt.Sprintf(
			"it does not fit in the workspace of %d MB", c.limits.WorkspaceBytes>>20)}
	case code == syscall.EAGAIN || code == syscall.ENOMEM:
		return &execution.Error{Code: execution.Unavailable, Message: "the session has no room for another process; try again", Err: cause}
	case code == syscall.ELOOP:
		message = "a link, which is not followed"
	case !reading && len(c.req.Files) == 0:
		return cause
	}
	return &execution.Error{Code: execution.Invalid, Message: "the request is not valid", Fields: []execution.FieldError{
		c.pathFault(values, message),
	}}
}

// pathFault says which path is at fault.
func (c *exchange) pathFault(values fields, message string) execution.FieldError {
	fault := execution.FieldError{Path: []any{"path"}, Type: "value_error", Message: "cannot be used: " + message, Input: c.req.Code}
	if index, err := values.number("file", int64(len(c.req.Files))-1); err == nil && c.operation != execution.ReadFile {
		fault.Path, fault.Input = []any{"files", int(index), "path"}, c.req.Files[index].Path
	}
	return fault
}
