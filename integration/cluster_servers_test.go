package integration

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// reachable has other servers reach a server.
func reachable(t *testing.T) []string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	address, _ := listener.Addr().(*net.TCPAddr)
	return []string{"POD_IP=127.0.0.1", "PEER_PORT=" + strconv.Itoa(address.Port)}
}

// awaitTakeover waits until a call of a session succeeds. Until then its server must say that it cannot have it yet.
func (s *session) awaitTakeover(t *testing.T, code, stdout string) {
	t.Helper()
	awaitSlow(t, "the session is taken over", func() bool {
		a, err := s.tryCall("/execute", patient(request{"code": code}))
		switch {
		case err != nil:
			t.Fatal(err)
		case a.status == http.StatusServiceUnavailable:
			return false
		case a.status != http.StatusOK || a.Stdout != stdout:
			t.Fatalf("%d %v %+v", a.status, a.Detail, a)
		}
		return true
	})
}

// beginCall begins a call of a session that lasts longer than a test, waits until it runs, and gives what comes of it
// later.
func (s *session) beginCall(t *testing.T) <-chan outcome {
	t.Helper()
	return s.beginSleep(t, 50)
}

func (s *session) beginSleep(t *testing.T, seconds int) <-chan outcome {
	t.Helper()
	answers := make(chan outcome, 1)
	go func() {
		a, err := s.tryCall("/execute", request{
			"code": fmt.Sprintf("open('began', 'w').close()\nimport time, os\ntime.sleep(%d)\nos.remove('began')", seconds), "timeout_ms": 60000,
		})
		answers <- outcome{a, err}
	}()
	if !awaitFile(t, s.sandbox(t), "/workspace/began") {
		t.Fatal("the cell does not begin")
	}
	return answers
}

// A server is killed while it runs programs. Their sandboxes end by themselves, and another server removes the pods. It
// takes the sessions over.
func TestKubernetesSlowKilledServer(t *testing.T) {
	h := cluster(t)
	first, err := start(append(reachable(t), "POOL_SIZE=1"))
	if err != nil {
		t.Fatal(err)
	}
	s := startSession(t, first, request{})
	s.python(t, "x = 'kept'")
	runSleeper(t.Context(), first, 60)
	awaitSleeper(t, first)
	selector := "vivarium.dev/state=run,vivarium.dev/holder=" + first.instance
	if err := first.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.wait() // it was killed
	awaitSlow(t, "the sandboxes of runs have ended", func() bool {
		pods, err := h.pods(selector)
		return err == nil && !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return !hasEnded(&p) })
	})
	s.server = startServer(t, append(reachable(t), "POOL_SIZE=0")...)
	s.awaitTakeover(t, "x", "'kept'\n")
	s.end(t)
	awaitSlow(t, "the pods are gone", func() bool {
		pods, err := h.pods(selector)
		return err == nil && len(pods) == 0
	})
}

// A server that was stopped for so long that another one has taken a session over says that it has lost its call, does
// not take the session back, and serves on.
func TestKubernetesSlowFrozenServer(t *testing.T) {
	first := startServer(t, append(reachable(t), "POOL_SIZE=1")...)
	other := startServer(t, append(reachable(t), "POOL_SIZE=0")...)
	s := startSession(t, first, request{})
	s.python(t, "x = 'kept'")
	call := s.beginCall(t)
	if err := first.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.process.Signal(syscall.SIGCONT) })
	taken := &session{server: other, id: s.id}
	taken.awaitTakeover(t, "x", "'kept'\n")
	taken.bash(t, "rm -f began")
	second := taken.beginCall(t)
	if err := first.process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	checkLost(t, <-call)
	program{stdout: "42\n"}.check(t, mustRun(t, first, request{"code": "print(6*7)"}))
	s.stayAway(t)
	stillRuns(t, second)
	taken.end(t)
	checkLost(t, <-second)
}

