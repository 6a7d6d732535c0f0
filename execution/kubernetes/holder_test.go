package kubernetes_test

import (
	"errors"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A server knows which other one that is alive holds a session, and releases its own.
func TestHolders(t *testing.T) {
	c := newCluster(t)
	c.put("pods", session("s", id, "other"))
	c.put("leases", lease("other", 0))
	b := c.backend()
	if _, err := b.Attach(t.Context(), id); !errors.As(err, new(*execution.HeldError)) {
		t.Fatal(err)
	}
	want := execution.Peer{Name: "other", Address: "other:8001"}
	if got := b.Holder(id); got != want {
		t.Errorf("the holder is %v", got)
	}
	if got := b.Peer("other"); got != want {
		t.Errorf("the other server is %v", got)
	}
	for _, got := range []execution.Peer{b.Holder("unknown"), b.Peer("unknown"), b.Peer(b.InstanceID()), b.Peer("")} {
		if got != (execution.Peer{}) {
			t.Errorf("%v is no other server", got)
		}
	}
	if err := b.Release(t.Context(), id); err != nil || label(c.get("pods", "s"), "holder") != "other" {
		t.Errorf("it has released the session of another server: %v", err)
	}
}

// A session that its server has released is anyone's.
func TestRelease(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	first, second := c.backend(), c.backend()
	start(t, first, sessionSpec()).Detach()
	if err := first.Release(t.Context(), id); err != nil || label(c.get("pods", "a"), "holder") != "" {
		t.Fatalf("%v, and %q holds the session", err, label(c.get("pods", "a"), "holder"))
	}
	i, err := second.Attach(t.Context(), id)
	for errors.As(err, new(*execution.HeldError)) { // until its watch has shown that
		i, err = second.Attach(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	i.Detach()
	if holder := label(c.get("pods", "a"), "holder"); holder != second.InstanceID() {
		t.Errorf("%q holds the session", holder)
	}
	if err := first.Release(t.Context(), id); err != nil || label(c.get("pods", "a"), "holder") != second.InstanceID() {
		t.Errorf("it has released what it does not hold: %v", err)
	}
}

// A server without an address cannot be asked, so its sessions are taken over.
func TestHolderWithoutAddress(t *testing.T) {
	c := newCluster(t)
	mute := lease("other", 0)
	notes(mute)["vivarium.dev/peer"] = ""
	c.put("pods", session("s", id, "other"))
	c.put("leases", mute)
	i, err := c.backend().Attach(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	i.Detach()
}
