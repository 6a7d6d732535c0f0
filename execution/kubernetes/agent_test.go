package kubernetes_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
)

// withAgent adds agent-sandbox to a cluster: a warm pool with its template, and a controller. That gives a claim a
// blank of the pool, or a new one, which is what its real one does within some milliseconds.
func withAgent(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	c.serveGroup(c.mux, "/apis/extensions.agents.x-k8s.io/v1beta1")
	c.serveGroup(c.mux, "/apis/agents.x-k8s.io/v1beta1")
	c.remove("deployments", "blanks")
	spec := deployment()["spec"].(object)["template"].(object)["spec"].(object)
	spec["restartPolicy"] = "Never"
	c.put("sandboxtemplates", clone(object{
		"kind": "SandboxTemplate", "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
		"metadata": object{"name": "template", "namespace": "boxes"},
		"spec": object{"networkPolicyManagement": "Unmanaged", "podTemplate": object{
			"metadata": object{"labels": object{"vivarium.dev/pool": "zoo", "pod-template-hash": "h1"}}, "spec": spec,
		}},
	}))
	c.put("sandboxwarmpools", clone(object{
		"kind": "SandboxWarmPool", "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
		"metadata": object{"name": "blanks", "namespace": "boxes", "uid": "warm-uid"},
		"spec":     object{"replicas": 4, "sandboxTemplateRef": object{"name": "template"}},
		"status":   object{"observedGeneration": 1},
	}))
	c.agent = func(verb string, claim object) {
		name := nameOf(claim)
		if verb == "delete" {
			for pod, o := range c.objects["pods"] {
				if notes(o)["vivarium.dev/claim"] == name {
					c.removeLocked("pods", pod)
				}
			}
			return
		}
		given := warm("cold-" + name)
		for _, o := range c.objects["pods"] {
			if label(o, "state") == "" && notes(o)["vivarium.dev/claim"] == nil && strings.HasPrefix(nameOf(o), "warm") {
				given = clone(o)
				break
			}
		}
		maps.Copy(notes(given), claim["spec"].(object)["additionalPodMetadata"].(object)["annotations"].(object))
		c.putLocked("pods", given, "MODIFIED")
	}
	return c
}

// warm returns a blank of a warm pool that is ready.
func warm(name string) object {
	o := blank(name)
	delete(rawLabels(o), "vivarium.dev/state")
	rawLabels(o)["agents.x-k8s.io/sandbox-name-hash"] = "12345678"
	return o
}

func agentBackend(c *cluster) *kubernetes.Backend {
	return c.backend(func(o *kubernetes.Options) { o.AgentSandbox = true })
}

func (c *cluster) claims() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.objects["sandboxclaims"] {
		names = append(names, name)
	}
	return names
}

// A claimed pod has this server as its holder, and stays its Sandbox's. Its claim ends with it, and at the deadline.
func TestAgentClaim(t *testing.T) {
	c := withAgent(t)
	c.put("pods", warm("warm-a"))
	b := agentBackend(c)
	if digest, err := b.Resolve(t.Context(), "any"); err != nil || digest != "pool/h1" {
		t.Fatalf("the digest is %q, %v", digest, err)
	}
	i := start(t, b, spec())
	p := c.get("pods", "warm-a")
	if label(p, "state") != "run" || label(p, "holder") != b.InstanceID() || label(p, "pool") != "zoo" {
		t.Errorf("the labels are %v", rawLabels(p))
	}
	if !strings.Contains(fmt.Sprint(meta(p)["ownerReferences"]), "ReplicaSet") || p["spec"].(object)["activeDeadlineSeconds"] == nil {
		t.Errorf("the owners are %v, the deadline %v", meta(p)["ownerReferences"], p["spec"].(object)["activeDeadlineSeconds"])
	}
	claim := c.get("sandboxclaims", notes(p)["vivarium.dev/claim"].(string))
	if owners := fmt.Sprint(meta(claim)["ownerReferences"]); !strings.Contains(owners, "uid:warm-uid") {
		t.Errorf("the owners of the claim are %s", owners)
	}
	life := claim["spec"].(object)["lifecycle"].(object)
	end, err := time.Parse(time.RFC3339, life["shutdownTime"].(string))
	if err != nil || time.Until(end) < 24*time.Hour || life["shutdownPolicy"] != "Delete" || life["ttlSecondsAfterFinished"] != 20.0 {
		t.Errorf("the life is %v", life)
	}
	if ready := read(t, i); ready != "ready" {
		t.Errorf("the supervisor says %q", ready)
	}
	if err := i.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	if left := c.claims(); len(left) != 0 || c.get("pods", "warm-a") != nil || c.count("delete pods") != 0 {
		t.Errorf("after the end there are claims %q", left)
	}
}

