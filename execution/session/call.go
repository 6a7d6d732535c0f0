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
	h, err := m.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := m.takeTurn(ctx, h); err != nil {
		return nil, err
	}
	defer func() { <-h.turn }()
	result, err := m.call(ctx, h, operation, req)
	switch {
	case err == nil:
		result.Queue = max(0, result.Started.Sub(arrived))
		return result, nil
	case ctx.Err() != nil:
		return nil, left(ctx)
	}
	return nil, execution.AsError(err)
}

// takeTurn waits until it is a call's turn, if not too many wait. The session
// may have gone meanwhile: what is known under its id then has turns of its own.
func (m *Manager) takeTurn(ctx context.Context, h *held) error {
	if err := m.awaitTurn(ctx, h); err != nil {
		return err
	}
	if m.get(h.info.ID) != h {
		<-h.turn
		return notFound(h.info.ID)
	}
	return nil
}

func (m *Manager) awaitTurn(ctx context.Context, h *held) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	default:
	}
	if !m.queue(h) {
		return &execution.Error{Code: execution.Busy, Message: fmt.Sprintf(
			"%d calls of the session wait for the one that runs, as many as may; try again later", maxWaiting)}
	}
	defer m.unqueue(h)
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return left(ctx)
	}
}

func (m *Manager) queue(h *held) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.waiting >= maxWaiting {
		return false
	}
	h.waiting++
	return true
}

func (m *Manager) unqueue(h *held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h.waiting--
}

// left is the error of a call whose context has ended.
func left(ctx context.Context) error {
	if closing, ok := errors.AsType[*execution.Error](context.Cause(ctx)); ok {
		return closing
	}
	return &execution.Error{Code: execution.Cancelled, Message: "the caller left", Err: context.Cause(ctx)}
}

// call makes a call, over a second connection where the first was of no use, unless
// that could not be sent what it takes: a connection ends what other servers have
// under way. It needs the session's turn.
func (m *Manager) call(
	ctx context.Context, h *held, operation execution.Operation, req execution.Request,
) (*execution.Result, error) {
	var err error
	for range 2 {
		if err = m.connect(ctx, h); err != nil {
			return nil, err
		}
		var result *execution.Result
		if result, err = h.link.Call(ctx, operation, req, m.opts.Limits); err == nil {
			m.explain(h, result)
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
func (m *Manager) explain(h *held, result *execution.Result) {
	switch {
	case result.End.Reason != execution.SandboxLost || !h.over():
	case h.ending.Load():
		result.End.Message = "the session was ended"
	default:
		result.End.Message = "the session has expired"
	}
}
