package integration

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Tests of this file disturb everybody who uses the cluster.

// partOf returns the process of a part of the cluster.
func (h *kubernetesHost) partOf(t *testing.T, name string) *os.Process {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(h.kubeconfig), "run", name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	return process
}

// The apiserver is stopped. The watch of the cluster's own parts is, too.
func TestKubernetesSlowPartsAPIServer(t *testing.T) {
	h := cluster(t)
	process := h.partOf(t, "kube-apiserver")
	h.silence(t, func() func() {
		if err := process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		resume := func() { _ = process.Signal(syscall.SIGCONT) }
		t.Cleanup(resume)
		return resume
	})
}

// The kubelet is killed, and started again later. What runs goes on, and blanks can be claimed while there are some.
func TestKubernetesSlowPartsKubelet(t *testing.T) {
	h := cluster(t)
	pool := h.ownPool(t, 2)
	s := startServer(t, "POOL_SIZE=1", "MAX_SANDBOXES=1", "KUBERNETES_POOL="+pool)
	if _, ok := awaitRunning(s.instance, 1); !ok {
		t.Fatal("no warm sandbox")
	}
	h.awaitPool(t, pool)
	old := startSession(t, s, request{})
	old.python(t, "x = 'kept'")
	h.awaitPool(t, pool)
	l := startLoad(2, runs(t, s))
	l.await(t, 20)
	start := func() {
		up := exec.Command("../scripts/cluster.sh", "up")
		up.Env = append(os.Environ(), "CLUSTER_DIR="+filepath.Dir(h.kubeconfig))
		if out, err := up.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	t.Cleanup(start)
	if err := h.partOf(t, "kubelet").Kill(); err != nil {
		t.Fatal(err)
	}
	l.await(t, 20)
	program{stdout: "'kept'\n"}.check(t, old.python(t, "x"))
	startSession(t, s, request{}).python(t, "1")
	start()
	h.awaitPool(t, pool)
	l.await(t, 20)
	l.end(t)
	program{stdout: "'kept'\n"}.check(t, old.python(t, "x"))
}

// The only node is cordoned and drained. The server says what it waits for, and serves when the node is back.
func TestKubernetesSlowPartsDrain(t *testing.T) {
	h := cluster(t)
	pool := h.ownPool(t, 1)
	s := startServer(t, "POOL_SIZE=1", "KUBERNETES_POOL="+pool)
	old := startSession(t, s, request{})
	old.python(t, "x = 1")
	pods, err := h.pods("vivarium.dev/pool=" + pool)
	if err != nil || len(pods) == 0 {
		t.Fatalf("%v, %d pods", err, len(pods))
	}
	cordon := func(on bool) {
		change(t, h, "/api/v1/nodes/"+pods[0].Spec.NodeName, func(n *corev1.Node) { n.Spec.Unschedulable = on })
	}
	t.Cleanup(func() { cordon(false) })
	cordon(true)
	for _, pod := range pods {
		if err := h.evict(pod); err != nil {
			t.Fatal(err)
		}
	}
	for _, pod := range pods {
		awaitSlow(t, "the pod is gone", func() bool { return h.isGone(pod) })
	}
	var answer struct{ Detail string }
	if status := s.post(t, "/v1/sessions", request{}, &answer); status != http.StatusServiceUnavailable || !strings.Contains(answer.Detail, "no node takes it") {
		t.Errorf("%d %s", status, answer.Detail)
	}
	cordon(false)
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	startSession(t, s, request{}).python(t, "1")
}
