package integration

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// Where another pod has the address of the one that was claimed, its key shows that: it gets neither a program nor
// the calls of a session.
func TestKubernetesAnotherPodAnswers(t *testing.T) {
	h := cluster(t)
	pool := h.ownPool(t, 1)
	note := func(pod corev1.Pod, pin string) {
		change(t, h, podPath(pod), func(p *corev1.Pod) {
			p.Annotations = merged(p.Annotations, map[string]string{"vivarium.dev/key": pin})
		})
	}
	other := "sha256:" + strings.Repeat("0", 64)
	blank := h.onlyPod(t, blanksOf(pool))
	note(blank, other)
	first, err := start([]string{"POOL_SIZE=0", "KUBERNETES_POOL=" + pool})
	if err != nil {
		t.Fatal(err)
	}
	program{stdout: "42\n"}.check(t, mustRun(t, first, request{"code": "print(6*7)"}))
	awaitSlow(t, "the other pod is gone", func() bool { return h.isGone(blank) })

	s := startSession(t, first, request{})
	s.python(t, "x = 'kept'")
	pod := h.onlyPod(t, "vivarium.dev/session="+s.id)
	if err := first.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.wait() // it was killed
	if err := h.ask(http.MethodDelete, leasePath(first), nil, nil); err != nil {
		t.Fatal(err)
	}
	s.server = startServer(t, "POOL_SIZE=0", "KUBERNETES_POOL="+pool)
	note(pod, other)
	a, err := s.tryCall("/execute", request{"code": "x"})
	if err != nil || a.status != http.StatusServiceUnavailable {
		t.Errorf("%v %+v", err, a)
	}
	note(pod, pod.Annotations["vivarium.dev/key"])
	awaitSlow(t, "the session answers", func() bool {
		a, err := s.tryCall("/execute", request{"code": "x"})
		return err == nil && a.Stdout == "'kept'\n"
	})
	s.end(t)
}

// leasePath returns the path of a server's Lease.
func leasePath(s *server) string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + sandboxNamespace() + "/leases/vivarium-" + s.instance
}

// A pool is rolled out while servers use it: no call fails, the pods are of the new template in the end, and sessions
// stay.
func TestKubernetesRollout(t *testing.T) {
	h := cluster(t)
	pool := h.ownPool(t, 2)
	s := startServer(t, "POOL_SIZE=1", "MAX_SANDBOXES=2", "KUBERNETES_POOL="+pool)
	old := startSession(t, s, request{})
	old.python(t, "x = 'kept'")
	l := startLoad(2, runs(t, s))
	l.await(t, 20)
	change(t, h, deploymentsPath()+"/"+pool, func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = merged(d.Spec.Template.Annotations, map[string]string{"test": "next"})
	})
	startSession(t, s, request{}).python(t, "1")
	h.awaitPool(t, pool)
	awaitSlow(t, "no run is in an old pod", func() bool {
		pods, err := h.pods("vivarium.dev/state=run,vivarium.dev/holder=" + s.instance)
		return err == nil && len(pods) > 0 && !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Annotations["test"] != "next" })
	})
	l.await(t, 20)
	l.end(t)
	program{stdout: "'kept'\n"}.check(t, old.python(t, "x"))
}

