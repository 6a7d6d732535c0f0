package kubernetes_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
)

func TestHealth(t *testing.T) {
	c := newCluster(t)
	c.put("pods", blank("a"))
	b := c.backend()
	if err := b.Health(t.Context()); err != nil {
		t.Error(err)
	}
	i := start(t, b, spec())
	if err := b.Health(t.Context()); err != nil {
		t.Errorf("while it has a sandbox: %v", err)
	}
	i.Detach()
	wantMessage(t, b.Health(t.Context()), "0 of 4 blank pods")
}

// Each cause has a sentence of its own, which names what to change.
func TestHealthSays(t *testing.T) {
	waiting := func(reason, message string) func(*cluster) {
		return func(c *cluster) {
			o := blank("a")
			status(o)["conditions"] = []any{object{"type": "Ready", "status": "False"}}
			status(o)["containerStatuses"] = []any{object{"name": "sandbox", "state": object{"waiting": object{"reason": reason, "message": message}}}}
			c.put("pods", o)
		}
	}
	failure := func(message string) func(*cluster) {
		return func(c *cluster) {
			c.change("deployments", "blanks", func(o object) {
				status(o)["conditions"] = []any{object{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}}
			})
		}
	}
	forbidden := func(all ...string) func(*cluster) {
		return func(c *cluster) {
			for _, what := range all {
				c.refusing(what, failing(http.StatusForbidden, "Forbidden", "no"))
			}
		}
	}
	for name, test := range map[string]struct {
		happen func(*cluster)
		says   []string
	}{
		"no pool": {
			func(c *cluster) { c.remove("deployments", "blanks") },
			[]string{`no Deployment "blanks" in the namespace "boxes"`, "KUBERNETES_POOL", "KUBERNETES_EXECUTOR_NAMESPACE"},
		},
		"may not get the pool":  {forbidden("get deployments"), []string{`not allow this server to get deployments in the namespace "boxes"`, "Role"}},
		"may not list pods":     {forbidden("list pods", "watch pods"), []string{"list and watch pods"}},
		"may not list Leases":   {forbidden("list leases", "watch leases"), []string{"list and watch leases"}},
		"may not renew a Lease": {forbidden("get leases"), []string{"get leases"}},
		"bad credentials": {
			func(c *cluster) {
				c.refusing("get deployments", failing(http.StatusUnauthorized, "Unauthorized", "no"))
			},
			[]string{"does not accept this server's credentials", "KUBECONFIG"},
		},
		"template": {func(c *cluster) {
			c.change("deployments", "blanks", func(o object) {
				spec := o["spec"].(object)["template"].(object)["spec"].(object)
				spec["containers"].([]any)[0].(object)["resources"] = object{"limits": object{"memory": "100Mi", "cpu": "1"}}
			})
		}, []string{`the template of Deployment "blanks" in the namespace "boxes"`, "limits.memory", "MEMORY_LIMIT_MB"}},
		"image":                   {waiting("ImagePullBackOff", "pull access denied"), []string{`pod "a"`, "container sandbox: ImagePullBackOff (pull access denied)", "images that the nodes can pull"}},
		"image that is not there": {waiting("ErrImageNeverPull", "no image vivarium/sandbox:x"), []string{"container sandbox: ErrImageNeverPull (no image vivarium/sandbox:x)", "images that the nodes can pull"}},
		"init container": {func(c *cluster) {
			o := blank("a")
			status(o)["conditions"] = []any{object{"type": "Ready", "status": "False"}}
			status(o)["initContainerStatuses"] = []any{object{"name": "identity", "state": object{"waiting": object{"reason": "ErrImagePull", "message": "no such host"}}}}
			c.put("pods", o)
		}, []string{`pod "a"`, "container identity: ErrImagePull (no such host)", "images that the nodes can pull"}},
		"container": {waiting("CreateContainerError", "no such profile"), []string{"container sandbox: CreateContainerError (no such profile)", "seccomp profile"}},
		"crash":     {waiting("CrashLoopBackOff", "back-off 10s"), []string{"CrashLoopBackOff (back-off 10s)"}},
		"no node": {func(c *cluster) {
			o := blank("a")
			status(o)["conditions"] = []any{object{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}}
			c.put("pods", o)
		}, []string{"no node takes it (0/3 nodes are available)"}},
		"quota": {
			failure(`pods "blanks-1" is forbidden: exceeded quota: q, requested: pods=1, used: pods=20, limited: pods=20`),
			[]string{"a ResourceQuota of the namespace \"boxes\" is used up", "MAX_SANDBOXES", "limited: pods=20"},
		},
		"pod security": {
			failure(`pods "blanks-1" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities`),
			[]string{`the namespace "boxes" rejects the pods of Deployment "blanks"`, "restricted:latest"},
		},
		"other failure": {failure("a webhook says no"), []string{"cannot be created: a webhook says no"}},
		"no replicas": {
			func(c *cluster) {
				c.change("deployments", "blanks", func(o object) { o["spec"].(object)["replicas"] = 0 })
			},
			[]string{"has 0 replicas"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			test.happen(c)
			b := c.backend()
			err := b.Health(t.Context())
			for name == "may not renew a Lease" && err != nil && !strings.Contains(err.Error(), "leases") { // until it is attempted
				err = b.Health(t.Context())
			}
			wantMessage(t, err, test.says...)
		})
	}
}

// What is wrong with the connection to the cluster is told from each other.
func TestNoCluster(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	c := newCluster(t)
	for name, test := range map[string]struct {
		change func(*kubernetes.Options)
		says   string
	}{
		"nothing":    {func(o *kubernetes.Options) { o.Kubeconfig = "" }, "there is no cluster: set KUBECONFIG"},
		"no file":    {func(o *kubernetes.Options) { o.Kubeconfig = "/nowhere/config" }, "there is no cluster: set KUBECONFIG"},
		"no context": {func(o *kubernetes.Options) { o.Context = "there" }, `KUBERNETES_CONTEXT is "there": must be a context of KUBECONFIG`},
		"not a config": {func(o *kubernetes.Options) {
			o.Kubeconfig = filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(o.Kubeconfig, []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "must name files that describe a cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := c.options()
			test.change(&opts)
			if _, err := kubernetes.New(opts); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	c := newCluster(t)
	stopped := httptest.NewServer(nil)
	address := stopped.URL
	stopped.Close()
	secure := httptest.NewTLSServer(nil)
	defer secure.Close()
	for name, test := range map[string]struct{ address, says string }{
		"no answer": {address, "Kubernetes does not answer at " + address},
		"wrong CA":  {secure.URL, "has a certificate that this server does not trust: KUBECONFIG must have the CA"},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.backend(func(o *kubernetes.Options) { c.writeConfig(o.Kubeconfig, test.address, "") })
			wantMessage(t, b.Health(t.Context()), test.says)
		})
	}
}
