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
	release, err := m.asks.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	running, err := m.opts.Host.Owned(ctx, execution.OwnerOf(ctx))
	if err != nil {
		return nil, err
	}
	for i, s := range running {
		if e := m.get(s.ID); e != nil {
			running[i] = e.known(s)
		}
	}
	now := time.Now()
	running = slices.DeleteFunc(running, func(s execution.SessionInfo) bool { return !now.Before(s.Expires) })
	slices.SortFunc(running, func(a, b execution.SessionInfo) int { return a.Expires.Compare(b.Expires) })
	return running, nil
}

// find returns a session of the request's owner that this server or the host knows.
func (m *Manager) find(ctx context.Context, id string) (*entry, error) {
	e, _, err := m.locate(ctx, id)
	return e, err
}

// locate is find. Where the session is over, it also reports whether it may have been
// left behind.
func (m *Manager) locate(ctx context.Context, id string) (e *entry, left bool, err error) {
	if !execution.IsID(id) {
		return nil, false, execution.SessionNotFound(id)
	}
	if e := m.get(id); e != nil && e.owner == execution.OwnerOf(ctx) {
		switch {
		case e.ending.Load():
			return nil, true, execution.SessionNotFound(id)
		case !e.over(): // else another server may have renewed it
			return e, false, nil
		}
	}
	found, err := m.ask(ctx, id)
	if err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.known[id]
	if known != nil {
		found = known.known(found)
	}
	switch {
	case !time.Now().Before(found.Expires):
		return nil, true, execution.SessionNotFound(id)
	case known != nil:
		m.updateLocked(known, found, found) // another server has renewed it, or another call was faster
		return known, false, nil
	}
	return m.addLocked(found), false, nil //nolint:contextcheck // its end has nothing to do with this call
}

// ask asks the host for a session of the request's owner. The host is asked for the
// session of another owner as for an unknown one, and the error is the same.
func (m *Manager) ask(ctx context.Context, id string) (execution.SessionInfo, error) {
	release, err := m.asks.Acquire(ctx)
	if err != nil {
		return execution.SessionInfo{}, err
	}
	defer release()
	found, err := m.opts.Host.Find(ctx, id)
	if isNotFound(err) || err == nil && found.Owner != execution.OwnerOf(ctx) {
		err = execution.SessionNotFound(id)
	}
	return found, err
}

// runs reports whether the host may still have a session. A host that fails may.
func (m *Manager) runs(ctx context.Context, e *entry) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	_, err := m.opts.Host.Find(ctx, e.id)
	return !isNotFound(err)
}
