package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// sessionCall is a call of a session that is being made.
type sessionCall struct {
	*dispatch
	conn    *sessionConn
	inOrder bool // both sides agree on where the stream is: the connection can be used again
}

func (c *sessionCall) make(ctx context.Context) (*execution.Result, error) {
	if !c.conn.Usable() {
		return nil, fmt.Errorf("%w: %w: another server has the session", execution.ErrNotStarted, errFrame)
	}
	head := fmt.Appendf(c.task.head(), "op=%d\n", c.task.operation)
	if err := c.stream.send(ctx, c.task, head); err != nil {
		return nil, c.unsent(ctx, err)
	}
	lasting, cancel := c.outlive(ctx)
	defer cancel()
	if err := c.awaitStart(lasting); err != nil {
		return c.unstarted(ctx, err)
	}
	r, err := c.report(lasting, interruptTime+graceTime)
	if c.inOrder = err == nil; !c.inOrder {
		c.log(lasting, "a call's report is not whole", err)
		failCall(r, err, c.stream.loss(lasting, r))
	}
	result := c.result(r)
	result.StateLost = r.facts.stateLost
	c.explain(result, r.facts.lostForMemory)
	if result.StateLost && c.inOrder && ctx.Err() == nil {
		_ = c.stream.note(ctx, kindHeard, graceTime) // otherwise it is reported again
	}
	return result, nil
}

// unsent returns the error of a task that was not sent whole. Where a file's source
// failed, a frame ends the task.
func (c *sessionCall) unsent(ctx context.Context, cause error) error {
	if errors.Is(cause, execution.ErrNotStarted) {
		return cause // the stream failed
	}
	c.inOrder = c.stream.note(ctx, kindNever, stageTime) == nil
	return cause
}

// unstarted returns the outcome of a call that was sent whole and whose start was not
// announced. The call may have begun all the same: the supervisor announces a start and
// begins, whether or not the announcement arrives. So only a call that did not arrive
// in order, may be made twice, or was called back, may be tried again.
func (c *sessionCall) unstarted(ctx context.Context, cause error) (*execution.Result, error) {
	if refused, ok := errors.AsType[*refusalError](cause); ok {
		c.inOrder = true
		return nil, c.refused(refused)
	}
	if errors.Is(cause, errDisorder) || !c.task.runsProgram() || errors.Is(cause, errSilent) && c.callBack() {
		return nil, fmt.Errorf("%w: %w", execution.ErrNotStarted, cause)
	}
	c.log(ctx, "the start of a call was not reported", cause)
	r := newReport(ctx, c.task)
	lost := c.stream.loss(ctx, r)
	r.facts = facts{lost: true, lostToMemory: lost.memory}
	r.failure = lost.after("the session ended, or the connection to it, before it said that the program starts; it may have run", "")
	return r.result(), nil
}

// callBack calls off a call that a silent supervisor was sent whole. A supervisor
// that is frozen finds that before it begins the call. It reports whether the frame
// could be sent.
func (c *sessionCall) callBack() bool {
	s := c.stream
	s.writing <- struct{}{} // other writers give up at once on a silent sandbox
	defer s.release()
	if err := s.instance.SetWriteDeadline(time.Now().Add(callBackTime)); err != nil {
		return false
	}
	_ = s.out.frame(kindCallOff, nil)
	return s.out.w.Flush() == nil
}

// outlive returns a context that ends some time after the caller's: until then the
// call, which is called off, should end in good order.
func (c *sessionCall) outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	lasting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	called := make(chan struct{})
	forget := context.AfterFunc(ctx, func() {
		defer close(called)
		_ = c.stream.note(lasting, kindCallOff, graceTime) // a failure shows as the stream's end
		time.AfterFunc(callOffTime, func() { cancel(errLate) })
	})
	return lasting, func() {
		if !forget() {
			<-called // or it might call off the next call
		}
		cancel(nil)
	}
}

// failCall notes that the report of a call ends here.
func failCall(r *report, err error, lost loss) {
	ended := r.ended
	r.fail(err, lost)
	switch {
	case ended: // as for a run
	case errors.Is(err, errLate):
		r.failure = "the session did not report back in time"
	case errors.Is(err, errSilent):
		r.failure = "the session does not answer any more; it may be frozen, and the program may go on"
	default:
		r.failure = lost.after("the session ended, or the connection to it", "out of memory, deleted, or the engine stopped")
	}
}

// explain adds to the end's message what happened to the interpreter, and why where
// that is known.
func (c *sessionCall) explain(result *execution.Result, forMemory bool) {
	more := ""
	switch {
	case result.StateLost:
		more = "the session's interpreter was ended: its variables, imports and threads are lost, files are not"
		if forMemory && result.End.Reason != execution.MemoryLimit {
			more += " (" + stoppedForMemory + ")"
		}
	case result.TimedOut() && c.task.operation == runPython && c.inOrder:
		more = "it was interrupted, and the session's variables are kept"
	default:
		return
	}
	if result.End.Message != "" {
		more = result.End.Message + "; " + more
	}
	result.End.Message = more
}

// refused returns the error of a call that the supervisor refused, by its errno.
func (c *sessionCall) refused(refused *refusalError) error {
	number, _ := refused.values.number("errno", 1<<16)
	message := shown(refused.values["message"], maxReason)
	path, target, _ := strings.Cut(c.task.code, "\x00")
	index, indexErr := refused.values.number("file", max(1, int64(len(c.task.files)+len(c.task.sent))))
	onPath := c.task.namesPath() && (c.task.operation != renameFile || indexErr != nil)
	switch code := syscall.Errno(number); {
	case onPath && (code == syscall.ENOENT || code == syscall.ENOTDIR):
		return &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf("%s '%s' not found in the session", c.task.noun(), execution.Clip(path))}
	case code == syscall.ENOSPC || code == syscall.EFBIG:
		return &execution.Error{Code: execution.TooLarge, Message: fmt.Sprintf(
			"it does not fit in the workspace of %d MB", c.task.limits.WorkspaceBytes>>20)}
	case code == syscall.EAGAIN || code == syscall.ENOMEM:
		return &execution.Error{Code: execution.Unavailable, Message: "the session has no room for another process; try again", Err: refused}
	case code == syscall.ELOOP:
		message = "a link, which is not followed"
	}
	fault := execution.FieldError{Fault: execution.FaultValue, Message: "cannot be used: " + message}
	switch n := int(index); {
	case onPath:
		fault.Field, fault.Value = execution.FieldPath, path
	case c.task.operation == renameFile:
		fault.Field, fault.Value = execution.FieldTarget, target
	case indexErr != nil || n >= len(c.task.files)+len(c.task.sent):
		return refused
	case n < len(c.task.files):
		fault.Field, fault.Index, fault.Value = execution.FieldFiles, n, c.task.files[n].Path
	default:
		fault.Field, fault.Value = execution.FieldArchive, c.task.sent[n-len(c.task.files)]
	}
	return &execution.Error{Code: execution.Invalid, Message: "the request is not valid", Fields: []execution.FieldError{fault}}
}
