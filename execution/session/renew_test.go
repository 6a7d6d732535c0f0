package session_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/session"
)

// newAging returns a manager of sessions that get no older than a time.
func newAging(t *testing.T, h session.Host, maxAge time.Duration) *session.Manager {
	t.Helper()
	m := session.New(session.Options{
		Host: h, Limits: limits, Max: 2, MaxAge: maxAge,
		Spec: func(context.Context) (execution.Spec, error) { return execution.Spec{Image: "sha256:x"}, nil },
	})
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

func begin(t *testing.T, m *session.Manager, idle time.Duration) execution.SessionInfo {
	t.Helper()
	info, err := m.Create(t.Context(), idle, nil)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// ends checks that the only session ends at a time or a little later, and is announced to:
// by a tenth of its idle time, or 10 s, and not beyond its greatest age.
func ends(t *testing.T, h *host, want time.Time) {
	t.Helper()
	s := h.only(t)
	h.mu.Lock()
	defer h.mu.Unlock()
	latest := want.Add(min(s.info.Idle/10, 10*time.Second))
	if latest.After(s.info.Latest) && !want.After(s.info.Latest) {
		latest = s.info.Latest
	}
	if !s.end.Equal(s.info.Expires) || s.end.Before(want) || s.end.After(latest) {
		t.Errorf("the sandbox ends at %v and is announced to end at %v, not at %v or a little later", s.end, s.info.Expires, want)
	}
}

// end returns when the only session ends.
func (h *host) end(t *testing.T) time.Time {
	t.Helper()
	s := h.only(t)
	h.mu.Lock()
	defer h.mu.Unlock()
	return s.end
}

// Each call renews a session, up to its greatest age.
func TestCallsRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newAging(t, h, 10*time.Second)
		info := begin(t, m, 3*time.Second)
		calls := []func() error{
			func() error { _, err := call(t, m, info.ID, "1"); return err },
			func() error {
				_, err := m.RunBash(t.Context(), info.ID, execution.Command{Command: "true"})
				return err
			},
			func() error {
				return m.WriteFiles(t.Context(), info.ID, execution.WriteRequest{Files: []execution.Input{execution.Inline("a", nil)}})
			},
		}
		for i, call := range calls {
			time.Sleep(2 * time.Second)
			if err := call(); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
			ends(t, h, time.Now().Add(3*time.Second))
		}
		time.Sleep(2 * time.Second) // it is 8 s old
		result, err := call(t, m, info.ID, "1")
		if err != nil || !result.Session.Expires.Equal(info.Created.Add(10*time.Second)) || !result.Session.Ending(time.Now()) {
			t.Errorf("near its end a call returns %+v, %v", result.Session, err)
		}
		ends(t, h, info.Created.Add(10*time.Second))
		time.Sleep(2 * time.Second)
		if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.NotFound) {
			t.Errorf("past its greatest age a call returns %v", err)
		}
	})
}

// Calls that follow each other closely are not announced one by one, neither to other servers
// nor to the supervisor. The end that a client learns is exact all the same.
func TestCloseCallsAreAnnouncedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := begin(t, m, time.Hour)
		for range 40 {
			time.Sleep(500 * time.Millisecond)
			result, err := call(t, m, info.ID, "1")
			if err != nil || !result.Session.Expires.Equal(time.Now().Add(time.Hour)) {
				t.Fatalf("a call returns %+v, %v", result, err)
			}
			ends(t, h, time.Now().Add(time.Hour))
			if list, err := m.List(t.Context()); err != nil || len(list) != 1 || !list[0].Expires.Equal(result.Session.Expires) {
				t.Errorf("it is listed as %+v, %v", list, err)
			}
		}
		if s := h.only(t); s.announced == 0 || s.announced > 3 || s.told != s.announced {
			t.Errorf("40 calls in 20 s are announced %d times, and the supervisor is told %d times", s.announced, s.told)
		}
		time.Sleep(time.Hour)
		if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.NotFound) {
			t.Errorf("at its end, before the announced one: %v", err)
		}
	})
}

// An end that the supervisor did not learn reaches it with the next call, also of another
// server.
func TestUnheardEnd(t *testing.T) {
	for name, other := range map[string]bool{"the same server": false, "another server": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				m := newManager(t, h)
				info := begin(t, m, time.Hour)
				time.Sleep(30 * time.Minute)
				h.only(t).deaf = true
				if _, err := call(t, m, info.ID, "1"); err != nil {
					t.Fatal(err)
				}
				h.only(t).deaf = false
				if other {
					m = newManager(t, h)
				}
				h.only(t).do = func(context.Context, execution.Request) (*execution.Result, error) {
					if left := time.Until(h.end(t)); left < time.Hour {
						t.Errorf("the supervisor ends in %v", left)
					}
					return &execution.Result{Started: time.Now()}, nil
				}
				if _, err := call(t, m, info.ID, "1"); err != nil {
					t.Fatal(err)
				}
				ends(t, h, time.Now().Add(time.Hour))
			})
		})
	}
}

