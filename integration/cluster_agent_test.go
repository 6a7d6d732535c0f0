package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// agentPool is a release of the chart whose blanks agent-sandbox keeps ready.
type agentPool struct {
	*kubernetesHost
	release string
	free    int
	env     []string // of its servers, which have the rights of the chart's
}

func (h *kubernetesHost) newAgentPool(t *testing.T, free int) *agentPool {
	t.Helper()
	p := &agentPool{kubernetesHost: h, release: release() + "-agent", free: free}
	h.helm(t, "install", p.release, "../charts/vivarium", "--wait", "--timeout", "4m", "--set", strings.Join([]string{
		"replicas=0", "image.tag=integration", "sandboxes.image.tag=slim", "image.pullPolicy=Never", "sandboxes.image.pullPolicy=Never",
		"sandboxes.namespace=" + sandboxNamespace(), "sandboxes.createNamespace=false", "sandboxes.cpuRequest=10m", "sandboxes.memoryRequestMB=32",
		"config.MEMORY_LIMIT_MB=256", "config.WORKSPACE_LIMIT_MB=64", "config.TMP_LIMIT_MB=64", "limitRange.enabled=false",
		"sandboxes.provider=agent-sandbox", fmt.Sprintf("sandboxes.free=%d", free),
	}, ","))
	t.Cleanup(func() {
		h.helm(t, "uninstall", p.release)
		awaitSlow(t, "no pod of the release is left", func() bool { return p.count() == 0 && p.claims(t) == 0 })
	})
	link := t.TempDir()
	h.writeLinkOf(t, p.release, link)
	p.env = []string{
		"KUBERNETES_PROVIDER=agent-sandbox", "KUBERNETES_POOL=" + p.release + "-vivarium-sandboxes", "KUBERNETES_LINK_DIR=" + link, "POOL_SIZE=0",
		"KUBECONFIG=" + h.accountOf(t, p.release+"-vivarium", "agent", ""),
	}
	p.await(t)
	return p
}

func (p *agentPool) path(resource string) string {
	return "/apis/extensions.agents.x-k8s.io/v1beta1/namespaces/" + sandboxNamespace() + "/" + resource
}

// count returns how many pods there are.
func (p *agentPool) count() int {
	pods, err := p.pods("vivarium.dev/pool=" + p.release + "-vivarium")
	if err != nil {
		return -1
	}
	return len(pods)
}

// claims returns how many claims there are.
func (p *agentPool) claims(t *testing.T) int {
	t.Helper()
	var found metav1.PartialObjectMetadataList
	selector := "?labelSelector=" + url.QueryEscape("vivarium.dev/pool="+p.release+"-vivarium")
	if err := p.ask(http.MethodGet, p.path("sandboxclaims")+selector, nil, &found); err != nil {
		t.Fatal(err)
	}
	return len(found.Items)
}

// await waits until all blanks are there, and no other pod and no claim.
func (p *agentPool) await(t *testing.T) {
	t.Helper()
	awaitSlow(t, "the pool has its blanks, and nothing else is left", func() bool {
		var pool struct{ Status struct{ ReadyReplicas int } }
		err := p.ask(http.MethodGet, p.path("sandboxwarmpools")+"/"+p.release+"-vivarium-sandboxes", nil, &pool)
		return err == nil && pool.Status.ReadyReplicas == p.free && p.count() == p.free && p.claims(t) == 0
	})
}

// ownedBySandbox checks that a pod is still that of a Sandbox, which ends with its claim.
func ownedBySandbox(t *testing.T, pod corev1.Pod) {
	t.Helper()
	if owner := metav1.GetControllerOf(&pod); owner == nil || owner.Kind != "Sandbox" || pod.Annotations["vivarium.dev/claim"] == "" {
		t.Errorf("pod %s is owned by %+v, its annotations are %v", pod.Name, owner, pod.Annotations)
	}
}

// With agent-sandbox (scripts/cluster.sh agent-sandbox) sandboxes are as with a Deployment, and end with their claims.
func TestAgentSandbox(t *testing.T) {
	p := cluster(t).newAgentPool(t, 3)
	t.Run("doctor", p.testDoctor)
	t.Run("run", p.testRun)
	t.Run("session", p.testSession)
	t.Run("burst", p.testBurst)
	t.Run("killed", p.testKilled)
	t.Run("deleted", p.testDeleted)
}

