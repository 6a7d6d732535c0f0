package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// RunPython runs a program in a session's interpreter. Calls of a session run one
// after the other: this one waits for the earlier ones. The error of every call is
// an [*execution.Error].
func (m *Manager) RunPython(ctx context.Context, id string, req execution.Request) (*execution.Result, error) {
	arrived := time.Now()
	req, err := req.Validate(ctx, m.opts.Limits)
	if err != nil {
		return nil, err
	}
	return m.run(ctx, id, arrived, req.Timeout, func(ctx context.Context, conn execution.Session) (*execution.Result, error) {
		return conn.RunPython(ctx, req, m.opts.Limits)
	})
}

// RunBash runs a command in a shell of its own.
func (m *Manager) RunBash(ctx context.Context, id string, cmd execution.Command) (*execution.Result, error) {
	arrived := time.Now()
	cmd, err := cmd.Validate(m.opts.Limits)
	if err != nil {
		return nil, err
	}
	return m.run(ctx, id, arrived, cmd.Timeout, func(ctx context.Context, conn execution.Session) (*execution.Result, error) {
		return conn.RunBash(ctx, cmd, m.opts.Limits)
	})
}

// ReadFile reads a file of a session's workspace.
func (m *Manager) ReadFile(ctx context.Context, id string, req execution.ReadRequest) error {
	if err := req.Validate(); err != nil {
		return err
	}
	result, err := m.run(ctx, id, time.Now(), m.fileTime(), func(ctx context.Context, conn execution.Session) (*execution.Result, error) {
		return conn.ReadFile(ctx, req, m.opts.Limits)
	})
	if err != nil || len(result.Files) == 1 {
		return err
	}
	reason := result.End.Message
	if len(result.Skipped) > 0 {
		reason = result.Skipped[0].Reason
	}
	return &execution.Error{Code: execution.Unavailable, Message: "the file could not be read: " + reason}
}

// WriteFiles writes files to a session's workspace.
func (m *Manager) WriteFiles(ctx context.Context, id string, req execution.WriteRequest) error {
	req, err := req.Validate(ctx, m.opts.Limits)
	if err != nil {
		return err
	}
	return m.call(ctx, id, callTerms{m.fileTime(), req.Spent}, func(ctx context.Context, e *entry) error {
		return e.conn.WriteFiles(ctx, req, m.opts.Limits)
	})
}

// run makes a call that has a result.
func (m *Manager) run(
	ctx context.Context, id string, arrived time.Time, timeout time.Duration,
	attempt func(context.Context, execution.Session) (*execution.Result, error),
) (result *execution.Result, _ error) {
	var used *entry
	err := m.call(ctx, id, callTerms{timeout: timeout}, func(ctx context.Context, e *entry) (err error) {
		if result, err = attempt(ctx, e.conn); err == nil {
			used = e
			explainEnd(e, result)
			result.Queue = max(0, result.Started.Sub(arrived))
		}
		return err
	})
	if err == nil {
		result.Session = used.current()
	}
	return result, err
}

// callTerms are what the manager must know of a call.
type callTerms struct {
	timeout time.Duration // of the program; zero for none
	spent   func() bool   // is [execution.WriteRequest.Spent]
}

// fileTime returns the timeout of a call that runs no program.
func (m *Manager) fileTime() time.Duration {
	return min(execution.DefaultTimeout, m.opts.Limits.MaxTimeout)
}

// call makes a call in a session when it is its turn, and renews the session.
func (m *Manager) call(
	ctx context.Context, id string, terms callTerms, attempt func(context.Context, *entry) error,
) error {
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	e, err := m.find(ctx, id)
	if err != nil {
		return err
	}
	if err := m.acquireSlot(ctx, e); err != nil {
		return err
	}
	defer e.callSlot.Release(1)
	err = m.attemptTwice(ctx, e, terms, attempt)
	m.renew(ctx, e)
	m.rest(e)
	if err != nil {
		return asAnswer(ctx, err)
	}
	return nil
}

// attemptTwice makes an attempt, and a second one over another connection where the
// first connection failed before the call began. It makes no second one that could
// not succeed: to connect ends the calls of other servers. It needs the session's
// slot.
func (m *Manager) attemptTwice(
	ctx context.Context, e *entry, terms callTerms, attempt func(context.Context, *entry) error,
) error {
	var err error
	for range 2 {
		if err = m.connect(ctx, e); err != nil {
			return err
		}
		m.hold(ctx, e, terms.timeout)
		stop := m.holding(ctx, e)
		err = attempt(ctx, e)
		stop()
		if err == nil || !errors.Is(err, execution.ErrNotStarted) || ctx.Err() != nil {
			return err
		}
		if terms.spent != nil && terms.spent() {
			break
		}
	}
	return unanswered(err)
}

// unanswered is the error of a session that does not answer.
func unanswered(cause error) error {
	return &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again", Err: cause}
}

// explainEnd replaces the message of a call that the session's end has cut short.
func explainEnd(e *entry, result *execution.Result) {
	if result.End.Reason == execution.SandboxLost && e.ending.Load() {
		result.End.Message = "the session was ended"
	}
}

// acquireSlot waits for the session's slot, unless too many calls wait. The session
// may end meanwhile: an entry that is found under its id then has a slot of its own.
func (m *Manager) acquireSlot(ctx context.Context, e *entry) error {
	if err := m.awaitSlot(ctx, e); err != nil {
		return err
	}
	if m.get(e.id) != e {
		e.callSlot.Release(1)
		return execution.SessionNotFound(e.id)
	}
	return nil
}

func (m *Manager) awaitSlot(ctx context.Context, e *entry) error {
	if e.callSlot.TryAcquire(1) {
		return nil
	}
	if !m.queue(e) {
		return &execution.Error{Code: execution.Busy, Message: fmt.Sprintf(
			"too many calls of the session wait (%d); try again later", maxWaiting)}
	}
	defer m.unqueue(e)
	if e.callSlot.Acquire(ctx, 1) != nil {
		return execution.CancelledError(ctx)
	}
	return nil
}

func (m *Manager) queue(e *entry) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.waiting >= maxWaiting {
		return false
	}
	e.waiting++
	return true
}

func (m *Manager) unqueue(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.waiting--
}
