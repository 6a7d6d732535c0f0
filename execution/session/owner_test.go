package session_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/session"
)

// A session is unknown to other owners than its own, also after a restart of the
// server.
func TestOwners(t *testing.T) {
	h := newHost()
	first := newManager(t, h)
	anna, ben := execution.WithOwner(t.Context(), "anna"), execution.WithOwner(t.Context(), "ben")
	info, err := first.Create(anna, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*session.Manager{"the same server": first, "the next server": newManager(t, h)} {
		unknown := strings.Repeat("0", 32)
		_, absent := m.RunPython(ben, unknown, execution.Request{})
		for _, ctx := range []struct {
			name string
			err  func() error
		}{
			{"another's call", func() error { _, err := m.RunPython(ben, info.ID, execution.Request{}); return err }},
			{"a call without an owner", func() error {
				return m.ReadFile(t.Context(), info.ID, execution.ReadRequest{Path: "a"})
			}},
			{"another's end", func() error { return m.Delete(ben, info.ID) }},
		} {
			if err := ctx.err(); !isCode(err, execution.NotFound) || strings.ReplaceAll(err.Error(), info.ID, unknown) != absent.Error() {
				t.Errorf("%s, %s: %v", name, ctx.name, err)
			}
		}
		if list, err := m.List(ben); err != nil || len(list) != 0 {
			t.Errorf("%s: another's list: %v, %v", name, list, err)
		}
		if list, err := m.List(anna); err != nil || len(list) != 1 {
			t.Errorf("%s: the owner's list: %v, %v", name, list, err)
		}
		if _, err := m.RunPython(anna, info.ID, execution.Request{Code: "1"}); err != nil {
			t.Errorf("%s: the owner's call: %v", name, err)
		}
	}
	if len(h.only(t).calls) != 2 {
		t.Errorf("calls that came through: %+v", h.only(t).calls)
	}
}

// Neither the time nor the outcome of a call reveals that a session of another owner
// exists: the host is asked as for an unknown one.
func TestOwnersCannotProbe(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	ben := execution.WithOwner(t.Context(), "ben")
	info, err := m.Create(execution.WithOwner(t.Context(), "anna"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	call := func(id string) error {
		err := m.ReadFile(ben, id, execution.ReadRequest{Path: "a"})
		return err
	}
	end := func(id string) error { return m.Delete(ben, id) }
	for _, fail := range []error{nil, &execution.Error{Code: execution.Unavailable, Message: "the engine is down"}} {
		h.fail = fail
		for what, try := range map[string]func(id string) error{"call": call, "end": end} {
			before := h.asked
			unknown := execution.AsError(try(strings.Repeat("0", 32)))
			between := h.asked
			known := execution.AsError(try(info.ID))
			if between-before != h.asked-between || known.Code != unknown.Code {
				t.Errorf("%s: the host is asked %d times (%q), for an unknown one %d (%q)", what, h.asked-between, known.Code, between-before, unknown.Code)
			}
		}
	}
	h.fail = nil
}

// An owner with many look-ups at once waits for its own only: the host has other
// work.
func TestOwnersAskInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		h.answer = make(chan struct{})
		m := newManager(t, h)
		ask := func(owner execution.Owner) {
			ctx := execution.WithOwner(t.Context(), owner)
			if err := m.ReadFile(ctx, strings.Repeat("0", 32), execution.ReadRequest{Path: "a"}); !isCode(err, execution.NotFound) {
				t.Error(err)
			}
			if err := m.Delete(ctx, strings.Repeat("0", 32)); !isCode(err, execution.NotFound) {
				t.Error(err)
			}
		}
		for range 60 {
			go ask("anna")
		}
		synctest.Wait()
		go ask("ben")
		synctest.Wait()
		if h.asked != 3 {
			t.Errorf("the host is asked %d times at once", h.asked)
		}
		close(h.answer)
		synctest.Wait() // until all have theirs
	})
}

// One owner cannot have all sessions of the limit.
func TestOwnersShareSessions(t *testing.T) {
	h := newHost()
	m := session.New(session.Options{
		Host: h, Limits: limits, Max: 6,
		Spec: func(context.Context) (execution.Spec, error) { return execution.Spec{Image: "sha256:x"}, nil },
	})
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	begin := func(owner execution.Owner) error {
		_, err := m.Create(execution.WithOwner(t.Context(), owner), 0, nil)
		return err
	}
	for range 4 {
		if err := begin("anna"); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin("anna"); !isCode(err, execution.Busy) || !strings.HasPrefix(err.Error(), "you have 4 sessions") {
		t.Errorf("one more: %v", err)
	}
	if err := begin("ben"); err != nil {
		t.Errorf("another: %v", err)
	}
}

// Only its owner can end a session that has expired but still runs.
func TestOwnersOfOverdueSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		anna, ben := execution.WithOwner(t.Context(), "anna"), execution.WithOwner(t.Context(), "ben")
		info, err := m.Create(anna, time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if err := m.Delete(ben, info.ID); !isCode(err, execution.NotFound) {
			t.Errorf("another's end returns %v", err)
		}
		h.only(t)
		if err := m.Delete(anna, info.ID); !isCode(err, execution.NotFound) || len(h.sessions) != 0 {
			t.Errorf("the owner's end returns %v", err)
		}
	})
}
