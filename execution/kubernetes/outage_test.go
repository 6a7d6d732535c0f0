package kubernetes_test

import (
	"net/http"
	"testing"
)

// Sandboxes that are there serve on though all blanks are used up, or nothing is known of the pool any more.
func TestResolveWithoutABlank(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	b := c.backend()
	if _, err := b.Resolve(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	defer start(t, b, spec()).Detach()
	c.refusing("get deployments", failing(http.StatusServiceUnavailable, "ServiceUnavailable", "not now"))
	if digest, err := b.Resolve(t.Context(), ""); digest != "pool/h1" || err != nil {
		t.Errorf("with no blank the template is %q, %v", digest, err)
	}
}