// The doctor knows the rights that this takes, and its template.
func (p *agentPool) testDoctor(t *testing.T) {
	doctor := exec.CommandContext(t.Context(), shared.binary, "doctor")
	doctor.Env = slices.Concat(os.Environ(), with(slimImage), smallLimits(), p.env)
	out, err := doctor.Output()
	if err != nil {
		t.Error(err)
	}
	wantSentence(t, string(out), []string{
		"ok       this account has the rights that a server needs in the namespace \"" + sandboxNamespace() + "\", and no others there",
		"ok       the template of SandboxTemplate", fmt.Sprintf("of %d blank pods are ready", p.free), "ok       a sandbox can serve many runs",
	})
}

// A sandbox serves runs, and is deleted at the server's end.
func (p *agentPool) testRun(t *testing.T) {
	s := startServer(t, append(p.env, "POOL_SIZE=1", "MAX_SANDBOXES=1")...)
	for range 3 {
		program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	}
	pod := p.onlyPod(t, "vivarium.dev/state=run,vivarium.dev/holder="+s.instance)
	ownedBySandbox(t, pod)
	if pod.Spec.ActiveDeadlineSeconds == nil {
		t.Error("the pod has no deadline")
	}
	s.leave(t)
	p.await(t)
}

// A session goes on when its server ends, another server takes it over, and its end is that of its claim and pod.
func (p *agentPool) testSession(t *testing.T) {
	first := startServer(t, p.env...)
	s := startSession(t, first, request{})
	s.python(t, "x = 'kept'")
	ownedBySandbox(t, p.onlyPod(t, "vivarium.dev/session="+s.id))
	first.leave(t)
	taken := &session{server: startServer(t, p.env...), id: s.id}
	taken.awaitTakeover(t, "x", "'kept'\n")
	pod := p.onlyPod(t, "vivarium.dev/session="+s.id)
	if pod.Labels["vivarium.dev/holder"] != taken.server.instance {
		t.Errorf("the labels are %v", pod.Labels)
	}
	taken.end(t)
	awaitSlow(t, "the pod is gone", func() bool { return p.isGone(pod) })
	p.await(t)
}

// More sessions at once than there are blanks, on two servers, each get a pod of their own. The pool fills up again.
func (p *agentPool) testBurst(t *testing.T) {
	const count = 8
	sessions := createAll(t, count, startServer(t, p.env...), startServer(t, p.env...))
	for i, s := range sessions {
		program{stdout: fmt.Sprintf("%d\n", i)}.check(t, s.python(t, fmt.Sprintf("x = %d\nx", i)))
		pod := p.onlyPod(t, "vivarium.dev/session="+s.id)
		ownedBySandbox(t, pod)
		if holder := pod.Labels["vivarium.dev/holder"]; holder != s.server.instance {
			t.Errorf("session %d is held by %q, not %q", i, holder, s.server.instance)
		}
	}
	if claims := p.claims(t); claims != count {
		t.Errorf("%d sessions have %d claims", count, claims)
	}
	for i, s := range sessions { // nobody has written over another one's
		program{stdout: fmt.Sprintf("%d\n", i)}.check(t, s.python(t, "x"))
	}
	for _, s := range sessions {
		s.end(t)
	}
	p.await(t)
}

// The sandbox of a server that was killed ends by itself, and the controller deletes its claim.
func (p *agentPool) testKilled(t *testing.T) {
	s, err := start(append(p.env, "POOL_SIZE=1", "MAX_SANDBOXES=1"))
	if err != nil {
		t.Fatal(err)
	}
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	if err := s.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.wait()
	p.await(t)
	p.bury(s.instance)
}

// The controller makes another pod for a session whose pod is deleted. The session has ended all the same, and nothing
// of it is left.
func (p *agentPool) testDeleted(t *testing.T) {
	s := startSession(t, startServer(t, p.env...), request{})
	pod := p.onlyPod(t, "vivarium.dev/session="+s.id)
	if err := p.ask(http.MethodDelete, podPath(pod)+"?gracePeriodSeconds=1", nil, nil); err != nil {
		t.Fatal(err)
	}
	awaitSlow(t, "the session has ended", func() bool {
		a, err := s.tryCall("/execute", request{"code": "1"})
		return err == nil && a.status == http.StatusNotFound
	})
	p.await(t)
}
