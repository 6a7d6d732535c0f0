package integration

import (
	"net/http"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Pods without a profile get the sandbox's filter from the server, once: the programs' own two come on top. A reset does
// not repeat it.
func TestKubernetesWithoutProfile(t *testing.T) {
	f := newFaultyCluster(t)
	namespace := f.namespace("bare", nil)
	pool := f.pool(namespace, "bare", func(spec *corev1.PodSpec) {
		spec.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
	})
	s := startServer(t, append(pool, "ISOLATION=run", "POOL_SIZE=1", "MAX_SANDBOXES=1")...)
	check := func() {
		t.Helper()
		const filters = `print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp")))`
		if a := mustRun(t, s, request{"code": filters}); a.Stdout != "2 3\n" {
			t.Errorf("%+v", a)
		}
	}
	check()
	first := f.claimed(namespace, s.instance)
	if a := mustRun(t, s, request{"code": "while True: pass", "timeout_ms": 300}); !a.TimedOut {
		t.Errorf("%+v", a)
	}
	check()
	last := f.claimed(namespace, s.instance)
	if last == first || pidOf(last.id) != pidOf(first.id) {
		t.Errorf("%v is not reset: %v", first, last)
	}
	pids, err := f.processes(last.id)
	if err != nil || len(pids) < 2 {
		t.Fatalf("the processes are %q (%v)", pids, err)
	}
	for _, pid := range pids {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err == nil && !strings.Contains(string(status), "\nSeccomp:\t2\n") { // it may have ended
			t.Errorf("process %s has no filter:\n%s", pid, status)
		}
	}
}

// claimed returns the only sandbox of a server in a namespace.
func (f faultyCluster) claimed(namespace, instance string) sandbox {
	f.t.Helper()
	var pods corev1.PodList
	path := "/api/v1/namespaces/" + namespace + "/pods?labelSelector=vivarium.dev/holder=" + instance
	if err := f.ask(http.MethodGet, path, nil, &pods); err != nil || len(pods.Items) != 1 {
		f.t.Fatalf("there are %d pods (%v)", len(pods.Items), err)
	}
	all, err := firstProcesses()
	if err != nil {
		f.t.Fatal(err)
	}
	found, ok := all.of(string(pods.Items[0].UID))
	if !ok {
		f.t.Fatal("the sandbox does not run")
	}
	return found
}
