package httpapi_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/link"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

const heldSession = "1f0c9a52d3b84e67a9d27f5c0e6b8a43"

// held is the sessions of a server of several. Each call says on which server it was made.
type held struct {
	httpapi.Sessions
	server string
	begun  chan string   // the calls that have begun; nil for no one who asks
	output chan string   // of a program that prints until it is closed
	got    atomic.Int64  // bytes of files
	ended  chan struct{} // closed when a call was called off
}

func (h *held) RunPython(ctx context.Context, _ string, req execution.Request) (*execution.Result, error) {
	if h.begun != nil {
		h.begun <- req.Code
	}
	if req.Output != nil && req.Code == "print" {
		req.Started()
		for text := range h.output {
			req.Output(execution.Stdout, text)
		}
	}
	if req.Code == "wait" {
		<-ctx.Done()
		close(h.ended)
		return nil, execution.CancelledError(ctx)
	}
	return &execution.Result{Stdout: h.server + " ran " + req.Code, ExitCode: new(int), End: execution.End{Reason: execution.Exited}, Started: time.Now()}, nil
}

func (h *held) WriteFiles(ctx context.Context, _ string, req execution.WriteRequest) error {
	for _, file := range req.Files {
		source, err := file.Source.Open(ctx)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, source)
		h.got.Add(n)
		if err = errors.Join(err, source.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (h *held) Delete(context.Context, string) error { return nil }

// fleet is several servers that share sessions.
type fleet struct {
	mu      sync.Mutex
	holders map[string]execution.Peer // of sessions
	servers map[string]*member
}

// member is one of them.
type member struct {
	name     string
	sessions *held
	url      string
	peer     execution.Peer
	peers    *httpapi.Peers
	released chan string
	others   *http.Server
}

func newFleet(t *testing.T, names ...string) *fleet {
	t.Helper()
	f := &fleet{holders: make(map[string]execution.Peer), servers: make(map[string]*member)}
	credentials := newCredentials(t)
	for _, name := range names {
		f.servers[name] = f.start(t, name, credentials)
	}
	return f
}

func (f *fleet) start(t *testing.T, name string, credentials *link.Credentials) *member {
	t.Helper()
	m := &member{name: name, sessions: &held{server: name, ended: make(chan struct{})}, released: make(chan string, 1)}
	transport := httpapi.NewPeerTransport(link.NewDialer(), credentials.PeerClient())
	opts := options(nil)
	opts.Sessions = m.sessions
	opts.Peers = &httpapi.Peers{
		Holder: func(id string) execution.Peer { return f.holder(id, name) },
		Peer:   func(other string) execution.Peer { return f.servers[other].peer },
		ServerOf: func(r *http.Request) string {
			return r.Header.Get("Server-Of")
		},
		Release: func(_ context.Context, id string) error {
			if id != heldSession {
				return execution.SessionNotFound(id)
			}
			m.released <- id
			return nil
		},
		Transport: transport,
	}
	opts.Mount = map[string]http.Handler{"/mcp": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s over TLS: %v", name, r.TLS != nil)
	})}
	m.peers = opts.Peers
	opts.AllowedOrigins = []string{"https://example.com"}
	clients := httpapi.NewServer(opts)
	m.others = httpapi.NewPeerServer(clients, opts.Peers, opts.Log)
	serve := func(server *http.Server, listener net.Listener) {
		var served sync.WaitGroup
		served.Go(func() { _ = server.Serve(listener) })
		t.Cleanup(func() {
			_ = server.Close()
			served.Wait()
		})
	}
	own, others := listenHere(t), listenHere(t)
	m.url = "http://" + own.Addr().String()
	m.peer = execution.Peer{Name: name, Address: others.Addr().String()}
	serve(clients, own)
	serve(m.others, tls.NewListener(others, credentials.PeerServer()))
	t.Cleanup(transport.CloseIdleConnections)
	return m
}

