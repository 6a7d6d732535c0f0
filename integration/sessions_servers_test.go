package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A client that leaves ends its call, and nothing else.
func TestSessionCallerLeaves(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.python(t, "x = 1")
	s.leave(t, "import time\ntime.sleep(50)")
	began := time.Now()
	program{stdout: "1\n"}.check(t, s.python(t, "x"))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the next call waited for %v", took)
	}

	// What it would have been told, the next one is.
	s.leave(t, "while True:\n    try: time.sleep(50)\n    except KeyboardInterrupt: pass")
	for i, lost := range []bool{true, false} {
		if a := s.bash(t, "true"); a.StateLost != lost {
			t.Errorf("call %d after the interpreter was killed: %+v", i, a)
		}
	}
}

// leave begins a cell and leaves it.
func (s *session) leave(t *testing.T, code string) {
	t.Helper()
	began := "/tmp/began-" + strconv.FormatInt(time.Now().UnixNano(), 36) // another each time
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		body, err := json.Marshal(request{"code": "open('" + began + "', 'w').close()\n" + code, "timeout_ms": 60000})
		if err != nil {
			return
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.server.url+s.path("/execute"), bytes.NewReader(body))
		if err != nil {
			return
		}
		req.Header.Set("Content-Type", "application/json")
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	id := s.sandbox(t)
	if !awaitFile(t, id, began) {
		t.Fatal("the cell does not begin")
	}
	leave()
	<-left
}

// Sessions live on when their server goes, whichever way, and the next finds
// them, their variables included.
func TestSessionsSurviveTheirServer(t *testing.T) {
	first, err := start([]string{"POOL_SIZE=0"})
	if err != nil {
		t.Fatal(err)
	}
	s := startSession(t, first, request{"ttl_seconds": 120})
	s.python(t, "x = 'kept'")
	if err := first.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.wait(); err != nil {
		t.Fatal(err)
	}
	s.server, err = start([]string{"POOL_SIZE=0"})
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Sessions []map[string]any }
	if err := getJSON(t, s.server.url+"/v1/sessions", &list); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(fmt.Sprint(list), s.id) {
		t.Errorf("the next server lists %v", list)
	}
	program{stdout: "'kept'\n"}.check(t, s.python(t, "x"))

	// One that is killed in the middle of a call loses that call alone.
	go func() {
		resp, err := http.Post(s.server.url+s.path("/execute"), "application/json",
			strings.NewReader(`{"code": "print('a' * 100000, flush=True)\nopen('began', 'w').close()\nimport time\ntime.sleep(50)", "timeout_ms": 60000}`))
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	id := s.sandbox(t)
	if !awaitFile(t, id, "/workspace/began") {
		t.Fatal("the cell does not begin")
	}
	if err := s.server.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.server.wait() // it was killed
	shared.host.bury(s.server.instance)
	s.server = startServer(t, "POOL_SIZE=0")
	program{stdout: "'kept'\n"}.check(t, s.python(t, "x"))
}

// Two servers can take turns in a session.
func TestDockerSessionServersTakeTurns(t *testing.T) {
	s := startSession(t, startServer(t, "POOL_SIZE=0"), request{})
	s.python(t, "x = 'kept'")
	other := &session{server: shared.server, id: s.id}
	program{stdout: "'kept'\n"}.check(t, other.python(t, "x"))
	program{stdout: "'kept'\n"}.check(t, s.python(t, "x"))

	// One that is connected and idle does not hold up what the other is sent.
	s.bash(t, "truncate -s 20M large")
	status, text := other.server.send(t, http.MethodGet, other.path("/files/large"), "", nil)
	if status != http.StatusOK || len(text) != 20<<20 {
		t.Errorf("the other server gives %d, %d bytes", status, len(text))
	}
}

// alongside is a body that has another sent along with it, piece by piece.
type alongside struct {
	io.Reader
	other io.Writer
}

func (a alongside) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	_, _ = a.other.Write(bytes.Repeat([]byte("A"), n)) // until its server has enough of it
	return n, err
}

// upload sends a file of a size and gives the status, 0 for none.
func (s *session) upload(name string, size int64, body io.Reader) int {
	req, err := http.NewRequest(http.MethodPut, s.server.url+s.path("/files/"+name), body)
	if err != nil {
		return 0
	}
	req.ContentLength = size
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// Two servers that send files to a session at once get in each other's way there,
// and nowhere else.
func TestDockerSessionServersSendAtOnce(t *testing.T) {
	s := startSession(t, shared.server, request{})
	other := &session{server: startServer(t, "POOL_SIZE=0"), id: s.id}
	s.python(t, "x = 'kept'")
	body, more := io.Pipe()
	status := make(chan int, 1)
	go func() { status <- s.upload("slow", 20<<20, body) }()
	if _, err := more.Write(bytes.Repeat([]byte("A"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	large := other.upload("large", size, alongside{strings.NewReader(strings.Repeat("B", size)), more})
	_ = more.CloseWithError(io.ErrUnexpectedEOF)
	slow := <-status
	t.Logf("one gives %d, the other %d", slow, large)
	program{stdout: "'kept'\n"}.check(t, other.python(t, "x"))
	for _, file := range []struct {
		path, all string
		put       int
	}{{"large", "B", large}, {"slow", "A", slow}} {
		found, content := other.server.send(t, http.MethodGet, other.path("/files/"+file.path), "", nil)
		if (file.put == http.StatusNoContent) != (found == http.StatusOK) {
			t.Errorf("%s: PUT gave %d, GET gives %d", file.path, file.put, found)
		}
		if found == http.StatusOK && strings.Trim(content, file.all) != "" {
			t.Errorf("%s has more than it was sent", file.path)
		}
	}
}
