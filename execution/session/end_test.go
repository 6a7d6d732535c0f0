package session_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A call that waits while its session ends fails with NotFound, and leaves no
// connection behind.
func TestDeletedWhileCallsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := create(t, m)
		h.only(t).do = func(context.Context, execution.Request) (*execution.Result, error) {
			time.Sleep(time.Second)
			return &execution.Result{Started: time.Now()}, nil
		}
		waited := make(chan error, 1)
		go func() { _, _ = call(t, m, info.ID, "1") }()
		synctest.Wait()
		go func() {
			_, err := call(t, m, info.ID, "2")
			waited <- err
		}()
		synctest.Wait()
		if err := m.Delete(t.Context(), info.ID); err != nil {
			t.Fatal(err)
		}
		if err := <-waited; !isCode(err, execution.NotFound) || !strings.HasPrefix(err.Error(), "Session '") {
			t.Errorf("the call that waited returns %v", err)
		}
	})
}

// A host that is slow to end a session delays no call: the result of the call that the
// end cuts short explains that, and the call that waits is not tried.
func TestDeletedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &slowEnd{host: newHost(), begun: make(chan struct{})}
		m := newManagerOf(t, h)
		info := create(t, m)
		s := h.only(t)
		s.do = func(context.Context, execution.Request) (*execution.Result, error) {
			<-h.begun // the sandbox is killed
			s.links[0].Detach()
			return &execution.Result{Started: time.Now(), End: execution.End{Reason: execution.SandboxLost}}, nil
		}
		first, second := make(chan *execution.Result, 1), make(chan error, 1)
		go func() {
			result, _ := call(t, m, info.ID, "1")
			first <- result
		}()
		synctest.Wait()
		go func() {
			_, err := call(t, m, info.ID, "2")
			second <- err
		}()
		synctest.Wait()
		deleted := make(chan error, 1)
		go func() { deleted <- m.Delete(t.Context(), info.ID) }()
		if result := <-first; result == nil || result.End.Message != "the session was ended" {
			t.Errorf("the call that was cut short returns %+v", result)
		}
		if err := <-second; !isCode(err, execution.NotFound) {
			t.Errorf("the call that waited returns %v", err)
		}
		if len(s.links) != 1 || len(s.calls) != 1 {
			t.Errorf("there were %d connections and %d calls", len(s.links), len(s.calls))
		}
		select {
		case err := <-deleted:
			t.Errorf("it returned before its host: %v", err)
		default:
		}
		if err := <-deleted; err != nil {
			t.Error(err)
		}
	})
}

// A session that could not be ended goes on.
func TestDeletedInVain(t *testing.T) {
	h := &slowEnd{host: newHost(), begun: make(chan struct{}), fault: errors.New("the engine hangs")}
	m := newManagerOf(t, h)
	info := create(t, m)
	if err := m.Delete(t.Context(), info.ID); err == nil {
		t.Error("no error")
	}
	if _, err := call(t, m, info.ID, "1"); err != nil {
		t.Error(err)
	}
}

// A session that is deleted while it is attached to keeps no connection.
func TestDeletedWhileAttaching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &slowHost{host: newHost(), takes: time.Second}
		m := newManagerOf(t, h)
		info := create(t, m)
		s := h.only(t)
		s.links[0].Detach()
		called := make(chan error, 1)
		go func() {
			_, err := call(t, m, info.ID, "1")
			called <- err
		}()
		synctest.Wait()
		if err := m.Delete(t.Context(), info.ID); err != nil {
			t.Fatal(err)
		}
		if err := <-called; !isCode(err, execution.NotFound) {
			t.Errorf("the call returns %v", err)
		}
		if len(s.links) != 2 || s.links[1].Usable() || len(s.calls) != 0 {
			t.Errorf("of %d connections the last is still there, or was used for %d calls", len(s.links), len(s.calls))
		}
	})
}

// Closing waits for calls, then ends them; the sessions go on.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := create(t, m)
		h.only(t).do = func(ctx context.Context, _ execution.Request) (*execution.Result, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		called := make(chan error, 1)
		go func() {
			_, err := call(t, m, info.ID, "1")
			called <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := m.Close(ctx); err == nil || time.Since(began) != time.Minute {
			t.Errorf("closing returns %v after %v", err, time.Since(began))
		}
		if err := <-called; !isCode(err, execution.Unavailable) {
			t.Errorf("the call returns %v", err)
		}
		if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.Unavailable) {
			t.Errorf("a call afterwards returns %v", err)
		}
		if h.only(t).links[0].Usable() {
			t.Error("the connection is still there")
		}
	})
}

// Calls that ignore their end delay closing for a bounded time, and leave no
// connection behind.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &slowHost{host: newHost()}
		m := newManagerOf(t, h)
		busy, lost := create(t, m), create(t, m)
		h.sessions[busy.ID].do = func(context.Context, execution.Request) (*execution.Result, error) {
			time.Sleep(time.Hour)
			return &execution.Result{Started: time.Now()}, nil
		}
		h.takes = time.Hour
		h.sessions[lost.ID].links[0].Detach()
		var calls sync.WaitGroup
		for _, id := range []string{busy.ID, lost.ID} {
			calls.Go(func() {
				if _, err := call(t, m, id, "1"); id == lost.ID && !isCode(err, execution.Unavailable) {
					t.Errorf("the call over a connection that comes too late returns %v", err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := m.Close(ctx); err == nil || time.Since(began) != time.Minute+20*time.Second {
			t.Errorf("closing returns %v after %v", err, time.Since(began))
		}
		calls.Wait()
		for _, l := range append(h.sessions[busy.ID].links, h.sessions[lost.ID].links...) {
			if l.Usable() {
				t.Error("a connection is still there")
			}
		}
	})
}

// With nothing under way, closing takes no time and finds nothing wrong.
func TestCloseIdle(t *testing.T) {
	m := newManager(t, newHost())
	create(t, m)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Close(over); err != nil {
		t.Error(err)
	}
}
