package session_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/session"
)

// fleet is several servers over the sessions of one host.
type fleet struct {
	*host
	mu      sync.Mutex
	holders map[string]string // the name of a session's holder, by id
	servers map[string]*server
}

// server is one of them. It is its manager's host.
type server struct {
	*fleet
	name    string
	manager *session.Manager
	silent  chan struct{} // when it answers others; nil: at once
	dead    bool          // it answers nobody, and fleet.mu guards that
	lost    bool          // its Lease is over
}

func newFleet(t *testing.T, idle time.Duration, names ...string) *fleet {
	t.Helper()
	f := &fleet{host: newHost(), holders: make(map[string]string), servers: make(map[string]*server)}
	for _, name := range names {
		s := &server{fleet: f, name: name}
		s.manager = session.New(session.Options{
			Host: s, Handover: s, Limits: limits, Max: 9, LinkIdle: idle,
			Spec: func(context.Context) (execution.Spec, error) { return execution.Spec{Image: "sha256:x"}, nil },
		})
		f.servers[name] = s
		t.Cleanup(func() {
			if err := s.manager.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	return f
}

func (f *fleet) of(name string) *session.Manager { return f.servers[name].manager }

func (f *fleet) holder(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.holders[id]
}

func (s *server) Start(ctx context.Context, spec execution.Spec) (execution.Session, error) {
	s.mu.Lock()
	s.holders[spec.Session.ID] = s.name
	s.mu.Unlock()
	return s.host.Start(ctx, spec)
}

// Attach ends all other connections.
func (s *server) Attach(ctx context.Context, id string) (execution.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	holder := s.holders[id]
	if holder != "" && holder != s.name && !s.servers[holder].lost {
		return nil, &execution.HeldError{Session: id, Holder: holder, Peer: holder + ":1"}
	}
	s.holders[id] = s.name
	s.host.mu.Lock()
	for _, l := range s.sessions[id].links {
		l.Detach()
	}
	s.host.mu.Unlock()
	return s.host.Attach(ctx, id)
}

func (s *server) Ask(ctx context.Context, held *execution.HeldError) error {
	s.mu.Lock()
	other := s.servers[held.Holder]
	dead := other.dead
	s.mu.Unlock()
	switch {
	case dead:
		return errors.New("nothing listens")
	case other.silent != nil:
		<-other.silent
	}
	return other.manager.Release(ctx, held.Session)
}

func (s *server) Release(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holders[id] == s.name {
		s.holders[id] = ""
	}
	return nil
}

// waits is a program that says that it has begun, and then waits.
type waits struct{ begun, end chan struct{} }

func newWaits() waits { return waits{make(chan struct{}), make(chan struct{})} }

func (w waits) run(_ context.Context, req execution.Request) (*execution.Result, error) {
	if req.Code == "wait" {
		close(w.begun)
		<-w.end
	}
	return &execution.Result{Stdout: req.Code, Started: time.Now()}, nil
}

// A call on another server takes the session over when the holder's call is over.
func TestHandOverWaitsForACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, program := newFleet(t, 0, "a", "b"), newWaits()
		f.do = program.run
		id := create(t, f.of("a")).ID
		var calls sync.WaitGroup
		calls.Go(func() {
			if _, err := call(t, f.of("a"), id, "wait"); err != nil {
				t.Errorf("the call that was under way: %v", err)
			}
		})
		<-program.begun
		calls.Go(func() {
			if result, err := call(t, f.of("b"), id, "next"); err != nil || result.Stdout != "next" {
				t.Errorf("the call on the other server: %v", err)
			}
		})
		synctest.Wait()
		if holder := f.holder(id); holder != "a" {
			t.Errorf("%q holds the session during a call of a", holder)
		}
		close(program.end)
		calls.Wait()
		if holder := f.holder(id); holder != "b" {
			t.Errorf("%q holds the session, not b", holder)
		}
	})
}

