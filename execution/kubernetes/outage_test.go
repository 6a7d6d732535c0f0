package kubernetes_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
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

// A server whose link to a session was ended from the other end does not take the session back from another server
// of which it does not know yet.
func TestLostLink(t *testing.T) {
	c := newCluster(t)
	var far net.Conn
	b := c.backend(func(o *kubernetes.Options) {
		o.Dial = func(context.Context, string, string) (near net.Conn, _ error) {
			near, far = net.Pipe()
			return near, nil
		}
	})
	c.put("leases", lease("other", 0))
	c.put("pods", session("s", id, b.InstanceID()))
	attach := func() execution.Instance {
		t.Helper()
		i, err := b.Attach(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	attach().Detach()
	i := attach()
	stop := c.refusing("watch pods", failing(http.StatusServiceUnavailable, "ServiceUnavailable", "not now"))
	defer stop()
	c.cutWatches()
	c.change("pods", "s", func(o object) { rawLabels(o)["vivarium.dev/holder"] = "other" })
	_ = far.Close()
	if _, err := i.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	i.Detach()

	answer := c.refusing("get pods", failing(http.StatusServiceUnavailable, "ServiceUnavailable", "not now"))
	if _, err := b.Attach(t.Context(), id); execution.AsError(err).Code != execution.Unavailable || errors.As(err, new(*execution.HeldError)) {
		t.Errorf("while nobody knows the holder, attaching gives %v", err)
	}
	answer()
	if _, err := b.Attach(t.Context(), id); !errors.As(err, new(*execution.HeldError)) {
		t.Errorf("attaching gives %v", err)
	}
	c.remove("pods", "s")
}

// A caller who leaves while its claim is under way leaves no pod behind that is claimed.
func TestCallerLeavesDuringAClaim(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	ctx, leave := context.WithCancel(t.Context())
	target, err := url.Parse(c.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == http.MethodPatch { // it has taken effect, and its answer is on the way
			leave()
		}
		return nil
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	b := c.backend(func(o *kubernetes.Options) {
		o.Kubeconfig = filepath.Join(t.TempDir(), "config")
		c.writeConfig(o.Kubeconfig, front.URL, "")
	})
	if i, err := b.Start(ctx, spec()); err == nil {
		i.Detach()
		t.Error("a caller who has left gets a sandbox")
	}
	c.await("delete pods", 1)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	c.cutWatches()
}
