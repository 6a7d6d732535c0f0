package session

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// held is a session that this server knows.
type held struct {
	info execution.SessionInfo
	ours bool          // this manager has started it
	turn chan struct{} // holds one token: whoever has it may call

	ending atomic.Bool // it is being ended before its time

	end     *time.Timer // ends it some time after it should have ended by itself
	waiting int         // calls that wait for the turn; with the manager's lock

	// link is nil while there is no connection. Whoever has the turn may read it,
	// and change it with the manager's lock; with that, anybody may read it.
	link execution.Session
}

func (h *held) over() bool { return h.ending.Load() || !time.Now().Before(h.info.Expires) }

// adopt makes a session known, unless connections have been given up by now.
func (m *Manager) adopt(info execution.SessionInfo, link execution.Session) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lasting.Err() != nil {
		return false
	}
	h := m.knowLocked(info)
	h.ours, h.link = true, link
	m.watchLocked(h, link)
	return true
}

// knowLocked makes a session known until it should be gone, and sees to it that
// it is. It needs m.mu.
func (m *Manager) knowLocked(info execution.SessionInfo) *held {
	h := &held{info: info, turn: make(chan struct{}, 1)}
	h.end = time.AfterFunc(time.Until(info.Expires)+endGrace, func() {
		m.forget(h)
		if err := m.end(context.Background(), info.ID); err != nil {
			m.opts.Log.Error("a session that is over could not be ended", "error", err)
		}
	})
	m.known[info.ID] = h
	return h
}

// watchLocked gives a connection up when it has ended. It needs m.mu.
func (m *Manager) watchLocked(h *held, link execution.Session) {
	m.watchers.Go(func() {
		<-link.Done()
		link.Detach()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.known[h.info.ID] == h && h.over() {
			m.dropLocked(h)
		}
	})
}

// dropLocked makes a session unknown. It needs m.mu.
func (m *Manager) dropLocked(h *held) {
	h.end.Stop()
	delete(m.known, h.info.ID)
}

func (m *Manager) get(id string) *held {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[id]
}

// forget forgets a session that is gone.
func (m *Manager) forget(h *held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.link != nil {
		h.link.Detach()
	}
	if m.known[h.info.ID] == h {
		m.dropLocked(h)
	}
}
