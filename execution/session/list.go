package session

import (
	"context"
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// List lists the sessions of the request's owner that run, those of other servers
// on the same host among them, the one that expires first before the others.
func (m *Manager) List(ctx context.Context) ([]execution.SessionInfo, error) {
	running, err := m.ask(ctx)
	if err != nil {
		return nil, err
	}
	now, owner := time.Now(), execution.OwnerOf(ctx)
	running = slices.DeleteFunc(running, func(s execution.SessionInfo) bool {
		return s.Owner != owner || !now.Before(s.Expires)
	})
	slices.SortFunc(running, func(a, b execution.SessionInfo) int { return a.Expires.Compare(b.Expires) })
	return running, nil
}

// find gives a session of the request's owner that is known, or that the host
// knows. For another's the host is asked as for an unknown one: the time that
// takes, and its faults, would tell them apart.
func (m *Manager) find(ctx context.Context, id string) (*entry, error) {
	if !isID(id) {
		return nil, notFound(id)
	}
	if e := m.get(id); e != nil && e.info.Owner == execution.OwnerOf(ctx) {
		if e.over() {
			return nil, notFound(id)
		}
		return e, nil
	}
	running, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(running, func(s execution.SessionInfo) bool { return s.ID == id })
	if i < 0 {
		return nil, notFound(id)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[id]; e != nil {
		return e, nil // another call was faster
	}
	return m.knowLocked(running[i]), nil //nolint:contextcheck // its end has nothing to do with this call
}

// asksAtOnce is how many requests of one owner may ask the host at once what runs,
// which takes an engine some milliseconds in which others wait for it.
const asksAtOnce = 2

// ask asks the host what runs, when it is the request's turn.
func (m *Manager) ask(ctx context.Context) ([]execution.SessionInfo, error) {
	leave, err := m.asks.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return m.opts.Host.Sessions(ctx)
}

// runs says whether the host has a session, as far as it can tell.
func (m *Manager) runs(ctx context.Context, e *entry) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	running, err := m.opts.Host.Sessions(ctx)
	return err != nil || slices.ContainsFunc(running, func(s execution.SessionInfo) bool { return s.ID == e.info.ID })
}
