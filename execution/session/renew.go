package session

import (
	"context"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// callGrace is how much longer than its timeout a call may take without a sign of
	// this server's: a session outlasts its calls by that.
	callGrace = time.Minute
	// holdPause is how often a call that takes longer than that is looked after.
	holdPause = callGrace / 2
	// moveTime bounds a change of a session's end.
	moveTime = 5 * time.Second
	// maxReserve is not more than endGrace: no session outlasts its end by more.
	maxReserve = endGrace
)

var errCannotMove = &execution.Error{
	Code: execution.Unavailable, Message: "an earlier version of the server started the session; it cannot be extended",
}

// withReserve returns what to announce of a session: that it ends later by a tenth of its idle
// time, at most by maxReserve, and not beyond its greatest age. The supervisor learns the
// same end. Calls that follow each other closely then need neither an announcement each,
// which takes longer than a call (2 ms on the local backend), nor a frame, for which the
// supervisor wakes.
func withReserve(s execution.SessionInfo) execution.SessionInfo {
	reserve := min(s.Idle/10, maxReserve, max(0, s.Latest.Sub(s.Expires)))
	s.Expires = s.Expires.Add(reserve.Truncate(time.Millisecond))
	return s
}

// move changes when a session ends, and its idle time: here and, where the reserve does not
// cover that, for other servers and for the session's supervisor. The sandbox must be gone
// by the end that was announced last, even if this server dies in between. So a later end is
// announced first, and an earlier one last. It needs the session's slot and a connection.
func (m *Manager) move(ctx context.Context, e *entry, end time.Time, idle time.Duration) error {
	next := e.current()
	next.Expires, next.Idle = end, idle
	announced, announce := e.announcement(), withReserve(next)
	if announced.Idle == idle && !announced.Expires.Before(end) && !announced.Expires.After(announce.Expires) {
		m.update(e, next, announced)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moveTime)
	defer cancel()
	if announce.Expires.Before(announced.Expires) {
		if err := e.conn.SetEnd(ctx, announce.Expires); err != nil {
			return err
		}
		err := m.announce(ctx, e, next, announce)
		if err != nil {
			e.conn.Detach() // the next connection tells the supervisor the end that is announced
		}
		return err
	}
	if err := m.announce(ctx, e, next, announce); err != nil {
		return err
	}
	return e.conn.SetEnd(ctx, announce.Expires)
}

// announce has the backend record when a session ends, with a reserve, for other servers.
func (m *Manager) announce(ctx context.Context, e *entry, next, announced execution.SessionInfo) error {
	if err := m.opts.Host.Announce(ctx, announced); err != nil {
		return err
	}
	m.update(e, next, announced)
	return nil
}

// hold makes sure that a session outlasts a call that may still take some time. It
// needs the session's slot and a connection.
func (m *Manager) hold(ctx context.Context, e *entry, timeout time.Duration) {
	now, session := time.Now(), e.current()
	needed := now.Add(timeout + callGrace).Truncate(time.Millisecond)
	if session.Idle == 0 || !needed.After(session.Expires) {
		return
	}
	if renewed := session.Renewed(now); renewed.After(needed) {
		needed = renewed
	}
	if err := m.move(ctx, e, needed, session.Idle); err != nil {
		m.opts.Log.WarnContext(ctx, "the end of a session could not be put off for a call", "error", err)
	}
}

// holding looks after a session until stop is called, so that it outlasts a call that
// takes longer than its timeout: its client may be slow to take or to send a file. It
// needs the session's slot and a connection.
func (m *Manager) holding(ctx context.Context, e *entry) (stop func()) {
	var mu sync.Mutex // stop waits for a look that has begun
	mu.Lock()
	defer mu.Unlock()
	over := false
	var timer *time.Timer
	timer = time.AfterFunc(holdPause, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			m.hold(ctx, e, 0)
			timer.Reset(holdPause)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// renew starts the idle time of a session again, after a call. A session that cannot be
// reached keeps its end. It needs the session's slot.
func (m *Manager) renew(ctx context.Context, e *entry) {
	session := e.current()
	if session.Idle == 0 || e.conn == nil || !e.conn.Usable() || e.ending.Load() {
		return
	}
	if err := m.move(ctx, e, session.Renewed(time.Now()), session.Idle); err != nil {
		m.opts.Log.WarnContext(ctx, "a session could not be renewed", "error", err)
	}
}

// Extend changes the idle time of a session, which starts again. It waits for no call:
// one that is being made starts it when it ends.
func (m *Manager) Extend(ctx context.Context, id string, idle time.Duration) (execution.SessionInfo, error) {
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return execution.SessionInfo{}, err
	}
	defer leave()
	e, err := m.find(ctx, id)
	switch {
	case err != nil:
		return execution.SessionInfo{}, err
	case e.current().Idle == 0:
		return execution.SessionInfo{}, errCannotMove
	case !m.tryAcquireSlot(ctx, e):
		return extendBusy(e, idle), nil
	}
	defer e.callSlot.Release(1)
	defer m.rest(e)
	if err := m.connect(ctx, e); err != nil {
		return execution.SessionInfo{}, asAnswer(ctx, err)
	}
	next := e.current()
	next.Idle = idle
	if err := m.move(ctx, e, next.Renewed(time.Now()), idle); err != nil {
		return execution.SessionInfo{}, asAnswer(ctx, unanswered(err))
	}
	return e.current(), nil
}

// extendBusy changes the idle time of a session that a call is made in. The session
// then ends later than it returns.
func extendBusy(e *entry, idle time.Duration) execution.SessionInfo {
	session := e.setIdle(idle)
	if renewed := session.Renewed(time.Now()); renewed.After(session.Expires) {
		session.Expires = renewed
	}
	return session
}

// asAnswer returns the error of a call for its caller.
func asAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return execution.CancelledError(ctx)
	}
	return execution.AsError(err)
}