// stayAway makes calls through a server that has lost a session. They are refused, or wait behind the call of the other
// server until their clients leave.
func (s *session) stayAway(t *testing.T) {
	t.Helper()
	impatient := http.Client{Timeout: 2 * time.Second}
	for range 3 {
		resp, err := impatient.Post(s.server.url+s.path("/bash"), "application/json", strings.NewReader(`{"cmd": "true"}`))
		if err != nil {
			continue
		}
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("it is answered with %d", resp.StatusCode)
		}
		_ = resp.Body.Close()
	}
}

// stillRuns checks that a call has not ended.
func stillRuns(t *testing.T, call <-chan outcome) {
	t.Helper()
	select {
	case o := <-call:
		t.Errorf("the call that must go on has ended: %v %+v", o.err, o.a)
	default:
	}
}

func checkLost(t *testing.T, o outcome) {
	t.Helper()
	if o.err != nil || o.a.status != http.StatusOK || o.a.End.Reason != "sandbox_lost" {
		t.Errorf("%v %+v", o.err, o.a)
		return
	}
	t.Logf("it is told: %s", o.a.End.Message)
}

// A server that the apiserver does not answer serves what it has. A session that another server has taken over it does
// not take back.
func TestKubernetesSlowCutOffServer(t *testing.T) {
	h := cluster(t)
	g := h.openGate(t)
	first := startServer(t, append(reachable(t), "POOL_SIZE=1", "MAX_SANDBOXES=1", "KUBECONFIG="+h.account(t, "cut off", g.Addr().String()))...)
	other := startServer(t, append(reachable(t), "POOL_SIZE=0")...)
	s := startSession(t, first, request{})
	s.python(t, "x = 'kept'")
	if _, ok := awaitRunning(first.instance, 1); !ok {
		t.Fatal("no warm sandbox")
	}
	l := startLoad(1, runs(t, first))
	l.await(t, 5)
	open := g.shut(t)
	program{stdout: "'kept'\n"}.check(t, s.python(t, "x"))
	taken := &session{server: other, id: s.id}
	awaitSlow(t, "the other server, which passes calls on until then, holds the session", func() bool {
		program{stdout: "'kept'\n"}.check(t, taken.python(t, "x"))
		pods, err := h.pods("vivarium.dev/session=" + s.id)
		return err == nil && len(pods) == 1 && pods[0].Labels["vivarium.dev/holder"] == other.instance
	})
	call := taken.beginCall(t)
	s.stayAway(t)
	stillRuns(t, call)
	taken.end(t)
	checkLost(t, <-call)
	l.await(t, 5)
	open()
	l.end(t)
	startSession(t, first, request{}).python(t, "1")
}

// The apiserver does not answer for a while. Runs and calls of sessions go on. What is new has to wait, and what is not
// known is not denied. All is well again when it is back.
func TestKubernetesSlowSilentAPIServer(t *testing.T) {
	h := cluster(t)
	g := h.openGate(t)
	h.silence(t, func() func() { return g.shut(t) }, "KUBECONFIG="+h.account(t, "silence", g.Addr().String()))
}

// silence tests a server while the apiserver does not answer: stop has it be silent, until what that returns is called.
func (h *kubernetesHost) silence(t *testing.T, stop func() func(), env ...string) {
	t.Helper()
	server := startServer(t, append(env, "POOL_SIZE=1", "MAX_SANDBOXES=2")...)
	s := startSession(t, server, request{})
	s.python(t, "x = 0")
	l := startLoad(2, runs(t, server))
	calls := startLoad(1, func() error {
		a, err := s.tryCall("/execute", patient(request{"code": "x += 1"}))
		if err == nil && (a.status != http.StatusOK || a.exitCode() != "0") {
			t.Errorf("%d %v %+v", a.status, a.Detail, a)
		}
		return err
	})
	l.await(t, 20)
	resume := stop()
	created := make(chan int, 1)
	go func() {
		var answer struct{ Detail any }
		status := server.post(t, "/v1/sessions", request{}, &answer)
		t.Logf("creation gives %d %v", status, answer.Detail)
		created <- status
	}()
	unknown := &session{server: server, id: strings.Repeat("0", len(s.id))}
	a, err := unknown.tryCall("/execute", request{"code": "1"})
	if err != nil || a.status != http.StatusServiceUnavailable {
		t.Errorf("an unknown session: %v %+v", err, a)
	}
	if status := <-created; status != http.StatusServiceUnavailable {
		t.Errorf("creation gives %d", status)
	}
	// A program that is in the way ends as ever, and its sandbox is renewed.
	if a := mustRun(t, server, request{"code": "while True: pass", "timeout_ms": 100}); !a.TimedOut {
		t.Errorf("%+v", a)
	}
	l.await(t, 20)
	calls.await(t, 5)
	var health struct{ Status, Message string }
	if err := getJSON(t, server.url+"/health", &health); err != nil || health.Status != "ok" {
		t.Errorf("%v %+v", err, health)
	}
	resume()
	awaitSlow(t, "sessions can be created", func() bool {
		next, ok := tryCreate(t, server)
		if ok {
			next.end(t)
		}
		return ok
	})
	l.end(t)
	calls.end(t)
	s.end(t)
	if a, err := unknown.tryCall("/execute", request{"code": "1"}); err != nil || a.status != http.StatusNotFound {
		t.Errorf("an unknown session: %v %+v", err, a)
	}
}

