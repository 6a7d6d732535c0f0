package integration

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What the kernel ended before a call is not blamed on it, but explains why the
// state is lost.
func TestCgroupSessionPressureBeforeACall(t *testing.T) {
	s := startSession(t, shared.server, request{})
	id := s.sandbox(t)
	// let lets what waits for a file use up all memory, and waits until it is gone.
	// It looks from outside: the kernel might end a process that looks from inside.
	let := func(name string) {
		t.Helper()
		if status, text := s.server.send(t, http.MethodPut, s.path("/files/"+name), "", strings.NewReader("")); status != http.StatusNoContent {
			t.Fatalf("%d %s", status, text)
		}
		if !poll(func() bool {
			commands, err := shared.host.commands(id)
			return err == nil && len(commands) == 1
		}) {
			t.Fatal("nothing is killed")
		}
	}
	s.bash(t, "(until [ -e job ]; do sleep 0.01; done; head -c 1G /dev/zero | tail) >/dev/null 2>&1 &")
	let("job")
	program{exit: "7"}.check(t, s.bash(t, "exit 7"))
	s.python(t, `import os, threading, time
def eat():
    while not os.path.exists("thread"): time.sleep(0.01)
    return b"x" * (1 << 30)
threading.Thread(target=eat).start()
x = 1`)
	let("thread")
	a := s.python(t, "x")
	program{exit: "1", stderr: "~NameError"}.check(t, a)
	if !a.StateLost || !strings.Contains(a.End.Message, "memory") {
		t.Errorf("%+v", a)
	}
}

// A session ends at its time with its server dead.
func TestSessionExpiresAlone(t *testing.T) {
	server, err := start([]string{"POOL_SIZE=0"})
	if err != nil {
		t.Fatal(err)
	}
	s := startSession(t, server, request{"ttl_seconds": 3})
	if err := server.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.wait() // it was killed
	s.sandbox(t)
	var ended time.Time
	if !poll(func() bool {
		ended = time.Now()
		return len(sessionSandboxes(t, s.id)) == 0
	}) {
		t.Fatal("it does not end")
	}
	if late := float64(ended.UnixMilli())/1e3 - s.expires; late > 5 {
		t.Errorf("it ended %.1f s after its time", late)
	}
}

// One session's calls leave room for those of others.
func TestSessionQueueIsBounded(t *testing.T) {
	s := startSession(t, shared.server, request{})
	statuses := make(chan int, 20)
	for range cap(statuses) {
		go func() {
			resp, err := http.Post(s.server.url+s.path("/bash"), "application/json", strings.NewReader(`{"cmd": "sleep 0.3"}`))
			if err != nil {
				statuses <- 0
				return
			}
			_ = resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	counts := make(map[int]int)
	for range cap(statuses) {
		counts[<-statuses]++
	}
	if counts[http.StatusOK] < 9 || counts[http.StatusOK]+counts[http.StatusTooManyRequests] != cap(statuses) || counts[http.StatusTooManyRequests] == 0 {
		t.Errorf("the statuses are %v", counts)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	var list struct{ Sessions []map[string]any }
	if err := getJSON(t, shared.server.url+"/v1/sessions", &list); err != nil {
		t.Fatal(err)
	}
	server := startServer(t, "POOL_SIZE=0", "MAX_SESSIONS="+strconv.Itoa(len(list.Sessions)+1))
	s := startSession(t, server, request{})
	var refused struct{ Detail string }
	if status := server.post(t, "/v1/sessions", request{}, &refused); status != http.StatusTooManyRequests || !strings.Contains(refused.Detail, "MAX_SESSIONS") {
		t.Errorf("one more: %d %s", status, refused.Detail)
	}
	if status, text := server.send(t, http.MethodDelete, s.path(""), "", nil); status != http.StatusNoContent {
		t.Errorf("deleting: %d %s", status, text)
	}
	if left := sessionSandboxes(t, s.id); len(left) != 0 {
		t.Errorf("%d sandboxes are left", len(left))
	}
	if status, text := server.send(t, http.MethodPost, s.path("/bash"), "application/json", strings.NewReader(`{"cmd": "true"}`)); status != http.StatusNotFound ||
		text != `{"detail":"Session '`+s.id+`' not found"}`+"\n" {
		t.Errorf("a call after the end: %d %s", status, text)
	}
	startSession(t, server, request{})
}

// Idle, a session takes no CPU time, once what follows a call is done.
func TestIdleSessionCostsNothing(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.python(t, "x = 1")
	id := s.sandbox(t)
	const idle = 3 * time.Second
	before, used := cpuTime(t, id), idle
	if !poll(func() bool {
		<-time.After(idle)
		now := cpuTime(t, id)
		used, before = now-before, now
		return used <= idle/1000
	}) {
		t.Errorf("it used %v of CPU time in %v", used, idle)
	}
}

func cpuTime(t *testing.T, sandbox string) time.Duration {
	t.Helper()
	used, err := shared.host.cpuTime(sandbox)
	if err != nil {
		t.Fatal(err)
	}
	return used
}
