package session

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// entry is a session that this server knows.
type entry struct {
	id       string
	owner    execution.Owner
	ours     bool                // this manager has started it
	callSlot *semaphore.Weighted // of one: its holder may make a call

	ending atomic.Bool // it is being ended before its time
	asking atomic.Bool // a call waits until another server has released it

	expiry  *time.Timer // ends the session some time after it should have ended by itself; Manager.mu guards it
	resting *time.Timer // closes the connection some time after the last call; nil if none does
	waiting int         // calls that wait for callSlot; Manager.mu guards it

	tended bool // callSlot is taken, and not for a call; Manager.mu guards it

	// conn is nil while there is no connection. It may be read with callSlot or with
	// Manager.mu, and changed with both.
	conn execution.Session

	mu        sync.Mutex
	info      execution.SessionInfo // as its client knows it; mu guards it
	announced execution.SessionInfo // as other servers and its supervisor know it; mu guards it
}

// current returns the session as it is now.
func (e *entry) current() execution.SessionInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.info
}

// setIdle changes the session's idle time, which counts from the end of its next call.
func (e *entry) setIdle(idle time.Duration) execution.SessionInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info.Idle = idle
	return e.info
}

// announcement returns what was announced last of the session.
func (e *entry) announcement() execution.SessionInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.announced
}

func (e *entry) set(info, announced execution.SessionInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info, e.announced = info, announced
}

// known returns the session as its client knows it, if found is what was announced.
// Otherwise another server has changed it, and known returns found.
func (e *entry) known(found execution.SessionInfo) execution.SessionInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	if found.Idle == e.announced.Idle && found.Expires.Equal(e.announced.Expires) {
		return e.info
	}
	return found
}

// over reports whether the session has expired or is being ended.
func (e *entry) over() bool { return e.ending.Load() || !time.Now().Before(e.current().Expires) }

// adopt adds a session that was started. It returns nil if Close has closed the
// connections.
func (m *Manager) adopt(info execution.SessionInfo, conn execution.Session) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lasting.Err() != nil {
		return nil
	}
	e := m.addLocked(info)
	e.ours, e.conn = true, conn
	m.watchLocked(e, conn)
	return e
}

// addLocked adds a session until it expires, and then makes sure that it is gone. It
// needs m.mu.
func (m *Manager) addLocked(info execution.SessionInfo) *entry {
	e := &entry{id: info.ID, owner: info.Owner, info: info, announced: info, callSlot: semaphore.NewWeighted(1)}
	e.expiry = time.AfterFunc(time.Until(info.Expires)+endGrace, func() { m.expire(e) })
	if m.opts.LinkIdle > 0 {
		e.resting = time.AfterFunc(m.opts.LinkIdle, func() { m.disconnectIdle(e) })
	}
	m.known[info.ID] = e
	return e
}

// update changes what is known of a session, and what was announced of it.
func (m *Manager) update(e *entry, info, announced execution.SessionInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.updateLocked(e, info, announced)
}

// updateLocked is update. It needs m.mu.
func (m *Manager) updateLocked(e *entry, info, announced execution.SessionInfo) {
	e.set(info, announced)
	if m.known[e.id] == e && m.lasting.Err() == nil {
		e.expiry.Reset(time.Until(info.Expires) + endGrace)
	}
}

// expire ends a session that should have ended by itself, unless another server has
// renewed it.
func (m *Manager) expire(e *entry) {
	if m.refresh(context.Background(), e); !e.over() {
		return
	}
	m.forget(e)
	if err := m.end(context.Background(), e.id); err != nil {
		m.opts.Log.Error("a session that is over could not be ended", "error", err)
	}
}

// refresh asks the host what another server may have changed of a session.
func (m *Manager) refresh(ctx context.Context, e *entry) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if found, err := m.opts.Host.Find(ctx, e.id); err == nil {
		m.update(e, found, found)
	}
}

// watchLocked closes a connection when it has ended. It needs m.mu.
func (m *Manager) watchLocked(e *entry, conn execution.Session) {
	m.watchers.Go(func() {
		<-conn.Done()
		conn.Detach()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.known[e.id] == e && e.over() {
			m.removeLocked(e)
		}
	})
}

// removeLocked removes a session. It needs m.mu.
func (m *Manager) removeLocked(e *entry) {
	e.stopTimers()
	delete(m.known, e.id)
}

func (e *entry) stopTimers() {
	e.expiry.Stop()
	if e.resting != nil {
		e.resting.Stop()
	}
}

// get returns a session that this server knows, or nil.
func (m *Manager) get(id string) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[id]
}

// forget removes a session that is gone.
func (m *Manager) forget(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.conn != nil {
		e.conn.Detach()
	}
	if m.known[e.id] == e {
		m.removeLocked(e)
	}
}