// add returns a call that adds one to a variable of a session.
func (s *session) add() error {
	a, err := s.tryCall("/execute", patient(request{"code": "x += 1"}))
	if err == nil && (a.status != http.StatusOK || a.exitCode() != "0" || a.StateLost) {
		return fmt.Errorf("%d %v %+v", a.status, a.Detail, a)
	}
	return err
}

// Calls of a session go through any server, one after the other.
func TestKubernetesServersShareASession(t *testing.T) {
	first, second := startServer(t, append(reachable(t), "POOL_SIZE=0")...), startServer(t, append(reachable(t), "POOL_SIZE=0")...)
	s := startSession(t, first, request{})
	s.python(t, "x = 0")
	const each = 20
	var clients sync.WaitGroup
	for _, server := range []*server{first, second} {
		for range 2 {
			clients.Go(func() {
				for range each / 2 {
					if err := (&session{server: server, id: s.id}).add(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	clients.Wait()
	program{stdout: fmt.Sprintf("%d\n", 2*each)}.check(t, s.python(t, "x"))
	// What is sent to the other one meanwhile waits for a call, and does not end it.
	call := s.beginSleep(t, 3)
	program{stdout: fmt.Sprintf("%d\n", 2*each)}.check(t, (&session{server: second, id: s.id}).python(t, "x"))
	if o := <-call; o.err != nil || o.a.status != http.StatusOK || o.a.exitCode() != "0" {
		t.Errorf("%v %+v", o.err, o.a)
	}
}

// The servers are replaced one by one while clients use them, which go to those that are there. No call fails, and no
// state is lost.
func TestKubernetesServersAreRolledOut(t *testing.T) {
	next := func() *server {
		s, err := start(append(reachable(t), "POOL_SIZE=1", "SHUTDOWN_TIMEOUT_SEC=60"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.process.Kill() }) // unless it has ended
		return s
	}
	var mu sync.Mutex
	servers := []*server{next(), next()}
	turn := 0
	pick := func() *server {
		mu.Lock()
		defer mu.Unlock()
		turn++
		return servers[turn%len(servers)]
	}
	s := startSession(t, servers[0], request{})
	s.python(t, "x = 0")
	all := startLoad(2, func() error { return runs(t, pick())() })
	calls := startLoad(2, func() error { return (&session{server: pick(), id: s.id}).add() })
	calls.await(t, 10)
	for i := range servers {
		replaced := servers[i]
		fresh := next()
		mu.Lock()
		servers[i] = fresh
		mu.Unlock()
		replaced.leave(t)
		calls.await(t, 10)
		all.await(t, 10)
	}
	all.end(t)
	calls.end(t)
	made, _ := calls.state()
	s.server = servers[0]
	program{stdout: fmt.Sprintf("%d\n", made)}.check(t, s.python(t, "x"))
	s.end(t)
	for _, server := range servers {
		if err := server.end(); err != nil {
			t.Error(err)
		}
	}
}
