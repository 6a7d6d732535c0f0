package session

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// entry is a session that this server knows.
type entry struct {
	info     execution.SessionInfo
	ours     bool          // this manager has started it
	callSlot chan struct{} // holds one token: whoever has it may call

	ending atomic.Bool // it is being ended before its time

	end     *time.Timer // ends it some time after it should have ended by itself
	waiting int         // calls that wait for the turn; with the manager's lock

	// conn is nil while there is no connection. Whoever has the turn may read it,
	// and change it with the manager's lock; with that, anybody may read it.
	conn execution.Session
}

func (e *entry) over() bool { return e.ending.Load() || !time.Now().Before(e.info.Expires) }

// adopt makes a session known, unless connections have been given up by now.
func (m *Manager) adopt(info execution.SessionInfo, conn execution.Session) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lasting.Err() != nil {
		return false
	}
	e := m.knowLocked(info)
	e.ours, e.conn = true, conn
	m.watchLocked(e, conn)
	return true
}

// knowLocked makes a session known until it should be gone, and sees to it that
// it is. It needs m.mu.
func (m *Manager) knowLocked(info execution.SessionInfo) *entry {
	e := &entry{info: info, callSlot: make(chan struct{}, 1)}
	e.end = time.AfterFunc(time.Until(info.Expires)+endGrace, func() {
		m.forget(e)
		if err := m.end(context.Background(), info.ID); err != nil {
			m.opts.Log.Error("a session that is over could not be ended", "error", err)
		}
	})
	m.known[info.ID] = e
	return e
}

// watchLocked gives a connection up when it has ended. It needs m.mu.
func (m *Manager) watchLocked(e *entry, conn execution.Session) {
	m.watchers.Go(func() {
		<-conn.Done()
		conn.Detach()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.known[e.info.ID] == e && e.over() {
			m.dropLocked(e)
		}
	})
}

// dropLocked makes a session unknown. It needs m.mu.
func (m *Manager) dropLocked(e *entry) {
	e.end.Stop()
	delete(m.known, e.info.ID)
}

func (m *Manager) get(id string) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[id]
}

// forget forgets a session that is gone.
func (m *Manager) forget(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.conn != nil {
		e.conn.Detach()
	}
	if m.known[e.info.ID] == e {
		m.dropLocked(e)
	}
}
