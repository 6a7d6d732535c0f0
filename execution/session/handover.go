package session

import (
	"context"
	"errors"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// firstPause is how long an attempt to attach waits after another server has released the
	// session: the host may learn that a moment later. Each further pause is twice as long.
	firstPause = time.Millisecond
	// lastPause is the longest pause, and that after a failure to ask.
	lastPause = 512 * time.Millisecond
	// handoverTime is how long a session is waited for. A server that ends answers no more for a
	// moment before the host knows that it has ended.
	handoverTime = 10 * time.Second
)

// Handover moves sessions between servers.
type Handover interface {
	// Ask asks the server that holds a session to release it, and returns when it has: when
	// its call that is under way is over.
	Ask(ctx context.Context, held *execution.HeldError) error
	// Release lets other servers attach to a session that this one holds. It does nothing if
	// this one does not.
	Release(ctx context.Context, id string) error
}

// attach connects to a session. If another server holds it, that server is asked to release it.
// It needs the session's slot.
func (m *Manager) attach(ctx context.Context, e *entry) (execution.Session, error) {
	end := time.Now().Add(handoverTime)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		conn, err := m.attachOnce(ctx, e.id)
		held, isHeld := errors.AsType[*execution.HeldError](err)
		if !isHeld || m.opts.Handover == nil || time.Now().After(end) {
			return conn, err
		}
		if err := m.askHolder(ctx, e, held); err != nil && ctx.Err() == nil {
			m.opts.Log.WarnContext(ctx, "another server could not be asked for a session", "holder", held.Holder, "error", err)
			pause = lastPause // it may have ended
		}
		select {
		case <-ctx.Done():
			return nil, execution.CancelledError(ctx)
		case <-time.After(pause):
		}
	}
}

func (m *Manager) attachOnce(ctx context.Context, id string) (execution.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	return m.opts.Host.Attach(ctx, id)
}

// askHolder asks a session's holder to release it. Meanwhile this server holds nothing for which
// the other one could wait: two servers that each treat the other as the holder, as one of them
// may for a moment, would otherwise wait for each other. It needs the session's slot.
func (m *Manager) askHolder(ctx context.Context, e *entry, held *execution.HeldError) error {
	e.asking.Store(true)
	defer e.asking.Store(false)
	return m.opts.Handover.Ask(ctx, held)
}

// Release closes the connection to a session, and lets other servers attach to it. It waits for
// the calls that are under way or have come before. It needs no owner: the server that asks
// knows that the session is its client's.
func (m *Manager) Release(ctx context.Context, id string) error {
	if e := m.get(id); e != nil {
		if e.asking.Load() {
			return nil // this server does not hold it
		}
		if err := e.callSlot.Acquire(ctx, 1); err != nil {
			return execution.CancelledError(ctx)
		}
		defer m.tend(ctx, e)()
		m.detach(e)
	}
	err := m.opts.Handover.Release(ctx, id)
	if m.lasting.Err() != nil {
		return nil // the host may be closed, which releases all sessions
	}
	return err
}

// detach closes the connection to a session, which goes on. It needs the session's slot.
func (m *Manager) detach(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.conn != nil {
		e.conn.Detach()
		e.conn = nil
	}
}
