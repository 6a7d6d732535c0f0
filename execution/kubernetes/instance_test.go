package kubernetes_test

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A reset keeps the pod, and begins a new generation.
func TestReset(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	b := c.backend()
	i := start(t, b, spec())
	if ready := read(t, i); ready != "ready" {
		t.Errorf("it says %q", ready)
	}
	for range 2 {
		next, err := i.(interface {
			Reset(ctx context.Context) (execution.Instance, error)
		}).Reset(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := i.Read(make([]byte, 1)); err == nil {
			t.Errorf("the old stream goes on with %d bytes", n)
		}
		if ready := read(t, next); ready != "ready" {
			t.Errorf("it says %q", ready)
		}
		i = next
	}
	i.Detach()
	if boots := c.booted(); !slices.Equal(boots, []string{"a generation=1", "a generation=2", "a generation=3"}) {
		t.Errorf("the boots are %q", boots)
	}
	if n := c.count("patch pods") + c.count("delete pods"); n != 1 {
		t.Errorf("it took %d requests", n)
	}
}

// Destroy returns when the pod is gone, whoever has deleted it.
func TestDestroy(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	c.refill = 2
	b := c.backend()
	i := start(t, b, spec())
	for range 2 {
		if err := i.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if left := c.names("run"); len(left) > 0 {
		t.Errorf("there are still %q", left)
	}
	i = start(t, b, spec())
	c.remove("pods", c.names("run")[0])
	if err := i.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	c.linger = true
	i = start(t, b, spec())
	name := c.names("run")[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := i.Destroy(ctx); err == nil {
		t.Error("Destroy does not wait")
	}
	c.await("delete pods", 3)
	for range 3 { // each PID 1 ends at once, so that no server waits for the kubelet
		<-c.ended
	}
	<-doomed(i)
	c.remove("pods", name)
	if err := i.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

func doomed(i execution.Instance) <-chan struct{} {
	return i.(interface{ Doomed() <-chan struct{} }).Doomed()
}

func postmortem(t *testing.T, i execution.Instance) (why string, memory bool) {
	t.Helper()
	return i.(execution.Postmortem).Postmortem(t.Context())
}

// Of a pod that goes on nothing is reported.
func TestPostmortemOfAPodThatRuns(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	i := start(t, c.backend(), spec())
	defer i.Detach()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if why, memory := i.(execution.Postmortem).Postmortem(ctx); why != "" || memory {
		t.Errorf("it ended because %q, memory %v", why, memory)
	}
}

// A pod whose deletion fails is deleted by the sweep.
func TestDestroyLater(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	b := c.backend()
	i := start(t, b, spec())
	stop := c.refusing("delete pods", failing(http.StatusInternalServerError, "InternalError", "etcd is full"))
	wantMessage(t, i.Destroy(t.Context()), "Kubernetes refused to delete pods", "etcd is full")
	stop()
	if removed, err := b.Sweep(t.Context()); removed != 1 || err != nil {
		t.Errorf("the sweep removes %d, %v", removed, err)
	}
	if removed, err := b.Sweep(t.Context()); removed != 0 || err != nil {
		t.Errorf("the next sweep removes %d, %v", removed, err)
	}
}

func endedBy(reason string, code int) object {
	return object{"terminated": object{"reason": reason, "exitCode": code}}
}

// containerIs changes what the kubelet reports of the sandbox's container.
func containerIs(report object) func(object) {
	report["name"] = "sandbox"
	return func(o object) { status(o)["containerStatuses"] = []any{report} }
}

// What the kubelet reports after the end of the stream tells why.
func TestPostmortem(t *testing.T) {
	for name, test := range map[string]struct {
		happen func(c *cluster)
		why    string
		memory bool
	}{
		"memory": {func(c *cluster) {
			// With memory.oom.group the whole container ends. The kubelet starts it again, and it ends because its key is gone.
			c.change("pods", "a", containerIs(object{"state": endedBy("OOMKilled", 137)}))
			c.change("pods", "a", containerIs(object{"state": object{"running": object{}}, "lastState": endedBy("OOMKilled", 137), "restartCount": 1}))
			c.change("pods", "a", containerIs(object{"state": endedBy("Error", 42), "lastState": endedBy("OOMKilled", 137), "restartCount": 1}))
		}, "all of it was killed, since it used more memory than its pod may", true},
		"memory of a program, then another end": {func(c *cluster) {
			// With singleProcessOOMKill the container goes on, and PID 1 reports how the program has ended.
			c.change("pods", "a", containerIs(object{"state": object{"running": object{}}, "restartCount": 0}))
			c.change("pods", "a", containerIs(object{"state": endedBy("Error", 1), "restartCount": 0}))
		}, "its PID 1 ended with status 1", false},
		"eviction": {func(c *cluster) {
			c.change("pods", "a", func(o object) {
				status(o)["reason"], status(o)["message"], status(o)["phase"] = "Evicted", "The node was low on resource: memory.", "Failed"
			})
		}, "its node evicted the pod (The node was low on resource: memory.)", false},
		"deletion": {func(c *cluster) { c.remove("pods", "a") }, "the pod was deleted", false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.put("pods", blank("a"))
			i := start(t, c.backend(), spec())
			defer i.Detach()
			go test.happen(c)
			if why, memory := postmortem(t, i); why != test.why || memory != test.memory {
				t.Errorf("it ended because %q, memory %v", why, memory)
			}
		})
	}
}

func TestDoomed(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	i := start(t, c.backend(), spec())
	defer i.Detach()
	select {
	case <-doomed(i):
		t.Error("it is doomed from the beginning")
	default:
	}
	c.change("pods", "a", func(o object) {
		status(o)["conditions"] = []any{object{"type": "Ready", "status": "True"}, object{"type": "DisruptionTarget", "status": "True", "message": "Taint manager: deleting due to NoExecute taint"}}
	})
	<-doomed(i)
}
