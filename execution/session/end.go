package session

import (
	"context"
	"errors"
	"sync"
)

// Delete ends a session and all its processes, and returns when it is gone.
func (m *Manager) Delete(ctx context.Context, id string) error {
	e, left, err := m.locate(ctx, id)
	if left {
		err = errors.Join(err, m.end(ctx, id))
	}
	if err != nil {
		return err
	}
	e.ending.Store(true) // calls must neither wait for a dying sandbox nor report it as lost
	if err := m.end(ctx, id); err != nil {
		e.ending.Store(false)
		return err
	}
	m.forget(e)
	return nil
}

// EndOurs ends the sessions that this manager has started, for a server whose clients
// do not come back. There must be no calls any more.
func (m *Manager) EndOurs(ctx context.Context) error {
	m.mu.Lock()
	var ours []string
	for id, e := range m.known {
		if e.ours {
			ours = append(ours, id)
		}
	}
	m.mu.Unlock()
	faults := make([]error, len(ours))
	var ends sync.WaitGroup
	for i, id := range ours {
		ends.Go(func() {
			if err := m.Delete(ctx, id); !isNotFound(err) {
				faults[i] = err
			}
		})
	}
	ends.Wait()
	return errors.Join(faults...)
}

// end ends a session, whether or not its caller still waits.
func (m *Manager) end(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachTime)
	defer cancel()
	return m.opts.Host.End(ctx, id)
}
