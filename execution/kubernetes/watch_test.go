package kubernetes_test

import (
	"fmt"
	"net/http"
	"testing"
)

// A server follows its pods through everything that may end a watch.
func TestWatch(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("first"))
	b := c.backend()
	start(t, b, spec()).Detach()
	for n, happen := range []func(){
		c.bookmark,
		c.cutWatches,
		func() { // the version is too old to go on (410)
			c.compact()
			c.cutWatches()
		},
		func() {
			stop := c.refusing("watch pods", failing(http.StatusTooManyRequests, "TooManyRequests", "later"))
			before := c.count("watch pods")
			c.cutWatches()
			c.await("watch pods", before+1)
			stop()
		},
	} {
		happen()
		c.put("pods", blank(fmt.Sprintf("pod-%d", n)))
		start(t, b, spec()).Detach()
	}
	if left := c.names("free"); len(left) > 0 {
		t.Errorf("still free are %q", left)
	}
}

// A pod that goes while there is no watch is gone when there is one again.
func TestWatchMisses(t *testing.T) {
	c := newCluster(t)
	c.put("pods", session("s", id, "other"))
	b := c.backend()
	if _, err := b.Find(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	stop := c.refusing("watch pods", failing(http.StatusInternalServerError, "InternalError", "no"))
	c.cutWatches()
	c.remove("pods", "s")
	c.compact()
	stop()
	c.put("pods", blank("a"))
	start(t, b, spec()).Detach() // the new list is there
	wantNone(t, b)
}
