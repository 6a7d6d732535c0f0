package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// createAll creates sessions at once, in turn on some servers. A server that gets no pod in a minute, because the node is
// slow, says so, and is asked again.
func createAll(t *testing.T, count int, servers ...*server) []*session {
	t.Helper()
	sessions := make([]*session, count)
	var again atomic.Int32
	var all sync.WaitGroup
	for i := range sessions {
		all.Go(func() {
			awaitSlow(t, "a session", func() (ok bool) {
				sessions[i], ok = tryCreate(t, servers[i%len(servers)])
				if !ok {
					again.Add(1)
				}
				return ok
			})
		})
	}
	all.Wait()
	t.Logf("%d sessions; servers were asked again %d times", count, again.Load())
	t.Cleanup(func() {
		for _, s := range sessions {
			all.Go(func() { shared.host.endSession(s.id) })
		}
		all.Wait()
	})
	return sessions
}

// tryCreate creates a session, unless there is no pod for it.
func tryCreate(t *testing.T, s *server) (*session, bool) {
	t.Helper()
	var created struct {
		SessionID string `json:"session_id"`
		Detail    any    `json:"detail"`
	}
	status := s.post(t, "/v1/sessions", request{}, &created)
	if status != http.StatusCreated && status != http.StatusServiceUnavailable {
		t.Errorf("%d %v", status, created.Detail)
	}
	return &session{server: s, id: created.SessionID}, status == http.StatusCreated
}

// Many more sessions than there are blanks, on two servers that know nothing of each other, each get a pod of their
// own. The pool fills up again, and counts none of them.
func TestKubernetesBurst(t *testing.T) {
	const count, free = 40, 4
	h := cluster(t)
	pool := h.ownPool(t, free)
	env := []string{"POOL_SIZE=0", "MAX_SESSIONS=100", "KUBERNETES_POOL=" + pool}
	sessions := createAll(t, count, startServer(t, env...), startServer(t, env...))
	var owner appsv1.Deployment
	if err := h.ask(http.MethodGet, deploymentsPath()+"/"+pool, nil, &owner); err != nil {
		t.Fatal(err)
	}
	for i, s := range sessions {
		program{stdout: fmt.Sprintf("%d\n", i)}.check(t, s.python(t, fmt.Sprintf("import socket\nx = %d\nx", i)))
		pod := h.onlyPod(t, "vivarium.dev/session="+s.id)
		if holder := pod.Labels["vivarium.dev/holder"]; holder != s.server.instance {
			t.Errorf("session %d is held by %q, not %q", i, holder, s.server.instance)
		}
		if refs := pod.OwnerReferences; len(refs) != 1 || refs[0].Kind != "Deployment" || refs[0].UID != owner.UID || refs[0].Controller == nil || !*refs[0].Controller {
			t.Errorf("session %d is owned by %+v", i, refs)
		}
	}
	for i, s := range sessions { // nobody has written over another one's
		program{stdout: fmt.Sprintf("%d\n", i)}.check(t, s.python(t, "x"))
	}
	h.awaitPool(t, pool)
	if pods, err := h.pods(blanksOf(pool)); err != nil || len(pods) != free {
		t.Errorf("%v, %d blanks", err, len(pods))
	}
}

