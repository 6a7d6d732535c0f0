package integration

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
)

// goAway is how soon a sandbox must be gone after whoever needed it.
const goAway = 20 * time.Second

func assertGone(t *testing.T, instance string) {
	t.Helper()
	began := time.Now()
	if left := awaitSandboxes(instance, 0); left != 0 || time.Since(began) > goAway {
		t.Errorf("%d sandboxes are left after %s", left, time.Since(began))
	}
}

// sleeper is a program that can be seen from outside while it runs.
const sleeper = "import subprocess\nsubprocess.run(['sleep', '%d'])\nprint('finished')"

// runSleeper starts a sleeper and gives its answer later.
func runSleeper(ctx context.Context, s *server, seconds int) <-chan outcome {
	answers := make(chan outcome, 1)
	go func() {
		a, err := s.execute(ctx, request{"code": fmt.Sprintf(sleeper, seconds), "timeout_ms": 60000})
		answers <- outcome{a, err}
	}()
	return answers
}

type outcome struct {
	a   *answer
	err error
}

// findSleeper returns the sandbox of a sleeper, or "" if none runs.
func findSleeper(s *server) (found string) {
	list, _ := shared.host.sandboxes(s.instance)
	for _, candidate := range list {
		commands, _ := shared.host.commands(candidate.id) // it may be going
		if slices.ContainsFunc(commands, func(c string) bool { return strings.HasPrefix(c, "sleep ") }) {
			found = candidate.id
		}
	}
	return found
}

// awaitSleeper waits until a sleeper runs and gives its sandbox.
func awaitSleeper(t *testing.T, s *server) (found string) {
	t.Helper()
	if !poll(func() bool {
		found = findSleeper(s)
		return found != ""
	}) {
		t.Fatal("the program does not run")
	}
	return found
}

// A server that is killed while a program runs and its pool is full.
func TestKilledServerLeavesNothing(t *testing.T) {
	s, err := start([]string{"POOL_SIZE=3"})
	if err != nil {
		t.Fatal(err)
	}
	runSleeper(context.Background(), s, 60)
	awaitSleeper(t, s)
	// Nothing may be on its way between creation and start: see TestDockerSweep for that.
	if _, ok := awaitRunning(s.instance, 4); !ok {
		t.Fatal("the pool is not full")
	}
	if err := s.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.wait()
	assertGone(t, s.instance)
}

// What a server leaves that dies between a container's creation and its start
// is removed by any other's sweep.
func TestDockerSweep(t *testing.T) {
	made, err := shared.engine.ContainerCreate(t.Context(), &container.Config{
		Image: slimImage, Cmd: []string{"true"}, Labels: map[string]string{"vivarium.instance": "dead"},
	}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = shared.engine.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{Force: true})
	})
	deadline := time.Now().Add(40 * time.Second) // the sweep leaves what is younger than 30 s
	if !poll(func() bool { return time.Now().After(deadline.Add(-8 * time.Second)) }) {
		t.Fatal("time does not pass")
	}
	startServer(t, "POOL_SIZE=0", "PORT=0") // sweeps at its start
	assertGone(t, "dead")
}

func TestTerminatedServerFinishesWhatRuns(t *testing.T) {
	s, err := start([]string{"POOL_SIZE=1", "MAX_SANDBOXES=1", "QUEUE_SIZE=1"})
	if err != nil {
		t.Fatal(err)
	}
	runs := runSleeper(context.Background(), s, 3)
	awaitSleeper(t, s)
	// Of two more, one waits for the only sandbox and one is refused: when that
	// is there, so is the other.
	first, second := runSleeper(context.Background(), s, 0), runSleeper(context.Background(), s, 0)
	var waits <-chan outcome
	var refused outcome
	select {
	case refused = <-first:
		waits = second
	case refused = <-second:
		waits = first
	}
	if refused.err != nil || refused.a.status != http.StatusTooManyRequests {
		t.Errorf("not refused: %+v", refused)
	}
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if o := <-waits; o.err != nil || o.a.status != http.StatusServiceUnavailable || o.a.Detail != "the server is shutting down" {
		t.Errorf("what waits: %+v", o)
	}
	if o := <-runs; o.err != nil || o.a.Stdout != "finished\n" {
		t.Errorf("what runs: %+v", o)
	}
	if err := s.wait(); err != nil {
		t.Errorf("%v\n%s", err, s.logged())
	}
	assertGone(t, s.instance)
}