// Where the pool has none, a claim gets a new pod.
func TestAgentCold(t *testing.T) {
	c := withAgent(t)
	b := agentBackend(c)
	if digest, err := b.Resolve(t.Context(), "any"); err != nil || digest != "pool/h1" {
		t.Fatalf("the digest is %q, %v", digest, err)
	}
	i := start(t, b, spec())
	defer i.Detach()
	if ready := read(t, i); ready != "ready" {
		t.Errorf("the supervisor says %q", ready)
	}
	if boots := c.booted(); len(boots) != 1 || !strings.HasPrefix(boots[0], "cold-") {
		t.Errorf("the boots are %q", boots)
	}
}

// Claims at the same time get pods of their own.
func TestAgentBurst(t *testing.T) {
	const starts = 32
	c := withAgent(t)
	for n := range starts / 2 {
		c.put("pods", warm(fmt.Sprintf("warm-%d", n)))
	}
	backends := []*kubernetes.Backend{agentBackend(c), agentBackend(c)}
	var all sync.WaitGroup
	for n := range starts {
		all.Go(func() {
			i, err := backends[n%2].Start(t.Context(), spec())
			if err != nil {
				t.Error(err)
				return
			}
			if ready := read(t, i); ready != "ready" {
				t.Errorf("the supervisor says %q", ready)
			}
			i.Detach()
		})
	}
	all.Wait()
	boots := c.booted()
	slices.Sort(boots)
	if len(slices.Compact(boots)) != starts {
		t.Errorf("%d boots: %q", len(boots), boots)
	}
}

// A session is found by its labels, and ends with its claim.
func TestAgentSession(t *testing.T) {
	c := withAgent(t)
	c.put("pods", warm("warm-a"))
	b := agentBackend(c)
	s := spec()
	s.Isolation, s.Session = execution.IsolationSession, execution.SessionInfo{ID: "s1", Owner: "anna", Expires: time.Now().Add(time.Hour), Latest: time.Now().Add(time.Hour)}
	start(t, b, s).Detach()
	if notes(c.get("pods", "warm-a"))["cluster-autoscaler.kubernetes.io/safe-to-evict"] != "false" {
		t.Errorf("the annotations are %v", notes(c.get("pods", "warm-a")))
	}
	other := agentBackend(c)
	if _, all, err := other.Count(t.Context(), "anna", nil); err != nil || all != 1 {
		t.Errorf("%d sessions, %v", all, err)
	}
	if err := other.End(t.Context(), "s1"); err != nil || len(c.claims()) != 0 {
		t.Errorf("claims %q, %v", c.claims(), err)
	}
}

