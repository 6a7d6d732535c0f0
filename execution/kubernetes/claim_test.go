package kubernetes_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts a sandbox.
func start(t *testing.T, b execution.Backend, spec execution.Spec) execution.Instance {
	t.Helper()
	i, err := b.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// A claimed pod has this server as its holder, and the Deployment as its owner.
func TestClaim(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	b := c.backend()
	digest, err := b.Resolve(t.Context(), "any")
	if err != nil || digest != "pool/h1" {
		t.Fatalf("the digest is %q, %v", digest, err)
	}
	i := start(t, b, spec())
	defer i.Detach()
	p := c.get("pods", "a")
	if label(p, "state") != "run" || label(p, "holder") != b.InstanceID() || label(p, "pool") != "zoo" {
		t.Errorf("the labels are %v", rawLabels(p))
	}
	if notes(p)["vivarium.dev/key"] != pinOf("a") || notes(p)["cluster-autoscaler.kubernetes.io/safe-to-evict"] != "true" {
		t.Errorf("the annotations are %v", notes(p))
	}
	owners := fmt.Sprint(meta(p)["ownerReferences"])
	if owners != "[map[apiVersion:apps/v1 controller:true kind:Deployment name:blanks uid:deployment-uid]]" {
		t.Errorf("the owners are %s", owners)
	}
	if deadline := p["spec"].(object)["activeDeadlineSeconds"].(float64); deadline < 24*3600+60 || deadline > 24*3600+120 {
		t.Errorf("the deadline is %v", deadline)
	}
	if ready := read(t, i); ready != "ready" {
		t.Errorf("the supervisor says %q", ready)
	}
	if boots := c.booted(); !slices.Equal(boots, []string{"a generation=1"}) {
		t.Errorf("the boots are %q", boots)
	}
}

func (c *cluster) booted() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.boots)
}

func read(t *testing.T, i execution.Instance) string {
	t.Helper()
	buffer := make([]byte, 100)
	n, err := i.Read(buffer)
	if err != nil {
		t.Error(err)
	}
	return string(buffer[:n])
}

