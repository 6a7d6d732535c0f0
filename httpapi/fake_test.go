package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the snapshots in testdata anew")

// execute is a function that is an executor.
type execute func(ctx context.Context, req execution.Request) (*execution.Result, error)

func (e execute) Execute(ctx context.Context, req execution.Request) (*execution.Result, error) {
	return e(ctx, req)
}

// fails returns an executor that returns an error.
func fails(err error) execute {
	return func(context.Context, execution.Request) (*execution.Result, error) { return nil, err }
}

var limits = execution.Limits{MaxTimeout: time.Minute, WorkspaceBytes: 1 << 20}

// validates is an executor that checks requests as the real one does and runs nothing.
func validates(ctx context.Context, req execution.Request) (*execution.Result, error) {
	if _, err := req.Validate(ctx, limits); err != nil {
		return nil, err
	}
	return &execution.Result{ExitCode: new(int), End: execution.End{Reason: execution.Exited}}, nil
}

const (
	maxBody  = 2 << 20
	maxFile  = 1 << 20
	inFlight = 64 << 20
)

// noFiles is a store for tests without files. It does not store anything.
type noFiles struct{ httpapi.Files }

func (noFiles) Put(_ context.Context, name string, _ io.Reader) (filestore.Info, error) {
	return filestore.Info{ID: "id of " + name}, nil
}

func (noFiles) Hold(context.Context, string) (*filestore.Held, error) {
	return nil, &execution.Error{Code: execution.NotFound, Message: "not found"}
}

// options returns options that a test may change.
func options(executor execute) httpapi.Options {
	return httpapi.Options{
		Executor: executor, Health: func(context.Context) error { return nil }, Version: "1.2.3",
		Files: noFiles{}, Sessions: newSessions(), MaxBodyBytes: maxBody, MaxFileBytes: maxFile, Limits: limits, InFlightBytes: inFlight, Log: slog.New(slog.DiscardHandler),
	}
}

func handler(executor execute) http.Handler { return httpapi.NewHandler(options(executor)) }

// answer is the answer to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// request returns a request as a client on the same machine sends it.
func request(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "localhost:8000"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func serve(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), strings.TrimSpace(w.Body.String())}
}

// send sends a body to /v1/execute.
func send(h http.Handler, body string) answer {
	return serve(h, request(http.MethodPost, "/v1/execute", body))
}

// want checks an answer's status and JSON. The order of an object's members is ignored.
func (a answer) want(t *testing.T, status int, body string) {
	t.Helper()
	if a.status != status || canonical(t, a.body) != canonical(t, body) {
		t.Errorf("%d %s\nis not\n%d %s", a.status, a.body, status, body)
	}
	if kind := a.header.Get("Content-Type"); kind != "application/json" {
		t.Errorf("the answer's type is %q", kind)
	}
}

func canonical(t *testing.T, text string) string {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Errorf("%v in %q", err, text)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

// golden compares with a snapshot in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has changed; if that is meant, run go test ./httpapi -update. It is now:\n%s", name, got)
	}
}

// logged collects a log.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newLog() (*slog.Logger, *logged) {
	l := new(logged)
	return slog.New(slog.NewTextHandler(l, nil)), l
}
