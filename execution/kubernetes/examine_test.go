package kubernetes_test

import (
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
)

// rule returns a rule of a Role.
func rule(group, resource string, verbs ...string) object {
	return object{"apiGroups": []string{group}, "resources": []string{resource}, "verbs": verbs}
}

// exact returns the rules of the chart's Role, but one that shows only when it is asked for.
func exact() []object {
	return []object{
		rule("authorization.k8s.io", "selfsubjectrulesreviews", "create"),
		rule("", "pods", "get", "list", "watch", "patch", "delete"),
		rule("coordination.k8s.io", "leases", "get", "list", "create", "update", "delete"),
		rule("apps", "deployments", "get", "list", "watch"),
	}
}

// wantFinding reports the findings unless one has a verdict and a text.
func wantFinding(t *testing.T, all []kubernetes.Finding, verdict kubernetes.Verdict, text string) {
	t.Helper()
	for _, f := range all {
		if f.Verdict == verdict && strings.Contains(f.Text, text) {
			return
		}
	}
	t.Errorf("there is no finding %d %q in %+v", verdict, text, all)
}

// examined returns a cluster whose account has the rights that it needs, with a blank and a session.
func examined(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	a, s := blank("a"), session("s", "id", "other")
	a["spec"].(object)["nodeName"] = "n1"
	terminated(a)["message"] = strings.Replace(terminated(a)["message"].(string), `"oomgroup":true`, `"oomgroup":false`, 1)
	delete(status(s), "initContainerStatuses") // nothing is known of its node
	c.put("pods", a)
	c.put("pods", s)
	c.rules = exact()
	return c
}

func TestExamine(t *testing.T) {
	template := func(name string, value any) func(*cluster) {
		return func(c *cluster) {
			c.change("deployments", "blanks", func(o object) { o["spec"].(object)["template"].(object)["spec"].(object)[name] = value })
		}
	}
	fact := func(name, before, after string) func(*cluster) {
		return func(c *cluster) {
			c.change("pods", "a", func(o object) {
				terminated(o)["message"] = strings.Replace(terminated(o)["message"].(string), `"`+name+`":`+before, `"`+name+`":`+after, 1)
			})
		}
	}
	rules := func(rules ...object) func(*cluster) { return func(c *cluster) { c.rules = rules } }
	nothing := func(*cluster) {}
	const good, doubtful, failing = kubernetes.Good, kubernetes.Doubtful, kubernetes.Failing
	for name, test := range map[string]struct {
		happen  func(*cluster)
		verdict kubernetes.Verdict
		says    string
	}{
		"version":           {nothing, good, "Kubernetes v1.34.0 answers at http://127.0.0.1:"},
		"exact rights":      {nothing, good, `has the rights that a server needs in the namespace "boxes", and no others`},
		"template":          {nothing, good, `the template of Deployment "blanks" in the namespace "boxes" fits`},
		"blanks":            {nothing, good, "1 of 4 blank pods are ready; sandboxes of runs: 0, of sessions: 1"},
		"node":              {nothing, good, "node n1 (Linux 6.8.0, amd64): sandboxes can make namespaces, and their runtime filters"},
		"other nodes":       {nothing, good, "nodes that have sandboxes now: 1; others"},
		"users of the node": {nothing, doubtful, "set hostUsers: false (sandboxes.userNamespaces)"},
		"policies":          {nothing, doubtful, "`kubectl exec deployment/vivarium"},
		"few rights": {
			rules(exact()[1:3]...), failing,
			`may not get deployments.apps, list deployments.apps in the namespace "boxes": give it the Role`,
		},
		"many rights": {
			rules(append(exact(), rule("", "secrets", "get", "list"), rule("", "pods", "create"), rule("", "pods", "create"))...), doubtful,
			`may do more in the namespace "boxes" than a server needs: create pods, get and list secrets; give it no other`,
		},
		"all rights":      {rules(rule("*", "*", "*")), doubtful, "than a server needs: everything;"},
		"other template":  {template("automountServiceAccountToken", true), failing, "does not fit the settings: automountServiceAccountToken must be false"},
		"own users":       {template("hostUsers", false), doubtful, "node n1 (Linux 6.8.0, amd64): the runtime ignores hostUsers: false"},
		"no network":      {fact("netns", "true", "false"), failing, "no sandbox can start there, since pods can make no network namespace: give the pods a seccomp profile"},
		"no users":        {fact("userns", "true", "false"), doubtful, "each run gets a sandbox of its own there"},
		"no filter":       {fact("seccomp", "true", "false"), good, "servers send the filter of system calls"},
		"the whole group": {fact("oomgroup", "false", "true"), doubtful, "singleProcessOOMKill: true"},
		"a blank waits": {func(c *cluster) {
			o := blank("b")
			status(o)["conditions"] = []any{}
			status(o)["containerStatuses"] = []any{object{"name": "sandbox", "state": object{"waiting": object{"reason": "ErrImagePull", "message": "no"}}}}
			c.put("pods", o)
		}, doubtful, `pod "b" does not start: container sandbox: ErrImagePull (no); the template must name images`},
	} {
		t.Run(name, func(t *testing.T) {
			c := examined(t)
			test.happen(c)
			b := c.backend(func(o *kubernetes.Options) { o.Peer = "" })
			wantFinding(t, b.Examine(t.Context()), test.verdict, test.says)
		})
	}
}

// Where no cluster answers, there is nothing to find but what Health reports.
func TestExamineNothing(t *testing.T) {
	c := newCluster(t)
	c.server.Close()
	if all := c.backend().Examine(t.Context()); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}
