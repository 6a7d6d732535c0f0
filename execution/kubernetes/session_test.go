package kubernetes_test

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// An id of a session.
const id = "0123456789abcdef0123456789abcdef"

func sessionSpec() execution.Spec {
	s := spec()
	s.Isolation = execution.IsolationSession
	now := time.Now().Truncate(time.Millisecond)
	s.Session = execution.SessionInfo{ID: id, Owner: "anna", Created: now, Idle: time.Minute, Expires: now.Add(time.Minute), Latest: now.Add(time.Hour)}
	return s
}

func TestSession(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	b := c.backend()
	s := sessionSpec()
	start(t, b, s).Detach()
	p := c.get("pods", "a")
	if label(p, "state") != "session" || label(p, "session") != id || notes(p)["cluster-autoscaler.kubernetes.io/safe-to-evict"] != "false" {
		t.Errorf("the pod is %v", meta(p))
	}
	if deadline := p["spec"].(object)["activeDeadlineSeconds"].(float64); deadline < 3600+50 || deadline > 3600+120 {
		t.Errorf("the deadline is %v", deadline)
	}
	for name, server := range map[string]execution.SessionBackend{"its own server": b, "another server": c.backend()} {
		found, err := server.Find(t.Context(), id)
		if err != nil || !same(found, s.Session) {
			t.Errorf("%s finds %+v, %v", name, found, err)
		}
		owned, err := server.Owned(t.Context(), "anna")
		if err != nil || len(owned) != 1 || !same(owned[0], s.Session) {
			t.Errorf("%s finds of anna %+v, %v", name, owned, err)
		}
		own, all, err := server.Count(t.Context(), "ben", nil)
		if own != 0 || all != 1 || err != nil {
			t.Errorf("%s counts %d and %d, %v", name, own, all, err)
		}
	}
	s.Session.Expires, s.Session.Idle = s.Session.Expires.Add(time.Second), time.Second
	if err := b.Announce(t.Context(), s.Session); err != nil {
		t.Fatal(err)
	}
	if found, err := b.Find(t.Context(), id); err != nil || !same(found, s.Session) {
		t.Errorf("after it was announced it is %+v, %v", found, err)
	}
	if err := b.End(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wantNone(t, b)
	if err := b.End(t.Context(), id); err != nil {
		t.Errorf("ending none gives %v", err)
	}
}

func same(a, b execution.SessionInfo) bool {
	return a.ID == b.ID && a.Owner == b.Owner && a.Idle == b.Idle && a.Created.Equal(b.Created) && a.Expires.Equal(b.Expires) && a.Latest.Equal(b.Latest)
}

// wantNone checks that a backend knows no session id.
func wantNone(t *testing.T, b execution.SessionBackend) {
	t.Helper()
	_, findErr := b.Find(t.Context(), id)
	_, attachErr := b.Attach(t.Context(), id)
	for what, err := range map[string]error{
		"finding": findErr, "attaching": attachErr, "announcing": b.Announce(t.Context(), execution.SessionInfo{ID: id}),
	} {
		if err == nil || execution.AsError(err).Code != execution.NotFound {
			t.Errorf("%s gives %v", what, err)
		}
	}
}

func TestNoSession(t *testing.T) {
	c := newCluster(t)
	over := session("over", id, "me")
	status(over)["phase"] = "Failed"
	c.put("pods", over)
	wantNone(t, c.backend())
}

// A session that the watch has not shown yet is looked for. While the apiserver does not answer, it
// is not known whether there is one.
func TestSessionBeforeTheWatch(t *testing.T) {
	c := newCluster(t)
	b := c.backend()
	wantNone(t, b)
	stop := c.refusing("watch pods", failing(http.StatusServiceUnavailable, "ServiceUnavailable", "not now"))
	defer stop()
	c.cutWatches()
	c.put("pods", session("s", id, "someone"))
	if _, err := b.Find(t.Context(), id); err != nil {
		t.Error(err)
	}
	c.refusing("list pods", failing(http.StatusInternalServerError, "InternalError", "etcd is full"))
	_, err := b.Find(t.Context(), "fedcba9876543210fedcba9876543210")
	wantMessage(t, err, "Kubernetes refused to list pods", "etcd is full")
	if execution.AsError(err).Code != execution.Unavailable {
		t.Errorf("the code is %s", execution.AsError(err).Code)
	}
}

// A session whose holder is alive stays with it.
func TestHeldSession(t *testing.T) {
	c := newCluster(t)
	c.put("leases", lease("other", 0))
	c.put("pods", session("s", id, "other"))
	b := c.backend()
	_, err := b.Attach(t.Context(), id)
	held, ok := errors.AsType[*execution.HeldError](err)
	if !ok || held.Holder != "other" || held.Session != id || held.Peer != "other:8001" {
		t.Fatalf("attaching gives %v", err)
	}
	if execution.AsError(err).Code != execution.Unavailable {
		t.Errorf("the client is told %v", execution.AsError(err))
	}
	if label(c.get("pods", "s"), "holder") != "other" {
		t.Error("the holder has changed")
	}
}

// When a server ends, another one takes its sessions over at once.
func TestTakeOver(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	first, second := c.backend(), c.backend()
	start(t, first, sessionSpec()).Detach()
	i, err := first.Attach(t.Context(), id) // it holds the session already
	if err != nil {
		t.Fatal(err)
	}
	i.Detach()
	c.await("create leases", 1)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	// The second server has begun after the first one's Lease was released.
	i, err = second.Attach(t.Context(), id)
	for errors.As(err, new(*execution.HeldError)) { // until its own Lease is there
		i, err = second.Attach(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer i.Detach()
	if holder := label(c.get("pods", "a"), "holder"); holder != second.InstanceID() {
		t.Errorf("the holder is %s", holder)
	}
	if i.(interface{ Class() string }).Class() != "6.8.0 amd64 userns=true netns=true" {
		t.Error("its class is another")
	}
}

// If several servers want to take a session over, one does.
func TestRaceForASession(t *testing.T) {
	const servers = 4
	c := newCluster(t)
	c.put("pods", session("s", id, "gone"))
	var all sync.WaitGroup
	results := make(chan string, servers)
	for range servers {
		b := c.backend()
		all.Go(func() {
			for {
				i, err := b.Attach(t.Context(), id)
				held, isHeld := errors.AsType[*execution.HeldError](err)
				switch {
				case err == nil:
					i.Detach()
					results <- b.InstanceID()
					return
				case isHeld && held.Holder != "gone":
					results <- held.Holder
					return
				case !isHeld:
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	close(results)
	holder := label(c.get("pods", "s"), "holder")
	for r := range results {
		if r != holder {
			t.Errorf("a server believes that %s is the holder, which is %s", r, holder)
		}
	}
}

// A Lease is there while its server runs, and says where it is.
func TestOwnLease(t *testing.T) {
	c := newCluster(t)
	b := c.backend()
	wantNone(t, b)
	c.await("create leases", 1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if n := c.count("delete leases"); n != 1 {
		t.Errorf("it was released %d times", n)
	}
	if l := c.get("leases", "vivarium-"+b.InstanceID()); l != nil {
		t.Errorf("it is still there: %v", l)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.history {
		if e.resource == "leases" && e.kind == "ADDED" {
			if label(e.object, "pool") != "zoo" || notes(e.object)["vivarium.dev/peer"] != "10.0.0.1:8001" {
				t.Errorf("it was %v", e.object)
			}
			return
		}
	}
	t.Error("there was none")
}

// The sweep deletes pods by their uid.
func TestSweep(t *testing.T) {
	c := newCluster(t)
	over := session("over", id, "other")
	notes(over)["vivarium.dev/expires"] = strconv.FormatInt(time.Now().Add(-time.Hour).UnixMilli(), 10)
	c.put("pods", over)
	c.put("pods", session("lasting", "other-id", "other"))
	c.put("leases", lease("other", 0))
	c.put("leases", lease("ancient", 24*time.Hour))
	c.put("pods", blank("a"))
	b := c.backend()
	i := start(t, b, spec())
	if removed, err := b.Sweep(t.Context()); removed != 1 || err != nil {
		t.Errorf("the first sweep removes %d, %v", removed, err)
	}
	i.Detach()
	stop := c.refusing("delete pods", failing(http.StatusInternalServerError, "InternalError", "no"))
	if removed, err := b.Sweep(t.Context()); removed != 0 || err == nil {
		t.Errorf("a sweep that is refused removes %d, %v", removed, err)
	}
	stop()
	if removed, err := b.Sweep(t.Context()); removed != 1 || err != nil {
		t.Errorf("the last sweep removes %d, %v", removed, err)
	}
	if c.get("pods", "over") != nil || c.get("pods", "a") != nil || c.get("pods", "lasting") == nil {
		t.Errorf("there are %q and %q", c.names("run"), c.names("session"))
	}
	for c.get("leases", "vivarium-ancient") != nil { // as soon as the watch has shown it
		if _, err := b.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if c.get("leases", "vivarium-other") == nil {
		t.Error("the Lease of a server that is alive was deleted")
	}
}