// A supervisor that has learnt an earlier end than the one that is announced, because that
// could not be announced, learns the latter before the next call.
func TestUnannouncedEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := begin(t, m, time.Hour)
		h.only(t).mute = true
		if _, err := m.Extend(t.Context(), info.ID, time.Second); err == nil {
			t.Error("no error")
		}
		h.only(t).mute = false
		if _, err := call(t, m, info.ID, "1"); err != nil {
			t.Fatal(err)
		}
		ends(t, h, time.Now().Add(time.Hour))
	})
}

// A session lasts as long as its calls, even beyond its greatest age.
func TestEndWaitsForACall(t *testing.T) {
	for name, maxAge := range map[string]time.Duration{"idle": time.Hour, "old": 2 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost()
				m := newAging(t, h, maxAge)
				info := begin(t, m, time.Second)
				h.only(t).do = func(context.Context, execution.Request) (*execution.Result, error) {
					for range 1000 {
						time.Sleep(time.Second)
						if !h.end(t).After(time.Now()) {
							return nil, errors.New("the session ends in the middle of a call")
						}
					}
					return &execution.Result{Started: time.Now()}, nil
				}
				result, err := call(t, m, info.ID, "1")
				if err != nil {
					t.Fatal(err)
				}
				want := time.Now().Add(time.Second)
				if name == "old" {
					want = time.Now()
				}
				if !result.Session.Expires.Equal(want) {
					t.Errorf("it then ends at %v, not %v", result.Session.Expires, want)
				}
				ends(t, h, want)
			})
		})
	}
}

// The files that a session begins with may take longer than its idle time.
func TestEndWaitsForFirstFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		h.do = func(context.Context, execution.Request) (*execution.Result, error) {
			time.Sleep(time.Minute)
			if !h.end(t).After(time.Now()) {
				t.Error("it would have ended")
			}
			return &execution.Result{}, nil
		}
		m := newManager(t, h)
		info, err := m.Create(t.Context(), time.Second, []execution.Input{execution.Inline("a", nil)})
		if err != nil || !info.Expires.Equal(time.Now().Add(time.Second)) {
			t.Errorf("it is %+v, %v", info, err)
		}
	})
}

// The idle time can be changed, and starts again.
func TestExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		anna := execution.WithOwner(t.Context(), "anna")
		info, err := m.Create(anna, time.Minute, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, idle := range []time.Duration{time.Hour, time.Second, 2 * time.Second} {
			time.Sleep(500 * time.Millisecond)
			got, err := m.Extend(anna, info.ID, idle)
			if err != nil || !got.Expires.Equal(time.Now().Add(idle)) || got.Idle != idle {
				t.Errorf("%v: it is %+v, %v", idle, got, err)
			}
			ends(t, h, time.Now().Add(idle))
		}
		if _, err := m.Extend(execution.WithOwner(t.Context(), "ben"), info.ID, time.Hour); !isCode(err, execution.NotFound) {
			t.Errorf("another's: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := m.Extend(anna, info.ID, time.Hour); !isCode(err, execution.NotFound) {
			t.Errorf("at its end: %v", err)
		}
	})
}

// It can be changed while a call is made, which then renews by it.
func TestExtendDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := begin(t, m, time.Second)
		h.only(t).do = func(context.Context, execution.Request) (*execution.Result, error) {
			time.Sleep(30 * time.Second)
			return &execution.Result{Started: time.Now()}, nil
		}
		done := make(chan error, 1)
		go func() {
			_, err := call(t, m, info.ID, "1")
			done <- err
		}()
		synctest.Wait()
		got, err := m.Extend(t.Context(), info.ID, time.Hour)
		if err != nil || got.Idle != time.Hour || !got.Expires.Equal(time.Now().Add(time.Hour)) {
			t.Errorf("it is %+v, %v", got, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		ends(t, h, time.Now().Add(time.Hour))
	})
}

// A server believes another one that has renewed a session.
func TestRenewedByAnotherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		first, second := newManager(t, h), newManager(t, h)
		info := begin(t, first, 10*time.Second)
		time.Sleep(9 * time.Second)
		if _, err := second.Extend(t.Context(), info.ID, time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second) // the first one's end and grace are over
		h.only(t).links[0].Detach()
		if _, err := call(t, first, info.ID, "1"); err != nil {
			t.Error(err)
		}
		ends(t, h, time.Now().Add(time.Minute))
	})
}

// A session that an earlier version has started ends when it was said to.
func TestSessionOfAnEarlierVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		info := begin(t, newManager(t, h), time.Minute)
		s := h.only(t)
		s.info.Idle, s.info.Latest = 0, time.Time{}
		m := newManager(t, h)
		time.Sleep(10 * time.Second)
		if _, err := call(t, m, info.ID, "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Extend(t.Context(), info.ID, time.Hour); !isCode(err, execution.Unavailable) {
			t.Errorf("extending it returns %v", err)
		}
		ends(t, h, info.Expires)
	})
}

// A session whose sandbox is frozen is ended by its server.
func TestFrozenSessionIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := begin(t, m, 5*time.Second)
		time.Sleep(4 * time.Second)
		if _, err := call(t, m, info.ID, "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(14 * time.Second)
		h.only(t)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if list := h.list(); len(list) != 0 {
			t.Errorf("%d sessions are left", len(list))
		}
	})
}
