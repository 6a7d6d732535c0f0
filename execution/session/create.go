package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Create starts a session with files in its workspace. It ends when no call was made for
// idle, where zero means [DefaultTTL], or at its greatest age.
func (m *Manager) Create(ctx context.Context, idle time.Duration, files []execution.Input) (execution.SessionInfo, error) {
	if idle == 0 {
		idle = DefaultTTL
	}
	request, err := execution.WriteRequest{Files: files}.Validate(ctx, m.opts.Limits)
	if err != nil {
		return execution.SessionInfo{}, err
	}
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return execution.SessionInfo{}, err
	}
	defer leave()
	id := execution.NewID()
	if err := m.reserve(ctx, id); err != nil {
		return execution.SessionInfo{}, err
	}
	defer m.unreserve(id)
	info, conn, err := m.start(ctx, id, idle)
	if err != nil {
		return execution.SessionInfo{}, asUnavailable(ctx, err)
	}
	e := m.adopt(info, conn) //nolint:contextcheck // its end has nothing to do with this call
	if e != nil && len(files) > 0 {
		err = m.stage(ctx, e, request)
	}
	if e == nil || err != nil || ctx.Err() != nil {
		conn.Detach() // no client would know of it
		if e != nil {
			m.forget(e)
		}
		return execution.SessionInfo{}, errors.Join(unstaged(ctx, err), m.end(ctx, id))
	}
	return e.current(), nil
}

// stage writes the first files of a session. The idle time starts when they are there.
func (m *Manager) stage(ctx context.Context, e *entry, request execution.WriteRequest) error {
	if err := m.acquireSlot(ctx, e); err != nil {
		return err
	}
	defer e.callSlot.Release(1)
	m.hold(ctx, e, m.fileTime())
	stop := m.holding(ctx, e)
	err := e.conn.WriteFiles(ctx, request, m.opts.Limits)
	stop()
	m.renew(ctx, e)
	m.rest(e)
	return err
}

// reserve takes a place for a session, unless there is none. The host may know a session
// that is being started, or not yet: it does not count those.
func (m *Manager) reserve(ctx context.Context, id string) error {
	m.mu.Lock()
	starting := maps.Clone(m.starting)
	m.mu.Unlock()
	owner := execution.OwnerOf(ctx)
	own, all, err := m.opts.Host.Count(ctx, owner, slices.Collect(maps.Keys(starting)))
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(starting, m.starting)
	for _, other := range starting {
		all++
		if other == owner {
			own++
		}
	}
	switch {
	case all >= m.opts.Max && owner == "":
		return &execution.Error{Code: execution.Busy, Message: fmt.Sprintf(
			"session limit reached (%d, MAX_SESSIONS); end one, or wait until one expires", all)}
	case !execution.HasRoom(owner, int64(own), int64(all), int64(m.opts.Max), 1):
		return &execution.Error{Code: execution.Busy, Message: fmt.Sprintf(
			"you have %d sessions, your share of the limit at the moment (MAX_SESSIONS); end one, or wait until one expires", own)}
	}
	m.starting[id] = owner
	return nil
}

func (m *Manager) unreserve(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.starting, id)
}

func (m *Manager) start(ctx context.Context, id string, idle time.Duration) (execution.SessionInfo, execution.Session, error) {
	spec, err := m.opts.Spec(ctx)
	if err != nil {
		return execution.SessionInfo{}, nil, err
	}
	spec.Isolation = execution.IsolationSession
	now := time.Now().Truncate(time.Millisecond)
	spec.Session = execution.SessionInfo{ID: id, Owner: execution.OwnerOf(ctx), Created: now, Idle: idle, Latest: now.Add(m.opts.MaxAge)}
	spec.Session.Expires = spec.Session.Renewed(now)
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	conn, err := m.opts.Host.Start(ctx, spec)
	return spec.Session, conn, err
}

// asUnavailable returns the error of a session that could not be started.
func asUnavailable(ctx context.Context, err error) error {
	if _, known := errors.AsType[*execution.Error](err); known {
		return err
	}
	if ctx.Err() != nil {
		return execution.CancelledError(ctx)
	}
	return &execution.Error{Code: execution.Unavailable, Message: "no session could be started; try again", Err: err}
}

// unstaged returns the error of a session that did not take its files or, where err
// is nil, whose caller has left.
func unstaged(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil || err == nil:
		return execution.CancelledError(ctx)
	case errors.Is(err, execution.ErrNotStarted):
		return asUnavailable(ctx, err)
	}
	return execution.AsError(err)
}