func listenHere(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func newCredentials(t *testing.T) *link.Credentials {
	t.Helper()
	ca, err := link.NewCA("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := ca.Issue("test", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for name, text := range map[string][]byte{link.CertificateFile: certificate, link.KeyFile: key, link.CAFile: ca.Certificate} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	credentials, err := link.LoadCredentials(folder)
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

// hold makes a server the holder of the session.
func (f *fleet) hold(peer execution.Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holders[heldSession] = peer
}

// holder returns the holder of a session, unless it is the server that asks.
func (f *fleet) holder(id, asks string) execution.Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holders[id].Name == asks {
		return execution.Peer{}
	}
	return f.holders[id]
}

// do makes a request of a server.
func (m *member) do(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, m.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	got, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Body.Close() }()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return answer{got.StatusCode, got.Header, strings.TrimSpace(string(text))}
}

func (m *member) run(t *testing.T) answer {
	t.Helper()
	return m.do(t, http.MethodPost, "/v1/sessions/"+heldSession+"/execute", `{"code": "1"}`)
}

func wantRun(t *testing.T, got answer, server string) {
	t.Helper()
	if got.status != http.StatusOK || !strings.Contains(got.body, server+" ran 1") {
		t.Errorf("%d %s is not of %s", got.status, got.body, server)
	}
}

// A call is made on the server that holds its session, and on no other.
func TestCallsAreForwarded(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.servers["a"], f.servers["b"]
	wantRun(t, a.run(t), "a") // no one holds it
	f.hold(b.peer)
	wantRun(t, a.run(t), "b")
	wantRun(t, b.run(t), "b")
	f.hold(a.peer)
	wantRun(t, b.run(t), "a")
	got := b.do(t, http.MethodDelete, "/v1/sessions/"+heldSession, "")
	if got.status != http.StatusNoContent {
		t.Errorf("%d %s", got.status, got.body)
	}
	for _, path := range []string{"/v1/sessions/" + heldSession + "/other", "/v1/sessions"} {
		if got := b.do(t, http.MethodPut, path, ""); got.status != http.StatusNotFound && got.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}

// Faults are those that the holder finds.
func TestFaultsOfTheHolder(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.hold(f.servers["b"].peer)
	a := f.servers["a"]
	path := "/v1/sessions/" + heldSession + "/execute"
	for name, test := range map[string]struct {
		body string
		want int
	}{
		"invalid":   {`{"code": 1}`, http.StatusUnprocessableEntity},
		"broken":    {`{`, http.StatusUnprocessableEntity},
		"too large": {strings.Repeat(" ", maxBody+1), http.StatusRequestEntityTooLarge},
	} {
		if got := a.do(t, http.MethodPost, path, test.body); got.status != test.want || !strings.Contains(got.body, "detail") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := a.do(t, http.MethodPost, path, "x", "Content-Type", "text/plain"); got.status != http.StatusUnsupportedMediaType {
		t.Errorf("%d", got.status)
	}
}

// Headers that both servers set are sent once. URLs are those of the client's connection.
func TestForwardedHeaders(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.hold(f.servers["b"].peer)
	got := f.servers["a"].do(t, http.MethodPost, "/v1/sessions/"+heldSession+"/execute", `{"code": "1"}`, "Origin", "https://example.com")
	wantRun(t, got, "b")
	for _, name := range []string{"Access-Control-Allow-Origin", "X-Request-Id", "Vary", "Content-Type", "X-Content-Type-Options"} {
		if values := got.header.Values(name); len(values) != 1 {
			t.Errorf("%s is %q", name, values)
		}
	}
	if got := f.servers["a"].do(t, http.MethodPost, "/mcp", "{}", "Server-Of", "b"); got.body != "b over TLS: false" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// Output arrives while the program runs, and not only at its end.
func TestStreamsAreForwarded(t *testing.T) {
	f := newFleet(t, "a", "b")
	b := f.servers["b"]
	b.sessions.output = make(chan string)
	f.hold(b.peer)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.servers["a"].url+"/v1/sessions/"+heldSession+"/execute/stream", strings.NewReader(`{"code": "print"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	got, err := new(http.Transport).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Body.Close() }()
	var all bytes.Buffer
	for _, text := range []string{"first", "second"} {
		b.sessions.output <- text
		piece := make([]byte, 1000)
		for !strings.Contains(all.String(), text) {
			n, err := got.Body.Read(piece)
			all.Write(piece[:n])
			if err != nil {
				t.Fatalf("%v after %q", err, all.String())
			}
		}
	}
	close(b.sessions.output)
	if _, err := all.ReadFrom(got.Body); err != nil || !strings.Contains(all.String(), "event: result") {
		t.Errorf("%v: %s", err, all.String())
	}
}

// A large body passes through without being held.
func TestLargeBodiesAreForwarded(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.hold(f.servers["b"].peer)
	path := "/v1/sessions/" + heldSession + "/files/data.bin"
	if got := f.servers["a"].do(t, http.MethodPut, path, strings.Repeat("x", maxFile)); got.status/100 != 2 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if n := f.servers["b"].sessions.got.Load(); n != maxFile {
		t.Errorf("%d bytes have arrived", n)
	}
	if got := f.servers["a"].do(t, http.MethodPut, path, strings.Repeat("x", maxFile+1)); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// Servers that take each other for the holder do not pass a request on for ever.
func TestForwardingEnds(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.hold(execution.Peer{Name: "c", Address: f.servers["b"].peer.Address})
	wantRun(t, f.servers["a"].run(t), "b")
}

// If a client leaves, its call on the holder is called off.
func TestForwardedClientLeaves(t *testing.T) {
	f := newFleet(t, "a", "b")
	b := f.servers["b"]
	b.sessions.begun = make(chan string, 1)
	f.hold(b.peer)
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.servers["a"].url+"/v1/sessions/"+heldSession+"/execute", strings.NewReader(`{"code": "wait"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	left := make(chan error, 1)
	go func() {
		answer, err := new(http.Transport).RoundTrip(r)
		if err == nil {
			err = errors.Join(errors.New("there is an answer"), answer.Body.Close())
		}
		left <- err
	}()
	<-b.sessions.begun
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-b.sessions.ended
}

// A server that is leaving sends requests back, with their bodies.
func TestLeavingServer(t *testing.T) {
	f := newFleet(t, "a", "b")
	b := f.servers["b"]
	f.hold(b.peer)
	b.peers.Leave(t.Context())
	wantRun(t, f.servers["a"].run(t), "a")
	wantRun(t, b.run(t), "b") // a client that has not noticed yet
	if got := f.servers["a"].do(t, http.MethodPut, "/v1/sessions/"+heldSession+"/files/data.bin", strings.Repeat("x", maxFile)); got.status/100 != 2 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if n := f.servers["a"].sessions.got.Load(); n != maxFile {
		t.Errorf("%d bytes have arrived", n)
	}
}

// A server leaves when it has answered the requests that came before.
func TestLeaveWaits(t *testing.T) {
	f := newFleet(t, "a", "b")
	b := f.servers["b"]
	b.sessions.begun, b.sessions.output = make(chan string, 1), make(chan string)
	f.hold(b.peer)
	path := "/v1/sessions/" + heldSession + "/execute/stream"
	got := make(chan answer, 1)
	go func() { got <- f.servers["a"].do(t, http.MethodPost, path, `{"code": "print"}`) }()
	<-b.sessions.begun
	over, end := context.WithCancel(t.Context())
	end()
	b.peers.Leave(over)
	wantRun(t, f.servers["a"].run(t), "a")
	close(b.sessions.output)
	if got := <-got; got.status != http.StatusOK || !strings.Contains(got.body, "event: result") {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// While a holder that does not answer may be alive, calls fail. When it is gone, they are made
// here.
func TestDeadServer(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.servers["a"], f.servers["b"]
	f.hold(b.peer)
	wantRun(t, a.run(t), "b") // a connection is open
	if err := b.others.Close(); err != nil {
		t.Fatal(err)
	}
	got := a.run(t)
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "cannot be reached") {
		t.Errorf("%d %s", got.status, got.body)
	}
	f.hold(execution.Peer{})
	wantRun(t, a.run(t), "a")
}

// A server that has ended answers no more a moment before the others know that.
func TestServerEndsMeanwhile(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.servers["a"], f.servers["b"]
	a.peers.Patience = 10 * time.Second
	asked, find := make(chan struct{}, 3), a.peers.Holder
	a.peers.Holder = func(id string) execution.Peer {
		select {
		case asked <- struct{}{}:
		default:
		}
		return find(id)
	}
	f.hold(b.peer)
	if err := b.others.Close(); err != nil {
		t.Fatal(err)
	}
	got := make(chan answer, 1)
	go func() { got <- a.run(t) }()
	for range cap(asked) { // for the request, and then again
		<-asked
	}
	f.hold(execution.Peer{})
	wantRun(t, <-got, "a")
}

// A call that the holder has begun is not made again when the holder dies.
func TestHolderDiesDuringACall(t *testing.T) {
	f := newFleet(t, "a", "b")
	a, b := f.servers["a"], f.servers["b"]
	a.sessions.begun, b.sessions.begun = make(chan string, 1), make(chan string, 1)
	f.hold(b.peer)
	go func() {
		<-b.sessions.begun
		f.hold(execution.Peer{})
		_ = b.others.Close()
	}()
	got := a.do(t, http.MethodPost, "/v1/sessions/"+heldSession+"/execute", `{"code": "wait"}`)
	if got.status != http.StatusBadGateway || !strings.Contains(got.body, "may have made the call") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if len(a.sessions.begun) > 0 {
		t.Error("the call was made twice")
	}
	<-b.sessions.ended
}

// A server asks another one for a session. Clients cannot.
func TestAskRelease(t *testing.T) {
	f := newFleet(t, "a", "b")
	b := f.servers["b"]
	transport := httpapi.NewPeerTransport(link.NewDialer(), newCredentials(t).PeerClient())
	defer transport.CloseIdleConnections()
	ask := func(transport http.RoundTripper, id string) error {
		return httpapi.AskRelease(t.Context(), transport, &execution.HeldError{Session: id, Holder: "b", Peer: b.peer.Address})
	}
	if ask(transport, heldSession) == nil {
		t.Error("a server with other credentials may ask")
	}
	if got := b.do(t, http.MethodPost, "/peer/v1/sessions/"+heldSession+"/release", ""); got.status != http.StatusNotFound {
		t.Errorf("a client may ask: %d", got.status)
	}
	if len(b.released) > 0 {
		t.Fatal("it has released the session")
	}
	own := httptest.NewRecorder()
	b.others.Handler.ServeHTTP(own, httptest.NewRequest(http.MethodPost, "/peer/v1/sessions/"+heldSession+"/release", nil))
	if own.Code != http.StatusNoContent || <-b.released != heldSession {
		t.Errorf("%d", own.Code)
	}
}
