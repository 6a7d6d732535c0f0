package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Call makes a call in a session. It waits for those that came before it. Its
// error is always an [*execution.Error].
func (m *Manager) Call(
	ctx context.Context, id string, operation execution.Operation, req execution.Request,
) (*execution.Result, error) {
	arrived := time.Now()
	req, err := m.opts.Limits.ValidateCall(operation, req)
	if err != nil {
		return nil, err
	}
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	e, err := m.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := m.acquireSlot(ctx, e); err != nil {
		return nil, err
	}
	defer func() { <-e.callSlot }()
	result, err := m.call(ctx, e, operation, req)
	switch {
	case err == nil:
		result.Queue = max(0, result.Started.Sub(arrived))
		return result, nil
	case ctx.Err() != nil:
		return nil, execution.CancelledError(ctx)
	}
	return nil, execution.AsError(err)
}

// acquireSlot waits until it is a call's turn, if not too many wait. The session
// may have gone meanwhile: what is known under its id then has turns of its own.
func (m *Manager) acquireSlot(ctx context.Context, e *entry) error {
	if err := m.awaitSlot(ctx, e); err != nil {
		return err
	}
	if m.get(e.info.ID) != e {
		<-e.callSlot
		return notFound(e.info.ID)
	}
	return nil
}

func (m *Manager) awaitSlot(ctx context.Context, e *entry) error {
	select {
	case e.callSlot <- struct{}{}:
		return nil
	default:
	}
	if !m.queue(e) {
		return &execution.Error{Code: execution.Busy, Message: fmt.Sprintf(
			"%d calls of the session wait for the one that runs, as many as may; try again later", maxWaiting)}
	}
	defer m.unqueue(e)
	select {
	case e.callSlot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return execution.CancelledError(ctx)
	}
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

// call makes a call, over a second connection where the first was of no use, unless
// that could not be sent what it takes: a connection ends what other servers have
// under way. It needs the session's turn.
func (m *Manager) call(
	ctx context.Context, e *entry, operation execution.Operation, req execution.Request,
) (*execution.Result, error) {
	var err error
	for range 2 {
		if err = m.connect(ctx, e); err != nil {
			return nil, err
		}
		var result *execution.Result
		if result, err = e.conn.Call(ctx, operation, req, m.opts.Limits); err == nil {
			m.explain(e, result)
			return result, nil
		}
		if !errors.Is(err, execution.ErrNotStarted) || ctx.Err() != nil {
			return nil, err
		}
		if slices.ContainsFunc(req.Files, execution.Input.UsedUp) {
			break
		}
	}
	return nil, &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again", Err: err}
}

// explain says of a call that the session's end has cut short that this is so.
func (m *Manager) explain(e *entry, result *execution.Result) {
	switch {
	case result.End.Reason != execution.SandboxLost || !e.over():
	case e.ending.Load():
		result.End.Message = "the session was ended"
	default:
		result.End.Message = "the session has expired"
	}
}
