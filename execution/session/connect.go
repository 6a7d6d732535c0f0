package session

import (
	"context"
	"errors"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// connect makes sure that there is a connection, and forgets a session that is gone.
// It needs the session's slot.
func (m *Manager) connect(ctx context.Context, e *entry) error {
	if e.over() {
		return execution.SessionNotFound(e.id)
	}
	if e.conn != nil && e.conn.Usable() {
		return nil
	}
	if e.conn != nil {
		e.conn.Detach()
	}
	conn, err := m.attach(ctx, e)
	if err != nil {
		return m.unattached(ctx, e, err)
	}
	if err := m.join(e, conn); err != nil {
		return err
	}
	m.refresh(ctx, e) // another server has had the session meanwhile, or the last one of this machine
	if session := e.announcement(); session.Idle > 0 {
		// A server that died may have announced an end that the supervisor does not know. A connection on
		// which this fails is closed, and the call notices that.
		_ = conn.SetEnd(ctx, session.Expires)
	}
	return nil
}

// join sets a session's connection. If the session was forgotten meanwhile, or Close
// has closed the connections, it closes this one.
func (m *Manager) join(e *entry, conn execution.Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.lasting.Err() != nil:
		conn.Detach()
		return errClosing
	case m.known[e.id] != e:
		conn.Detach()
		return execution.SessionNotFound(e.id)
	}
	e.conn = conn
	m.watchLocked(e, conn)
	return nil
}

// unattached returns the error of a session that could not be attached to: it may
// have been about to end when it was found.
func (m *Manager) unattached(ctx context.Context, e *entry, err error) error {
	_, explained := errors.AsType[*execution.Error](err)
	switch {
	case isNotFound(err), !explained && !m.runs(ctx, e):
		m.forget(e)
		return execution.SessionNotFound(e.id)
	case explained:
		return err
	}
	return unanswered(err)
}
