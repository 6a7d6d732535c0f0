package session

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// entry is a session that this server knows.
type entry struct {
	info     execution.SessionInfo
	ours     bool                // this manager has started it
	callSlot *semaphore.Weighted // of one: its holder may make a call

	ending atomic.Bool // it is being ended before its time

	expiry  *time.Timer // ends the session some time after it should have ended by itself
	waiting int         // calls that wait for callSlot; Manager.mu guards it

	// conn is nil while there is no connection. It may be read with callSlot or with
	// Manager.mu, and changed with both.
	conn execution.Session
}

// over reports whether the session has expired or is being ended.
func (e *entry) over() bool { return e.ending.Load() || !time.Now().Before(e.info.Expires) }

// adopt adds a session that was started, unless Close has closed the connections.
func (m *Manager) adopt(info execution.SessionInfo, conn execution.Session) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lasting.Err() != nil {
		return false
	}
	e := m.addLocked(info)
	e.ours, e.conn = true, conn
	m.watchLocked(e, conn)
	return true
}

// addLocked adds a session until it expires, and then makes sure that it is gone. It
// needs m.mu.
func (m *Manager) addLocked(info execution.SessionInfo) *entry {
	e := &entry{info: info, callSlot: semaphore.NewWeighted(1)}
	e.expiry = time.AfterFunc(time.Until(info.Expires)+endGrace, func() {
		m.forget(e)
		if err := m.end(context.Background(), info.ID); err != nil {
			m.opts.Log.Error("a session that is over could not be ended", "error", err)
		}
	})
	m.known[info.ID] = e
	return e
}

// watchLocked closes a connection when it has ended. It needs m.mu.
func (m *Manager) watchLocked(e *entry, conn execution.Session) {
	m.watchers.Go(func() {
		<-conn.Done()
		conn.Detach()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.known[e.info.ID] == e && e.over() {
			m.removeLocked(e)
		}
	})
}

// removeLocked removes a session. It needs m.mu.
func (m *Manager) removeLocked(e *entry) {
	e.expiry.Stop()
	delete(m.known, e.info.ID)
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
	if m.known[e.info.ID] == e {
		m.removeLocked(e)
	}
}
