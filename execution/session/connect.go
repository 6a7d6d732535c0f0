package session

import (
	"context"
	"errors"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// connect sees to it that there is a connection, and forgets a session that is
// gone. It needs the session's turn.
func (m *Manager) connect(ctx context.Context, h *held) error {
	if h.over() {
		return notFound(h.info.ID)
	}
	if h.link != nil && h.link.Usable() {
		return nil
	}
	if h.link != nil {
		h.link.Detach()
	}
	attaching, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	link, err := m.opts.Host.Attach(attaching, h.info.ID)
	if err != nil {
		return m.unattached(ctx, h, err)
	}
	return m.join(h, link)
}

// join gives a session a connection, unless it was forgotten while that was made,
// or all were given up: nobody would give up this one.
func (m *Manager) join(h *held, link execution.Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.lasting.Err() != nil:
		link.Detach()
		return errClosing
	case m.known[h.info.ID] != h:
		link.Detach()
		return notFound(h.info.ID)
	}
	h.link = link
	m.watchLocked(h, link)
	return nil
}

// unattached is the error of a session that could not be reached: it may have
// been about to end when it was found.
func (m *Manager) unattached(ctx context.Context, h *held, err error) error {
	_, explained := errors.AsType[*execution.Error](err)
	switch {
	case isNotFound(err), !explained && !m.runs(ctx, h):
		m.forget(h)
		return notFound(h.info.ID)
	case explained:
		return err
	}
	return &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again", Err: err}
}
