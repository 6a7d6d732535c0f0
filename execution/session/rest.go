package session

import "context"

// rest starts the time again after which the connection to a session that has no calls is
// closed.
func (m *Manager) rest(e *entry) {
	if e.resting != nil && m.get(e.id) == e {
		e.resting.Reset(m.opts.LinkIdle)
	}
}

// disconnectIdle closes the connection to a session unless it has a call, whose end starts the
// time again.
func (m *Manager) disconnectIdle(e *entry) {
	if e.callSlot.TryAcquire(1) {
		defer m.tend(context.Background(), e)()
		m.detach(e)
	}
}

// tend marks a session's slot, which the caller has taken, as taken for something other
// than a call. The function that it returns gives the slot back. A change of the session's idle time
// takes effect when a call ends. Therefore one that comes now waits for the slot, and one that
// has just come, and treated this as a call, takes effect at once.
func (m *Manager) tend(ctx context.Context, e *entry) (done func()) {
	m.mu.Lock()
	e.tended = true
	m.mu.Unlock()
	if e.current().Idle != e.announcement().Idle {
		m.renew(ctx, e)
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		e.tended = false
		e.callSlot.Release(1)
	}
}

// tryAcquireSlot takes a session's slot unless a call has it or waits for it.
func (m *Manager) tryAcquireSlot(ctx context.Context, e *entry) bool {
	m.mu.Lock()
	taken, tended := e.callSlot.TryAcquire(1), e.tended
	m.mu.Unlock()
	return taken || tended && e.callSlot.Acquire(ctx, 1) == nil
}