// Two servers race for a few pods. No pod is claimed twice.
func TestRace(t *testing.T) {
	const pods, starts = 8, 64
	c := newCluster(t)
	for n := range pods {
		c.put("pods", blank(fmt.Sprintf("pod-%d", n)))
	}
	c.refill = 2*starts - pods
	backends := []execution.Backend{c.backend(), c.backend()}
	var all sync.WaitGroup
	var mu sync.Mutex
	instances := make([]execution.Instance, 0, 2*starts)
	for _, b := range backends {
		for range 8 {
			all.Go(func() {
				for range starts / 8 {
					i, err := b.Start(t.Context(), spec())
					if err != nil {
						t.Error(err)
						return
					}
					if ready := read(t, i); ready != "ready" {
						t.Errorf("the supervisor says %q", ready)
					}
					mu.Lock()
					instances = append(instances, i)
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	boots := c.booted()
	slices.Sort(boots)
	if len(instances) != 2*starts || len(slices.Compact(boots)) != 2*starts {
		t.Errorf("%d sandboxes in %d pods", len(instances), len(slices.Compact(boots)))
	}
	for _, i := range instances {
		i.Detach()
	}
}

// A claim that another server wins is tried with another pod.
func TestConflict(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	b := c.backend()
	if _, err := b.Resolve(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	// The watch shows nothing more: what it has shown is out of date.
	stop := c.refusing("watch pods", failing(http.StatusServiceUnavailable, "ServiceUnavailable", "not now"))
	c.cutWatches()
	c.change("pods", "a", func(o object) { rawLabels(o)["vivarium.dev/state"] = "run" })
	c.put("pods", blank("b"))
	done := make(chan error, 1)
	go func() {
		i, err := b.Start(t.Context(), spec())
		if err == nil {
			i.Detach()
		}
		done <- err
	}()
	c.await("patch pods", 1)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if claimed := c.names("run"); !slices.Equal(claimed, []string{"a", "b"}) {
		t.Errorf("claimed are %q", claimed)
	}
}

// A patch that is refused although nothing has changed is an error, and not a conflict.
func TestRefusedClaim(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	b := c.backend()
	c.refusing("patch pods", failing(http.StatusUnprocessableEntity, "Invalid", "a policy denies it"))
	_, err := b.Start(t.Context(), spec())
	wantMessage(t, err, "Kubernetes refused to patch pods", "a policy denies it")
}

// wantMessage checks an error for what a user reads of it.
func wantMessage(t *testing.T, err error, parts ...string) {
	t.Helper()
	domain, ok := errors.AsType[*execution.Error](err)
	if !ok {
		t.Fatalf("the error is %v", err)
	}
	for _, part := range parts {
		if !strings.Contains(domain.Explain(), part) {
			t.Errorf("%q is not in %q", part, domain.Explain())
		}
	}
}

// A pod that cannot be reached, or whose address belongs to another pod by now, is deleted, and
// another one claimed.
func TestWrongPod(t *testing.T) {
	for name, fault := range map[string]error{"another key": link.ErrPin, "no answer": link.ErrSilent} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.put("pods", blank("wrong"))
			c.deaf["wrong"], c.refill = fault, 1
			start(t, c.backend(), spec()).Detach()
			if claimed := c.names("run"); !slices.Equal(claimed, []string{"refill-0"}) {
				t.Errorf("claimed are %q", claimed)
			}
		})
	}
}

// The pin of a pod decides, not its address.
func TestPin(t *testing.T) {
	c := newCluster(t)
	o := blank("a")
	terminated(o)["message"] = strings.Replace(terminated(o)["message"].(string), pinOf("a"), pinOf("b"), 1)
	c.put("pods", o)
	ctx, cancel := context.WithCancel(t.Context())
	b := c.backend(func(o *kubernetes.Options) {
		o.Dial = func(ctx context.Context, address, pin string) (net.Conn, error) {
			defer cancel() // there is no other pod
			return c.dial(ctx, address, pin)
		}
	})
	if _, err := b.Start(ctx, spec()); !errors.Is(err, link.ErrPin) {
		t.Errorf("the error is %v", err)
	}
	if c.get("pods", "a") != nil {
		t.Error("the pod is still there")
	}
}

// A start that gets no blank until its context ends says why there is none.
func TestNoBlank(t *testing.T) {
	c := newCluster(t)
	b := c.backend()
	if _, err := b.Owned(t.Context(), ""); err != nil { // it has seen that there is none
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Start(ctx, spec())
	wantMessage(t, err, `0 of 4 blank pods of Deployment "blanks" in the namespace "boxes" are ready`)
}

// A blank on a node without user namespaces serves no runs in inner sandboxes.
func TestNodeWithoutNamespaces(t *testing.T) {
	c := newCluster(t)
	poor := blank("poor")
	terminated(poor)["message"] = strings.Replace(terminated(poor)["message"].(string), `"userns":true`, `"userns":false`, 1)
	c.put("pods", poor)
	c.put("pods", blank("rich"))
	b := c.backend()
	start(t, b, spec()).Detach()
	if claimed := c.names("run"); !slices.Equal(claimed, []string{"rich"}) {
		t.Errorf("claimed are %q", claimed)
	}
	single := spec()
	single.Isolation = execution.IsolationContainer
	start(t, b, single).Detach()
}

// What the server sends depends on the pod's node. It starts no sandbox on a node for which there is nothing.
func TestBootDependsOnTheNode(t *testing.T) {
	c := newCluster(t)
	bare := func(name, arch string) object {
		o := blank(name)
		facts := strings.Replace(terminated(o)["message"].(string), `"seccomp":true`, `"seccomp":false`, 1)
		terminated(o)["message"] = strings.Replace(facts, "amd64", arch, 1)
		return o
	}
	c.put("pods", bare("bare", "arm64"))
	b := c.backend(func(o *kubernetes.Options) {
		o.Boot = func(_ execution.Spec, facts link.Facts) (link.Boot, error) {
			switch {
			case facts.Arch == "riscv64":
				return link.Boot{}, errors.New("no filter for it")
			case facts.Seccomp:
				return link.Boot{}, nil
			}
			return link.Boot{Filter: []byte(facts.Arch[:1])}, nil
		}
	})
	for _, next := range []object{blank("filtered"), bare("odd", "riscv64")} {
		i := start(t, b, spec())
		if ready := read(t, i); ready != "ready" {
			t.Errorf("the supervisor says %q", ready)
		}
		i.Detach()
		c.put("pods", next)
	}
	if boots := c.booted(); !slices.Equal(boots, []string{"bare generation=1 filter=61", "filtered generation=1"}) {
		t.Errorf("the boots are %q", boots)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		c.await("delete pods", 1)
		cancel()
	}()
	if _, err := b.Start(ctx, spec()); err == nil || !strings.Contains(err.Error(), "no filter for it") {
		t.Errorf("the error is %v", err)
	}
}
