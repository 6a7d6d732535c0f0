package session

import (
	"context"
	"errors"
	"fmt"
)

// enter counts a call, unless the manager is closing. The context that it returns
// ends with the caller's, or when Close has waited long enough.
func (m *Manager) enter(ctx context.Context) (_ context.Context, leave func(), _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return nil, nil, errClosing
	}
	m.calls++
	ctx, cancel := context.WithCancelCause(ctx)
	forget := context.AfterFunc(m.lasting, func() { cancel(context.Cause(m.lasting)) })
	return ctx, func() {
		forget()
		cancel(nil)
		m.leave()
	}, nil
}

func (m *Manager) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls--
	m.closeIdleLocked()
}

// closeIdleLocked signals to Close that the last call has ended. It needs m.mu.
func (m *Manager) closeIdleLocked() {
	if m.closing && m.calls == 0 {
		close(m.idle)
	}
}

// Close rejects new calls, waits for running ones until ctx ends, calls off the rest,
// and closes the connections. The sessions go on, for the next server to find. It may
// be called more than once.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if !m.closing {
		m.closing = true
		m.closeIdleLocked()
	}
	m.mu.Unlock()
	err := m.awaitIdle(ctx)
	m.stop(errClosing)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	_ = m.awaitIdle(ctx) // calls that ignore that lose their connection
	m.detachAll()
	return errors.Join(err, m.awaitWatchers(ctx))
}

func (m *Manager) awaitIdle(ctx context.Context) error {
	select {
	case <-m.idle:
		return nil
	default:
	}
	select {
	case <-m.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("calls of sessions did not end in time: %w", context.Cause(ctx))
	}
}

// awaitWatchers waits until all connections have ended.
func (m *Manager) awaitWatchers(ctx context.Context) error {
	over := make(chan struct{})
	go func() {
		m.watchers.Wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("connections to sessions did not end in time: %w", context.Cause(ctx))
	}
}

// detachAll closes all connections.
func (m *Manager) detachAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.known {
		e.stopTimers()
		if e.conn != nil {
			e.conn.Detach()
		}
	}
}
