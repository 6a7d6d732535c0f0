package session

import (
	"context"
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// List lists the running sessions of the request's owner, including those of other
// servers on the same host, sorted by expiry.
func (m *Manager) List(ctx context.Context) ([]execution.SessionInfo, error) {
	running, err := m.ask(ctx)
	if err != nil {
		return nil, err
	}
	for i, s := range running {
		if e := m.get(s.ID); e != nil {
			running[i] = e.known(s)
		}
	}
	now, owner := time.Now(), execution.OwnerOf(ctx)
	running = slices.DeleteFunc(running, func(s execution.SessionInfo) bool {
		return s.Owner != owner || !now.Before(s.Expires)
	})
	slices.SortFunc(running, func(a, b execution.SessionInfo) int { return a.Expires.Compare(b.Expires) })
	return running, nil
}

// find returns a session of the request's owner that this server or the host knows.
// The session of another owner is looked up like an unknown one, so that neither the
// time nor the error reveals that it exists.
func (m *Manager) find(ctx context.Context, id string) (*entry, error) {
	if !execution.IsID(id) {
		return nil, execution.SessionNotFound(id)
	}
	if e := m.get(id); e != nil && e.owner == execution.OwnerOf(ctx) {
		switch {
		case e.ending.Load():
			return nil, execution.SessionNotFound(id)
		case !e.over(): // else another server may have renewed it
			return e, nil
		}
	}
	running, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(running, func(s execution.SessionInfo) bool { return s.ID == id })
	if i < 0 {
		return nil, execution.SessionNotFound(id)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[id]; e != nil {
		m.updateLocked(e, running[i], running[i]) // another server has renewed it, or another call was faster
		return e, nil
	}
	return m.addLocked(running[i]), nil //nolint:contextcheck // its end has nothing to do with this call
}

// ask asks the host which sessions run.
func (m *Manager) ask(ctx context.Context) ([]execution.SessionInfo, error) {
	release, err := m.asks.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return m.opts.Host.Sessions(ctx)
}

// runs reports whether the host may still have a session. A host that fails may.
func (m *Manager) runs(ctx context.Context, e *entry) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	running, err := m.opts.Host.Sessions(ctx)
	return err != nil || slices.ContainsFunc(running, func(s execution.SessionInfo) bool { return s.ID == e.id })
}