// Streams that have no end do not hold a shutdown up.
func TestTerminatedServerEndsStreams(t *testing.T) {
	s, err := start([]string{"POOL_SIZE=0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/sse", "/mcp"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestLeavingClientEndsItsRun(t *testing.T) {
	s := startServer(t, "POOL_SIZE=0")
	ctx, leave := context.WithCancel(t.Context())
	done := runSleeper(ctx, s, 60)
	awaitSleeper(t, s)
	leave()
	if o := <-done; o.err == nil {
		t.Fatal("an answer came")
	}
	if !poll(func() bool { return findSleeper(s) == "" }) { // its sandbox may stay, where one is reset in place
		t.Error("it runs on")
	}
}

// A sandbox that dies while idle, and one under a run.
func TestLostSandbox(t *testing.T) {
	s := startServer(t, "POOL_SIZE=1")
	idle, ok := awaitRunning(s.instance, 1)
	if !ok {
		t.Fatal("no warm sandbox")
	}
	kill := func(id string) {
		if err := shared.host.kill(id); err != nil {
			t.Error(err)
		}
	}
	kill(idle[0])
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))

	run := runSleeper(t.Context(), s, 60)
	kill(awaitSleeper(t, s))
	o := <-run
	if o.err != nil || o.a.status != http.StatusOK {
		t.Fatalf("got %+v", o)
	}
	program{exit: "137", reason: "sandbox_lost"}.check(t, o.a)
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
}

// Of six requests one runs, one waits, and four are refused.
func TestBusy(t *testing.T) {
	s := startServer(t, "POOL_SIZE=1", "MAX_SANDBOXES=1", "QUEUE_SIZE=1")
	ctx, leave := context.WithCancel(t.Context())
	statuses := make(chan int, 6)
	for range 6 {
		go func() {
			a, err := s.execute(ctx, request{"code": "import time; time.sleep(60)", "timeout_ms": 60000})
			if err != nil {
				a = &answer{}
			}
			statuses <- a.status
		}()
	}
	for range 4 {
		if status := <-statuses; status != http.StatusTooManyRequests {
			t.Errorf("status %d", status)
		}
	}
	leave()
	<-statuses
	<-statuses
	if !poll(func() bool { // the server may not have seen yet that they left
		a, err := s.execute(t.Context(), request{"code": "print(6*7)"})
		return err == nil && a.Stdout == "42\n"
	}) {
		t.Error("it stays busy")
	}
}

func TestDockerNoEngine(t *testing.T) {
	cmd := startServerWithoutEngine(t)
	var health struct{ Status, Message string }
	if err := getJSON(t, cmd.url+"/health", &health); err != nil {
		t.Fatal(err)
	}
	if health.Status != "error" || health.Message != "Docker Engine does not answer at tcp://127.0.0.1:1" {
		t.Errorf("health: %+v", health)
	}
	a, err := cmd.execute(t.Context(), request{"code": "1"})
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusServiceUnavailable || a.Detail != "Docker Engine does not answer at tcp://127.0.0.1:1" {
		t.Errorf("status %d: %v", a.status, a.Detail)
	}
}

// Where an engine answers and has the image, sandboxes are its containers.
func TestDockerIsChosen(t *testing.T) {
	s := startServer(t, "EXECUTOR_BACKEND=auto", "POOL_SIZE=1")
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	if left := awaitSandboxes(s.instance, 1); left != 1 {
		t.Errorf("it has %d containers", left)
	}
}

func startServerWithoutEngine(t *testing.T) *server {
	t.Helper()
	s, err := startProcess([]string{"DOCKER_HOST=tcp://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.process.Signal(os.Interrupt)
		if err := s.wait(); err != nil {
			t.Errorf("%v\n%s", err, s.logged())
		}
	})
	return s
}
