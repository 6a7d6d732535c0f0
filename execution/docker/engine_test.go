package docker_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the snapshots in testdata anew")

// containerID is the id of every container that an engine makes.
var containerID = strings.Repeat("c0ffee", 10) + "1234"

// engine is a fake Docker Engine on a Unix socket. A test registers the routes
// that it wants: "METHOD /path" without the API's version. Others are 404.
type engine struct {
	t      *testing.T
	host   string
	mux    *http.ServeMux
	server *httptest.Server

	mu   sync.Mutex
	seen []*http.Request // all requests but those of the first connection, in order
}

// version is the part of a path that names the API's version.
var version = regexp.MustCompile(`^/v1\.\d+`)

func newEngine(t *testing.T) *engine {
	t.Helper()
	return newEngineOf(t, "{}")
}

// newEngineOf makes an engine that describes itself with some JSON.
func newEngineOf(t *testing.T, info string) *engine {
	t.Helper()
	folder, err := os.MkdirTemp("", "engine") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	socket := filepath.Join(folder, "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, host: "unix://" + socket, mux: http.NewServeMux()}
	e.server = httptest.NewUnstartedServer(http.HandlerFunc(e.serve))
	e.server.Listener = listener
	e.server.Start()
	t.Cleanup(e.server.Close)
	e.handle("GET /_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Ostype", "linux")
	})
	e.handle("GET /info", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, info) })
	return e
}

func (e *engine) serve(w http.ResponseWriter, r *http.Request) {
	path := version.ReplaceAllString(r.URL.Path, "")
	if path != "/_ping" && path != "/info" {
		e.mu.Lock()
		e.seen = append(e.seen, r)
		e.mu.Unlock()
	}
	inner := r.Clone(r.Context())
	inner.URL.Path = path
	if _, pattern := e.mux.Handler(inner); pattern == "" {
		fail(http.StatusNotFound, "no such thing: "+path)(w, r)
		return
	}
	e.mux.ServeHTTP(w, inner)
}

func (e *engine) handle(route string, handler http.HandlerFunc) { e.mux.HandleFunc(route, handler) }

// requests returns what was asked, as "METHOD /path".
func (e *engine) requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []string
	for _, r := range e.seen {
		list = append(list, r.Method+" "+version.ReplaceAllString(r.URL.Path, ""))
	}
	return list
}

// query returns a query parameter of the last request of some method and path.
func (e *engine) query(route, name string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range slices.Backward(e.seen) {
		if r.Method+" "+version.ReplaceAllString(r.URL.Path, "") == route {
			return r.URL.Query().Get(name)
		}
	}
	e.t.Errorf("%s was not asked", route)
	return ""
}

// backend makes a backend of the engine, which it finds by a context of the
// CLI's: the environment is left alone, so that tests can run side by side.
func (e *engine) backend(opts docker.Options) *docker.Backend {
	e.t.Helper()
	opts.ConfigDir, opts.Context, opts.Workspace = e.t.TempDir(), "fake", "/workspace"
	writeContext(e.t, opts.ConfigDir, opts.Context, contextFor(e.host))
	b, err := docker.New(opts)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = b.Close() })
	return b
}

// fail answers with an error of the engine's.
func fail(status int, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
	}
}

// say answers with JSON.
func say(status int, value any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(value)
	}
}

// quiet answers 204.
func quiet(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// containers lets the engine make containers in which PID 1 is a function. The
// attached stream ends when that returns.
func (e *engine) containers(pid1 func(conn net.Conn, in io.Reader)) {
	e.handle("POST /containers/create", say(http.StatusCreated, map[string]any{"Id": containerID}))
	e.handle("POST /containers/{id}/start", quiet)
	e.handle("POST /containers/{id}/attach", func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			e.t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"+
			"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		pid1(conn, buffered.Reader)
	})
}

// chunk is one chunk of the engine's multiplexed stream.
func chunk(stream byte, data string) string {
	header := make([]byte, 8)
	header[0] = stream
	binary.BigEndian.PutUint32(header[4:], uint32(len(data)))
	return string(header) + data
}

// obedient is a PID 1 that ends when its stdin does.
func obedient(_ net.Conn, in io.Reader) { _, _ = io.Copy(io.Discard, in) }

// start starts a container, which must succeed, and destroys it in the end.
func start(t *testing.T, b *docker.Backend) execution.Instance {
	t.Helper()
	i, err := b.Start(t.Context(), execution.Spec{Image: "sha256:abc"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		go func() { _, _ = io.Copy(io.Discard, i) }() // somebody must read, or it takes long to end
		_ = i.Destroy(t.Context())
	})
	return i
}

// unavailable demands an error of that message, which a user may read, with a
// cause that holds some text, which a user may not.
func unavailable(t *testing.T, err error, message, cause string) {
	t.Helper()
	var domain *execution.Error
	if !errors.As(err, &domain) || domain.Code != execution.Unavailable {
		t.Fatalf("the error is %v", err)
	}
	if domain.Explain() != message {
		t.Errorf("the message is %q, not %q", domain.Explain(), message)
	}
	if domain.Err == nil || !strings.Contains(domain.Err.Error(), cause) {
		t.Errorf("%q is not in the cause: %v", cause, domain.Err)
	}
}

const refused = "Docker Engine refused the request"

// wantRequests checks what the engine was asked.
func (e *engine) wantRequests(want ...string) {
	e.t.Helper()
	if got := e.requests(); !slices.Equal(got, want) {
		e.t.Errorf("the engine was asked\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// within waits for a channel, but not for ever.
func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: it does not come", what)
	}
}

// line reads a line that PID 1 received.
func line(in io.Reader) string {
	text, _ := bufio.NewReader(in).ReadString('\n')
	return text
}
