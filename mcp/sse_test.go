package mcp_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/mcp"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// unread is an answer that the client does not read: there is room for the first write, and then
// writes wait for their deadline.
type unread struct {
	header http.Header
	begun  chan string // the first write

	mu       sync.Mutex
	deadline time.Time
}

func newUnread() *unread { return &unread{header: make(http.Header), begun: make(chan string, 1)} }

func (u *unread) Header() http.Header { return u.header }
func (u *unread) WriteHeader(int)     {}
func (u *unread) Flush()              {}

func (u *unread) SetWriteDeadline(deadline time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.deadline = deadline
	return nil
}

func (u *unread) Write(data []byte) (int, error) {
	select {
	case u.begun <- string(data):
		return len(data), nil
	default:
	}
	u.mu.Lock()
	deadline := u.deadline
	u.mu.Unlock()
	if deadline.IsZero() {
		select {} // for ever
	}
	time.Sleep(time.Until(deadline))
	return 0, os.ErrDeadlineExceeded
}

// opened counts the files that were read.
type opened struct {
	noFiles
	count atomic.Int32
}

func (o *opened) Stat(context.Context, string) (filestore.Info, error) {
	return filestore.Info{ID: "a", Size: 1}, nil
}

func (o *opened) Get(context.Context, string) (*filestore.File, error) {
	o.count.Add(1)
	return nil, errNoFile
}

// A client that does not read holds few answers, and its stream ends soon. After a client has
// left, no more files are read.
func TestUnreadSSE(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		t.Run(fmt.Sprintf("leaves %v", leaves), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testUnreadSSE(t, leaves) })
		})
	}
}

func testUnreadSSE(t *testing.T, leaves bool) {
	t.Helper()
	files := new(opened)
	opts := options(nil)
	opts.Files = files
	handlers, endStreams := mcp.New(opts).Handlers()
	defer endStreams()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	stream, over := newUnread(), make(chan struct{})
	go func() {
		defer close(over)
		handlers[transport.SSEPath].ServeHTTP(stream, httptest.NewRequestWithContext(ctx, http.MethodGet, transport.SSEPath, nil))
	}()
	_, endpoint, _ := strings.Cut(<-stream.begun, "data: ")
	endpoint = strings.TrimSpace(endpoint)
	refused := 0
	for i := range 200 {
		body := fmt.Sprintf(`{"jsonrpc": "2.0", "id": %d, "method": "resources/read", "params": {"uri": "vivarium://files/a"}}`, i)
		w := httptest.NewRecorder()
		handlers[transport.MessagePath].ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, strings.NewReader(body)))
		switch w.Code {
		case http.StatusAccepted:
		case http.StatusTooManyRequests:
			refused++
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	synctest.Wait()
	if leaves {
		leave()
	}
	began := time.Now()
	<-over
	synctest.Wait()
	if read := files.count.Load(); read > 8 || refused < 100 {
		t.Errorf("%d files were read, %d requests refused", read, refused)
	}
	if took := time.Since(began); took > 3*time.Minute {
		t.Errorf("the stream ended after %v", took)
	}
}

// The connection of a client that does not read an answer is closed in time.
func TestUnreadStreamable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handlers, endStreams := mcp.New(options(gives(printed("42\n"), nil))).Handlers()
		answer := newUnread()
		answer.begun <- "" // there is no room
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, transport.StreamablePath, strings.NewReader(hello))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		began := time.Now()
		handlers[transport.StreamablePath].ServeHTTP(answer, r)
		if took := time.Since(began); took > 3*time.Minute {
			t.Errorf("the answer was given up after %v", took)
		}
		endStreams()
	})
}

// What waits for answers is bounded on a stream, and charged to the account of the
// request that it came with; what makes room is always taken, and so is what comes when
// there is room.
func TestBoundSSE(t *testing.T) {
	const most = 64
	r := newRuns()
	r.begun, r.ended = make(chan string, 2*most), make(chan string, 2*most)
	opts := optionsOf(r)
	opts.Parallel, opts.OutputBytes = 2*most, 1
	const bytes, message = 10_000, 10
	budget := execution.NewBudget(bytes)
	server, _ := newHTTP(t, opts, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			account := budget.Open("")
			defer account.Close()
			if r.Method == http.MethodPost {
				if err := account.Take(message); err != nil {
					t.Error(err)
				}
			}
			next.ServeHTTP(w, r.WithContext(execution.WithAccount(r.Context(), account)))
		})
	})
	call := func(endpoint string, id int) int {
		status, _, _ := post(t, server.Client(), server.URL+endpoint, "", strings.Replace(callCode, `"id": 2`, fmt.Sprintf(`"id": %d`, id), 1))
		return status
	}
	_, one := openSSE(t, server)
	_, other := openSSE(t, server)
	for i := range most {
		if status := call(one, i); status != http.StatusAccepted {
			t.Fatalf("call %d: %d", i, status)
		}
		<-r.begun
	}
	if status := call(one, most); status != http.StatusTooManyRequests {
		t.Errorf("one more: %d", status)
	}
	if err := budget.Open("").Take(bytes - message*most + 1); err == nil {
		t.Error("calls that wait for their answers are not charged")
	}
	if status := call(other, most); status != http.StatusAccepted {
		t.Errorf("on another stream: %d", status)
	}
	<-r.begun
	cancel := `{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 0}}`
	if status, _, text := post(t, server.Client(), server.URL+one, "", cancel); status != http.StatusAccepted {
		t.Errorf("%d %s", status, text)
	}
	<-r.ended // without an answer
	for call(one, most) != http.StatusAccepted {
		runtime.Gosched()
	}
	<-r.begun
}

// Requests that are not messages for a stream are rejected.
func TestSSERefuses(t *testing.T) {
	server, _ := newHTTP(t, options(nil))
	_, endpoint := openSSE(t, server)
	for name, test := range map[string]struct {
		method, path, body string
		want               int
	}{
		"nonsense":       {http.MethodPost, endpoint, "nonsense", http.StatusBadRequest},
		"a batch":        {http.MethodPost, endpoint, "[" + hello + "]", http.StatusBadRequest},
		"no stream":      {http.MethodPost, transport.MessagePath, hello, http.StatusNotFound},
		"another stream": {http.MethodPost, transport.MessagePath + "?sessionId=x", hello, http.StatusNotFound},
		"to the stream":  {http.MethodPost, transport.SSEPath, hello, http.StatusMethodNotAllowed},
		"no message":     {http.MethodGet, endpoint, "", http.StatusMethodNotAllowed},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, bytes.NewReader([]byte(test.body)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != test.want || test.want == http.StatusMethodNotAllowed && resp.Header.Get("Allow") == "" {
			t.Errorf("%s: %d, Allow %q", name, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
}