// Runs ask the apiserver for nothing, not even those after which a sandbox is renewed. A sandbox costs a patch and
// a deletion.
func TestKubernetesBudget(t *testing.T) {
	h := cluster(t)
	s, err := start([]string{"KUBECONFIG=" + h.account(t, "budget", ""), "POOL_SIZE=1", "MAX_SANDBOXES=1", "SANDBOX_MAX_RUNS=10000"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := awaitRunning(s.instance, 1); !ok {
		t.Fatal("no warm sandbox")
	}
	log := h.openAudit(t)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for i := range 250 {
				if i%50 == 49 {
					if a, err := s.execute(t.Context(), request{"code": "while True: pass", "timeout_ms": 50}); err != nil || !a.TimedOut {
						t.Errorf("%v %+v", err, a)
					}
				} else if err := runs(t, s)(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	all := log.of(t, h, "budget")
	if pods := slices.DeleteFunc(slices.Clone(all), func(e auditEvent) bool { return e.ObjectRef.Resource != "pods" }); len(pods) > 0 {
		t.Errorf("a thousand runs cost %v", pods)
	}
	t.Logf("meanwhile it asked for %v", all)

	others := func(e auditEvent) bool {
		return e.ObjectRef.Resource != "pods" || e.Verb == "watch" || e.Verb == "list"
	}
	startSession(t, s, request{}).end(t)
	if err := s.end(); err != nil {
		t.Error(err)
	}
	var verbs []string
	for _, e := range slices.DeleteFunc(log.of(t, h, "budget"), others) {
		verbs = append(verbs, e.Verb)
		if e.ResponseStatus.Code != http.StatusOK || !strings.HasPrefix(e.UserAgent, "vivarium/") {
			t.Errorf("%v by %s", e, e.UserAgent)
		}
	}
	// The session's claim and end, and the end of the sandbox of the runs.
	if want := []string{"patch", "delete", "delete"}; !slices.Equal(verbs, want) {
		t.Errorf("a session and the end of a sandbox cost %v, not %v", verbs, want)
	}
}

// waysToGo are how pods end from outside, and what becomes of a program in one.
func waysToGo(h *kubernetesHost) map[string]struct {
	remove func(corev1.Pod) error
	now    bool // nothing of it goes on
} {
	return map[string]struct {
		remove func(corev1.Pod) error
		now    bool
	}{
		"deleted at once": {func(p corev1.Pod) error {
			return h.ask(http.MethodDelete, podPath(p)+"?gracePeriodSeconds=0", nil, nil)
		}, true},
		"deleted": {func(p corev1.Pod) error {
			return h.ask(http.MethodDelete, fmt.Sprintf("%s?gracePeriodSeconds=%d", podPath(p), grace), nil, nil)
		}, false},
		"evicted": {h.evict, false},
	}
}

// grace is how many seconds pods get that are to go, instead of the 30 of the template.
const grace = 10

// evict evicts a pod, as a drain does.
func (h *kubernetesHost) evict(p corev1.Pod) error {
	return h.ask(http.MethodPost, podPath(p)+"/eviction", map[string]any{
		"apiVersion": "policy/v1", "kind": "Eviction", "metadata": map[string]string{"name": p.Name, "namespace": p.Namespace},
		"deleteOptions": map[string]int{"gracePeriodSeconds": grace},
	}, nil)
}

// A program whose pod is to go may end in the time that Kubernetes gives it, if that is any. No other one begins there.
func TestKubernetesPodGoesUnderARun(t *testing.T) {
	h := cluster(t)
	for name, way := range waysToGo(h) {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, "POOL_SIZE=0", "MAX_SANDBOXES=2")
			run := runSleeper(t.Context(), s, 4)
			awaitSleeper(t, s)
			pod := h.onlyPod(t, "vivarium.dev/holder="+s.instance)
			if err := way.remove(pod); err != nil {
				t.Fatal(err)
			}
			program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
			o := <-run
			switch {
			case o.err != nil:
				t.Error(o.err)
			case way.now:
				program{exit: "137", reason: "sandbox_lost"}.check(t, o.a)
				if !strings.Contains(o.a.End.Message, "the pod was deleted") {
					t.Errorf("the message is %q", o.a.End.Message)
				}
			default:
				program{stdout: "finished\n"}.check(t, o.a)
			}
			awaitSlow(t, "the pod is gone", func() bool { return h.isGone(pod) })
			program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
		})
	}
}

// A session whose pod goes is not there any more. Its server creates others.
func TestKubernetesPodGoesUnderASession(t *testing.T) {
	h := cluster(t)
	for name, way := range waysToGo(h) {
		t.Run(name, func(t *testing.T) {
			s := startSession(t, shared.server, request{})
			s.python(t, "x = 1")
			pod := h.onlyPod(t, "vivarium.dev/session="+s.id)
			if err := way.remove(pod); err != nil {
				t.Fatal(err)
			}
			awaitSlow(t, "the session is gone", func() bool {
				a, err := s.tryCall("/execute", request{"code": "x"})
				if err != nil {
					t.Fatal(err)
				}
				return a.status == http.StatusNotFound
			})
			awaitSlow(t, "the pod is gone", func() bool { return h.isGone(pod) })
			next := startSession(t, shared.server, request{})
			program{stdout: "1\n"}.check(t, next.python(t, "1"))
		})
	}
}

// A blank whose PID 1 was killed has lost its key, and is no blank any more. The pool gets another one.
func TestKubernetesKilledBlank(t *testing.T) {
	h := cluster(t)
	pool := h.ownPool(t, 1)
	blank := h.onlyPod(t, blanksOf(pool))
	processes, err := firstProcesses()
	if err != nil {
		t.Fatal(err)
	}
	running, ok := processes.of(string(blank.UID))
	if !ok {
		t.Fatalf("no process of pod %s runs", blank.Name)
	}
	if err := h.kill(running.id); err != nil {
		t.Fatal(err)
	}
	awaitSlow(t, "the kubelet has seen it", func() bool {
		pods, err := h.pods(blanksOf(pool))
		return err == nil && len(pods) == 1 && pods[0].Status.ContainerStatuses[0].RestartCount > 0
	})
	s := startServer(t, "POOL_SIZE=0", "KUBERNETES_POOL="+pool)
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	if !h.isGone(blank) {
		t.Error("the killed blank is still there")
	}
	h.awaitPool(t, pool)
}