// Calls on all servers at once end, in every session.
func TestHandOverInAllDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a", "b", "c"}
		f := newFleet(t, 0, names...)
		var ids []string
		for _, name := range names {
			ids = append(ids, create(t, f.of(name)).ID)
		}
		var calls sync.WaitGroup
		for i := range 5 {
			for _, id := range ids {
				for _, name := range names {
					calls.Go(func() {
						code := fmt.Sprint(i)
						if result, err := call(t, f.of(name), id, code); err != nil || result.Stdout != code {
							t.Errorf("a call on %s: %v", name, err)
						}
					})
				}
			}
		}
		calls.Wait()
	})
}

// A server that asks for a session answers those that ask it meanwhile: two servers that each take
// the other for the holder do not wait for each other.
func TestServersThatAskEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 0, "a", "b")
		id := create(t, f.of("b")).ID
		f.servers["b"].silent = make(chan struct{})
		calls := make(chan error, 1)
		go func() {
			_, err := call(t, f.of("a"), id, "1")
			calls <- err
		}()
		synctest.Wait()
		if err := f.of("a").Release(t.Context(), id); err != nil {
			t.Error(err)
		}
		close(f.servers["b"].silent)
		if err := <-calls; err != nil {
			t.Error(err)
		}
	})
}

// lose has the host know that a server is gone.
func (f *fleet) lose(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers[name].lost = true
}

// A server that cannot be asked keeps its sessions while its Lease lasts, and no longer.
func TestDeadHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 0, "a", "b")
		id := create(t, f.of("a")).ID
		f.mu.Lock()
		f.servers["a"].dead = true
		f.mu.Unlock()
		if _, err := call(t, f.of("b"), id, "1"); !isCode(err, execution.Unavailable) {
			t.Errorf("the holder may be alive: %v", err)
		}
		f.lose("a")
		if _, err := call(t, f.of("b"), id, "2"); err != nil {
			t.Errorf("the holder is gone: %v", err)
		}
	})
}

// A server that has ended is missed a moment before the host knows that.
func TestHolderEndsMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 0, "a", "b")
		id := create(t, f.of("a")).ID
		f.mu.Lock()
		f.servers["a"].dead = true
		f.mu.Unlock()
		const moment = 3 * time.Second
		time.AfterFunc(moment, func() { f.lose("a") })
		if _, err := call(t, f.of("b"), id, "1"); err != nil {
			t.Error(err)
		}
	})
}

// A server that shuts down hands its sessions over, before and after it has closed its
// connections.
func TestClosingServerHandsOver(t *testing.T) {
	f := newFleet(t, 0, "a", "b")
	first, second := create(t, f.of("a")).ID, create(t, f.of("a")).ID
	if err := f.of("a").Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{first, second} {
		if _, err := call(t, f.of("b"), id, "1"); err != nil {
			t.Error(err)
		}
	}
}

// The connection to a session without calls is closed. The session goes on.
func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, time.Minute, "a")
		id := create(t, f.of("a")).ID
		s := f.only(t)
		time.Sleep(40 * time.Second)
		if _, err := call(t, f.of("a"), id, "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if !s.links[0].Usable() {
			t.Error("the connection is closed before its time")
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if s.links[0].Usable() {
			t.Error("the connection is still open")
		}
		if result, err := call(t, f.of("a"), id, "2"); err != nil || result.Stdout != "2" || f.attached != 1 {
			t.Errorf("the next call: %v, %d connections", err, f.attached)
		}
	})
}

// A call that takes longer than a connection may be idle keeps it.
func TestConnectionsOfLongCallsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, program := newFleet(t, time.Second, "a"), newWaits()
		f.do = program.run
		id := create(t, f.of("a")).ID
		ended := make(chan error, 1)
		go func() {
			_, err := call(t, f.of("a"), id, "wait")
			ended <- err
		}()
		<-program.begun
		time.Sleep(30 * time.Second)
		close(program.end)
		if err := <-ended; err != nil || f.attached != 0 {
			t.Errorf("%v, and %d more connections", err, f.attached)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if f.only(t).links[0].Usable() {
			t.Error("the connection is still open after the call")
		}
	})
}