// A claim that gets no pod, or one that cannot be reached, is deleted.
func TestAgentGivesUp(t *testing.T) {
	for name, test := range map[string]struct {
		agent func(c *cluster, claim object)
		says  string
	}{
		"no controller": {func(*cluster, object) {}, "must run in this cluster, with --extensions"},
		"quota": {func(c *cluster, claim object) {
			claim["status"] = object{"conditions": []any{object{
				"type": "Ready", "status": "False", "reason": "ReconcilerError", "message": "Error seen: pods is forbidden: exceeded quota: q",
			}}}
			c.putLocked("sandboxclaims", claim, "MODIFIED")
		}, `a ResourceQuota of the namespace "boxes" is used up, so that SandboxWarmPool "blanks" has no blank pod`},
		"waits": {func(c *cluster, claim object) {
			claim["status"] = object{"conditions": []any{object{"type": "Ready", "status": "False", "reason": "DependenciesNotReady", "message": "x"}}}
			c.putLocked("sandboxclaims", claim, "MODIFIED")
		}, `pod "cold" in the namespace "boxes" does not start: no node takes it (0/1 nodes are available)`},
		"ends": {func(c *cluster, claim object) {
			o := warm("cold-" + nameOf(claim))
			notes(o)["vivarium.dev/claim"] = nameOf(claim)
			status(o)["phase"] = "Failed"
			c.putLocked("pods", o, "ADDED")
		}, "pods end while they are claimed"},
	} {
		t.Run(name, func(t *testing.T) {
			c := withAgent(t)
			normal := c.agent
			c.agent = func(verb string, claim object) {
				if verb == "create" {
					test.agent(c, claim)
					return
				}
				normal(verb, claim)
			}
			if name == "waits" {
				o := warm("cold")
				status(o)["conditions"] = []any{object{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}}
				c.put("pods", o)
			}
			b := agentBackend(c)
			if _, err := b.Resolve(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { // a caller leaves while the claim waits
				c.await("create sandboxclaims", 1)
				if name != "ends" {
					cancel()
				}
			}()
			_, err := b.Start(ctx, spec())
			wantMessage(t, err, test.says)
			if left := c.claims(); len(left) != 0 {
				t.Errorf("claims are left: %q", left)
			}
		})
	}
}

// The sweep deletes claims that no server waits for: those of servers that are gone, and what follows a pod that was
// deleted.
func TestAgentSweep(t *testing.T) {
	c := withAgent(t)
	b := agentBackend(c)
	for name, claim := range map[string]string{"warm-mine": b.InstanceID() + "-x", "warm-theirs": "alive-x"} {
		o := warm(name)
		notes(o)["vivarium.dev/claim"] = claim
		c.put("pods", o)
		c.put("sandboxclaims", object{"metadata": object{"name": claim}})
	}
	ended := warm("warm-ended")
	status(ended)["phase"] = "Failed"
	c.put("pods", ended)
	c.put("pods", warm("warm-good"))
	c.put("leases", lease("alive", 0))
	if n, err := b.Sweep(t.Context()); err != nil || n != 2 {
		t.Errorf("%d are swept, %v", n, err)
	}
	if left := c.claims(); !slices.Equal(left, []string{"alive-x"}) || c.get("pods", "warm-ended") != nil || c.get("pods", "warm-good") == nil {
		t.Errorf("claims %q", left)
	}
}

// Each cause has a sentence of its own, which names what to change.
func TestAgentHealthSays(t *testing.T) {
	template := func(change func(spec, pod object)) func(*cluster) {
		return func(c *cluster) {
			c.change("sandboxtemplates", "template", func(o object) {
				spec := o["spec"].(object)
				change(spec, spec["podTemplate"].(object))
			})
		}
	}
	for name, test := range map[string]struct {
		happen func(*cluster)
		says   []string
	}{
		"no pool":     {func(c *cluster) { c.remove("sandboxwarmpools", "blanks") }, []string{`no SandboxWarmPool "blanks" in the namespace "boxes"`, "KUBERNETES_POOL"}},
		"no template": {func(c *cluster) { c.remove("sandboxtemplates", "template") }, []string{`no SandboxTemplate "template" in the namespace "boxes"`}},
		"no right": {
			func(c *cluster) {
				c.refusing("get sandboxwarmpools", failing(http.StatusForbidden, "Forbidden", "no"))
			},
			[]string{"not allow this server to get sandboxwarmpools", "sandboxclaims (get, create, delete)", "and sandboxes (list)"},
		},
		"no controller": {
			func(c *cluster) {
				c.change("sandboxwarmpools", "blanks", func(o object) { o["status"] = object{} })
			},
			[]string{`the pods of SandboxWarmPool "blanks"`, "with --extensions"},
		},
		"pod security": {
			func(c *cluster) {
				c.put("sandboxes", object{
					"metadata": object{"name": "s", "ownerReferences": []any{object{"uid": "warm-uid", "controller": true}}},
					"status": object{"conditions": []any{object{
						"type": "Ready", "status": "False", "reason": "ReconcilerError", "message": `Error seen: pods "s" is forbidden: violates PodSecurity "restricted:latest"`,
					}}},
				})
			},
			[]string{`rejects the pods of SandboxWarmPool "blanks"`},
		},
		"none ready": {func(*cluster) {}, []string{`0 of 4 blank pods of SandboxWarmPool "blanks"`}},
		"memory":     {template(func(_, pod object) { pod["spec"].(object)["containers"] = []any{object{"name": "sandbox"}} }), []string{`SandboxTemplate "template"`, "limits.memory"}},
		"policy":     {template(func(spec, _ object) { delete(spec, "networkPolicyManagement") }), []string{"networkPolicyManagement must be Unmanaged"}},
		"restart":    {template(func(_, pod object) { delete(pod["spec"].(object), "restartPolicy") }), []string{"restartPolicy must be Never"}},
		"no hash":    {template(func(_, pod object) { delete(rawLabels(pod), "pod-template-hash") }), []string{"must have vivarium.dev/pool, and pod-template-hash"}},
		"state":      {template(func(_, pod object) { rawLabels(pod)["vivarium.dev/state"] = "free" }), []string{"must not have vivarium.dev/state"}},
		"safe to evict": {template(func(_, pod object) {
			meta(pod)["annotations"] = object{"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
		}), []string{"must not have cluster-autoscaler"}},
		"another reason": {func(c *cluster) {
			c.refusing("get sandboxtemplates", failing(http.StatusInternalServerError, "InternalError", "etcd"))
		}, []string{"refused to get sandboxtemplates", "etcd"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := withAgent(t)
			test.happen(c)
			wantMessage(t, agentBackend(c).Health(t.Context()), test.says...)
		})
	}
	t.Run("not installed", func(t *testing.T) {
		wantMessage(t, agentBackend(newCluster(t)).Health(t.Context()), "this cluster has no agent-sandbox (extensions.agents.x-k8s.io/v1beta1)", "KUBERNETES_PROVIDER")
	})
}

// A right that is missing, and a claim that is refused.
func TestAgentForbidden(t *testing.T) {
	c := withAgent(t)
	c.refusing("create sandboxclaims", failing(http.StatusForbidden, "Forbidden", "no"))
	_, err := agentBackend(c).Start(t.Context(), spec())
	wantMessage(t, err, "not allow this server to create sandboxclaims")
}

// The doctor knows the provider's rights.
func TestAgentExamine(t *testing.T) {
	c := withAgent(t)
	c.put("pods", warm("warm-a"))
	c.rules = append(c.rules, exact()[:3]...)
	c.rules = append(c.rules, rule("extensions.agents.x-k8s.io", "sandboxclaims", "get", "create", "delete"), rule("extensions.agents.x-k8s.io", "sandboxtemplates", "get"),
		rule("extensions.agents.x-k8s.io", "sandboxwarmpools", "get"), rule("agents.x-k8s.io", "sandboxes", "list"))
	all := agentBackend(c).Examine(t.Context())
	wantFinding(t, all, kubernetes.Good, "has the rights that a server needs")
	wantFinding(t, all, kubernetes.Good, `the template of SandboxTemplate "template" in the namespace "boxes" fits`)
	wantFinding(t, all, kubernetes.Good, "1 of 4 blank pods are ready")
}
