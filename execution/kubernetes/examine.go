package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// Verdict is how good a finding is.
type Verdict int

const (
	// Good is as it should be.
	Good Verdict = iota
	// Doubtful works, and something better is possible, or it is not known.
	Doubtful
	// Failing keeps sandboxes from working.
	Failing
)

// Finding is something that an examination shows, with what to change unless it is good.
type Finding struct {
	Verdict Verdict
	Text    string
}

// Examine reports what the cluster is like for sandboxes. It needs no rights but a server's. What
// [Backend.Health] reports, it may leave out.
func (b *Backend) Examine(ctx context.Context) []Finding {
	all := []Finding{b.examineVersion(ctx)}
	if all[0].Verdict == Failing {
		return nil
	}
	all = append(all, b.examineRights(ctx)...)
	found, err := b.claimer.Pool(ctx)
	if err != nil {
		return all
	}
	all = append(all, b.examineTemplate(found)...)
	selector := labelPool + "=" + found.label
	pods, err := b.api.pods.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return all
	}
	all = append(all, b.examineBlanks(found, pods.Items)...)
	all = append(all, b.examineNodes(pods.Items, found.ownUsers)...)
	return append(all, b.examinePolicies(ctx, pods.Items))
}

// examineVersion asks the apiserver for its version, which is open to every account.
func (b *Backend) examineVersion(ctx context.Context) Finding {
	text, err := b.api.raw.Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return Finding{Failing, execution.AsError(b.explain("get /version", err)).Explain()}
	}
	var version struct{ GitVersion string }
	if err := json.Unmarshal(text, &version); err != nil {
		return Finding{Failing, fmt.Sprintf("what answers at %s is not Kubernetes: %v", b.Host(), err)}
	}
	return Finding{Good, fmt.Sprintf("Kubernetes %s answers at %s; this server is %s, and its link to sandboxes %s", version.GitVersion, b.Host(), b.opts.UserAgent, link.Protocol)}
}

// hasOwnUsers reports whether the template asks for users of the pods' own.
func hasOwnUsers(template *corev1.PodSpec) bool {
	host := template.HostUsers
	return host != nil && !*host
}

// examineTemplate compares the template of the pool with the settings.
func (b *Backend) examineTemplate(pool *pool) []Finding {
	var all []Finding
	for _, fault := range pool.faults {
		all = append(all, Finding{Failing, fmt.Sprintf("the template of %s does not fit the settings: %s", pool.template, fault)})
	}
	if len(all) == 0 {
		all = append(all, Finding{Good, fmt.Sprintf("the template of %s in the namespace %q fits the settings", pool.template, b.api.namespace)})
	}
	if !pool.ownUsers {
		all = append(all, Finding{Doubtful, "sandboxes share users with their node, and so what the kernel allows each user: set hostUsers: false (sandboxes.userNamespaces) where Kubernetes is 1.33, containerd 2.0, runc 1.2 and Linux 6.3 or newer"})
	}
	return all
}

// examineBlanks counts the pods of the pool.
func (b *Backend) examineBlanks(pool *pool, from []corev1.Pod) []Finding {
	ready, runs, sessions := 0, 0, 0
	waiting := make(map[string]string) // the name of a blank, by what it waits for
	for i := range from {
		switch p := readPod(&from[i]); {
		case p.state == stateRun:
			runs++
		case p.state == stateSession:
			sessions++
		case p.blank():
			ready++
		case p.waiting != "":
			waiting[p.waiting] = p.name
		}
	}
	all := []Finding{{Good, fmt.Sprintf("%d of %d blank pods are ready; sandboxes of runs: %d, of sessions: %d", ready, pool.replicas, runs, sessions)}}
	for _, why := range slices.Sorted(maps.Keys(waiting)) {
		all = append(all, Finding{Doubtful, fmt.Sprintf("pod %q does not start: %s", waiting[why], advise(why))})
	}
	return all
}

// examineNodes reports what pods have found out about their nodes. The template may ask for users
// of the pods' own.
func (b *Backend) examineNodes(from []corev1.Pod, ownUsers bool) []Finding {
	nodes := make(map[string]link.Facts)
	for i := range from {
		if p := readPod(&from[i]); p.facts.Key != "" {
			nodes[from[i].Spec.NodeName] = p.facts
		}
	}
	var all []Finding
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		f := nodes[name]
		node := fmt.Sprintf("node %s (Linux %s, %s): ", name, f.Kernel, f.Arch)
		all = append(all, b.examineNamespaces(node, f))
		if ownUsers && !f.OwnUsers {
			all = append(all, Finding{Doubtful, node + "the runtime ignores hostUsers: false, and sandboxes share users with the node: it needs containerd 2.0, runc 1.2 and Linux 6.3"})
		}
		if f.OOMGroup {
			all = append(all, Finding{Doubtful, node + "where a program takes memory faster than it is watched, the kernel ends its sandbox too (memory.oom.group); singleProcessOOMKill: true in the kubelet's configuration keeps the sandbox"})
		}
	}
	return append(all, Finding{Good, fmt.Sprintf("nodes that have sandboxes now: %d; others can only be examined with more rights than a server needs", len(nodes))})
}

// examineNamespaces reports which sandboxes a node can have.
func (b *Backend) examineNamespaces(node string, f link.Facts) Finding {
	const remedy = ": give the pods a seccomp profile that allows unshare (seccomp.mode), and the node user.max_user_namespaces, on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0"
	filter := "their runtime filters system calls"
	if !f.Seccomp {
		filter = "servers send the filter of system calls, since their runtime has none"
	}
	switch {
	case !f.NetNS && b.opts.Settings.Network != networkOfPod:
		return Finding{Failing, node + "no sandbox can start there, since pods can make no network namespace" + remedy}
	case f.UserNS:
		return Finding{Good, node + "sandboxes can make namespaces, and " + filter}
	case b.opts.Settings.Isolation == execution.IsolationContainer:
		return Finding{Good, node + "sandboxes need no namespaces, and " + filter}
	}
	return Finding{Doubtful, node + "each run gets a sandbox of its own there, since pods can make no user namespace" + remedy}
}