// The CA of the link is changed while servers use it: pods trust both, then servers show the new certificate, then
// pods trust the new one alone. No call fails.
func TestKubernetesRotation(t *testing.T) {
	h := cluster(t)
	pool, folder := h.ownPool(t, 1), t.TempDir()
	for _, name := range []string{link.CAFile, link.CertificateFile, link.KeyFile} {
		text, err := os.ReadFile(filepath.Join(h.link, name))
		if err != nil {
			t.Fatal(err)
		}
		writeSecret(t, filepath.Join(folder, name), text)
	}
	before, err := os.ReadFile(filepath.Join(folder, link.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	next, err := link.NewCA(release(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	trust := func(authorities []byte) {
		t.Helper()
		change(t, h, deploymentsPath()+"/"+pool, func(d *appsv1.Deployment) {
			for i, v := range d.Spec.Template.Spec.Containers[0].Env {
				if v.Name == "VIVARIUM_LINK_CA" {
					d.Spec.Template.Spec.Containers[0].Env[i].Value = string(authorities)
				}
			}
		})
		h.awaitPool(t, pool)
	}
	env := []string{"POOL_SIZE=1", "MAX_SANDBOXES=2", "KUBERNETES_POOL=" + pool, "KUBERNETES_LINK_DIR=" + folder}
	first, err := start(env)
	if err != nil {
		t.Fatal(err)
	}
	l := startLoad(2, runs(t, first))
	both := append(append(bytes.Clone(before), '\n'), next.Certificate...)
	trust(both)
	s := startSession(t, first, request{})
	s.python(t, "x = 'kept'")

	certificate, key, err := next.Issue(release(), nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	writeSecret(t, filepath.Join(folder, link.CAFile), both)
	writeSecret(t, filepath.Join(folder, link.CertificateFile), certificate)
	writeSecret(t, filepath.Join(folder, link.KeyFile), key)
	trust(next.Certificate)
	startSession(t, first, request{}).python(t, "1")
	l.await(t, 20)
	l.end(t)
	first.leave(t)

	// What trusts both takes the next server, which has only the new one.
	s.server = startServer(t, env...)
	program{stdout: "'kept'\n"}.check(t, s.python(t, "x"))
	s.end(t)
	// One with the old certificate does not start.
	if late, err := start([]string{"POOL_SIZE=0", "KUBERNETES_POOL=" + pool}); err == nil || !strings.Contains(err.Error(), "does not fit this server's certificate") {
		t.Errorf("with the old certificate: %v", err)
		if err == nil {
			late.leave(t)
		}
	}
}

// writeSecret writes a file in one step.
func writeSecret(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// helm runs Helm, built from tools/chart.
func (h *kubernetesHost) helm(t *testing.T, arguments ...string) {
	t.Helper()
	all := append([]string{"tool", "-modfile=../tools/chart/go.mod", "helm", "--kubeconfig", h.kubeconfig, "--namespace", release()}, arguments...)
	if out, err := exec.Command("go", all...).CombinedOutput(); err != nil {
		t.Fatalf("helm %s: %v\n%s", arguments[0], err, out)
	}
}

// Uninstalling the chart ends the sandboxes as well, sessions included. The namespace is another release's here, and
// stays.
func TestKubernetesUninstall(t *testing.T) {
	h := cluster(t)
	name := release() + "-brief"
	h.helm(t, "install", name, "../charts/vivarium", "--wait", "--timeout", "4m", "--set", strings.Join([]string{
		"replicas=0", "image.tag=integration", "sandboxes.image.tag=slim", "image.pullPolicy=Never", "sandboxes.image.pullPolicy=Never",
		"sandboxes.namespace=" + sandboxNamespace(), "sandboxes.createNamespace=false", "sandboxes.free=1", "sandboxes.cpuRequest=10m",
		"sandboxes.memoryRequestMB=32", "config.MEMORY_LIMIT_MB=256", "config.WORKSPACE_LIMIT_MB=64", "config.TMP_LIMIT_MB=64",
	}, ","))
	uninstalled := false
	t.Cleanup(func() {
		if !uninstalled {
			h.helm(t, "uninstall", name)
		}
	})
	link := t.TempDir()
	h.writeLinkOf(t, name, link)
	s := startServer(t, "POOL_SIZE=1", "KUBERNETES_POOL="+name+"-vivarium-sandboxes", "KUBERNETES_LINK_DIR="+link)
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	startSession(t, s, request{}).python(t, "1")
	h.helm(t, "uninstall", name)
	uninstalled = true
	awaitSlow(t, "no pod is left", func() bool {
		pods, err := h.pods("vivarium.dev/pool=" + name + "-vivarium")
		return err == nil && len(pods) == 0
	})
	a, err := s.execute(t.Context(), request{"code": "1"})
	if err != nil || a.status != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(a.Detail), "install Vivarium's chart") {
		t.Errorf("%v %+v", err, a)
	}
}

// writeLinkOf writes the certificate of a release's server to a folder.
func (h *kubernetesHost) writeLinkOf(t *testing.T, installed, folder string) {
	t.Helper()
	var secrets corev1.SecretList
	if err := h.ask(http.MethodGet, "/api/v1/namespaces/"+release()+"/secrets", nil, &secrets); err != nil {
		t.Fatal(err)
	}
	for _, secret := range secrets.Items {
		if secret.Type == corev1.SecretTypeTLS && strings.HasPrefix(secret.Name, installed+"-") {
			for name, text := range secret.Data {
				writeSecret(t, filepath.Join(folder, name), text)
			}
			return
		}
	}
	t.Fatal("the chart has made no certificate")
}
