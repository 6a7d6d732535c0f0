package cli

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/link"
	"github.com/vivarium-sandbox/vivarium/execution/session"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// zoo is what servers share: which of them holds each session, and where they are.
type zoo struct {
	mu        sync.Mutex
	holders   map[string]string // names of servers, by session
	addresses map[string]string // of servers that are alive, by name
	sessions  map[string]execution.SessionInfo
	links     map[string]*zooLink // to a session, by its id
}

// keeper is a backend and a host of sessions, as one server has it.
type keeper struct {
	*zoo
	backend // nil: no sandboxes but sessions
	name    string
}

// zooLink is a connection to a session. The next one ends it.
type zooLink struct {
	execution.Session
	name string
	done chan struct{}
	end  func()
}

func (z *zoo) link(id, name string) *zooLink {
	if old := z.links[id]; old != nil {
		old.end()
	}
	done := make(chan struct{})
	z.links[id] = &zooLink{name: name, done: done, end: sync.OnceFunc(func() { close(done) })}
	return z.links[id]
}

func (l *zooLink) RunPython(ctx context.Context, req execution.Request, _ execution.Limits) (*execution.Result, error) {
	if req.Code == "slow" {
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond): // long enough for other calls to come meanwhile
		case <-l.done:
			return &execution.Result{Stdout: "lost", End: execution.End{Reason: execution.SandboxLost}, Started: time.Now()}, nil
		}
	}
	return &execution.Result{Stdout: l.name, ExitCode: new(int), End: execution.End{Reason: execution.Exited}, Started: time.Now()}, nil
}

func (l *zooLink) SetEnd(context.Context, time.Time) error { return nil }

func (l *zooLink) Usable() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

func (l *zooLink) Done() <-chan struct{} { return l.done }

func (l *zooLink) Detach() { l.end() }

func (k keeper) Start(_ context.Context, spec execution.Spec) (execution.Session, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.holders[spec.Session.ID], k.sessions[spec.Session.ID] = k.name, spec.Session
	return k.link(spec.Session.ID, k.name), nil
}

func (k keeper) Attach(_ context.Context, id string) (execution.Session, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if holder := k.holders[id]; holder != k.name && k.addresses[holder] != "" {
		return nil, &execution.HeldError{Session: id, Holder: holder, Peer: k.addresses[holder]}
	}
	k.holders[id] = k.name
	return k.link(id, k.name), nil
}

func (k keeper) Find(_ context.Context, id string) (execution.SessionInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s, found := k.sessions[id]; found {
		return s, nil
	}
	return execution.SessionInfo{}, execution.SessionNotFound(id)
}

func (k keeper) Owned(context.Context, execution.Owner) ([]execution.SessionInfo, error) {
	return nil, nil
}

func (k keeper) Count(context.Context, execution.Owner, []string) (own, all int, err error) {
	return 0, 0, nil
}

func (k keeper) Announce(_ context.Context, s execution.SessionInfo) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sessions[s.ID] = s
	return nil
}

func (k keeper) End(context.Context, string) error { return nil }

func (k keeper) Holder(id string) execution.Peer {
	k.mu.Lock()
	holder := k.holders[id]
	k.mu.Unlock()
	return k.Peer(holder)
}

func (k keeper) Peer(name string) execution.Peer {
	k.mu.Lock()
	defer k.mu.Unlock()
	if name == k.name || k.addresses[name] == "" {
		return execution.Peer{}
	}
	return execution.Peer{Name: name, Address: k.addresses[name]}
}

func (k keeper) Release(_ context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.holders[id] == k.name {
		k.holders[id] = ""
	}
	return nil
}

// replica is a server of several: its sessions, and its doors for clients and other servers.
type replica struct {
	keeper
	peers   *peers
	manager *session.Manager
	url     string
	close   func()
}

func (z *zoo) start(t *testing.T, name, links string) *replica {
	t.Helper()
	r := &replica{keeper: keeper{zoo: z, name: name}}
	c := defaults(t)
	c.Backend, c.PodIP, c.PeerPort, c.KubernetesLinkDir = backendKubernetes, "127.0.0.1", freePort(t), links
	var err error
	log := slog.New(slog.DiscardHandler)
	if r.peers, err = newPeers(c, cluster{r.keeper}); err != nil {
		t.Fatal(err)
	}
	r.manager = session.New(session.Options{
		Host: r.keeper, Handover: r.peers, Limits: limits(c), Max: 9,
		Spec: func(context.Context) (execution.Spec, error) { return execution.Spec{}, nil },
	})
	options := httpapi.Options{Sessions: r.manager, Limits: limits(c), MaxBodyBytes: 1 << 20, InFlightBytes: 64 << 20, Log: log, Peers: r.peers.door(r.manager.Release)}
	clients := httpapi.NewServer(options)
	others, err := r.peers.open(t.Context(), clients, options.Peers, log)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = clients.Serve(listener) })
	served.Go(func() { _ = others.server.Serve(others.listener) })
	z.mu.Lock()
	z.addresses[name] = c.PeerAddress()
	z.mu.Unlock()
	r.url = "http://" + listener.Addr().String()
	r.close = sync.OnceFunc(func() {
		options.Peers.Leave(context.Background())
		if err := r.manager.Close(context.Background()); err != nil {
			t.Error(err)
		}
		z.mu.Lock()
		delete(z.addresses, name)
		z.mu.Unlock()
		_ = others.server.Shutdown(context.Background())
		_ = clients.Shutdown(context.Background())
		r.peers.transport.CloseIdleConnections()
		served.Wait()
	})
	t.Cleanup(r.close)
	return r
}

// cluster is a keeper as a backend.
type cluster struct{ keeper }

func (c cluster) Attach(context.Context, string) (execution.Instance, error) {
	return nil, execution.ErrNotStarted
}

func (c cluster) Start(context.Context, execution.Spec) (execution.Instance, error) {
	return nil, execution.ErrNotStarted
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port
}

func writeLink(t *testing.T) string {
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
	return folder
}

// call makes a call over HTTP.
func (r *replica) call(t *testing.T, id, code string) (status int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/v1/sessions/"+id+"/execute", strings.NewReader(`{"code": "`+code+`"}`))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	request.Header.Set("Content-Type", "application/json")
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer func() { _ = answer.Body.Close() }()
	var body bytes.Buffer
	if _, err := body.ReadFrom(answer.Body); err != nil {
		t.Error(err)
	}
	return answer.StatusCode, body.String()
}

// Calls of clients reach a session's holder over any server. Calls inside a server, as MCP makes
// them, have the session handed over. All of them at once end, and none is lost.
func TestManyServers(t *testing.T) {
	z := &zoo{holders: make(map[string]string), addresses: make(map[string]string), sessions: make(map[string]execution.SessionInfo), links: make(map[string]*zooLink)}
	links := writeLink(t)
	a, b := z.start(t, "a", links), z.start(t, "b", links)
	var ids []string
	for _, r := range []*replica{a, b} {
		info, err := r.manager.Create(t.Context(), time.Hour, nil)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.ID)
		for _, any := range []*replica{a, b} {
			if status, text := any.call(t, info.ID, "1"); status != http.StatusOK || !strings.Contains(text, `"stdout":"`+r.name+`"`) {
				t.Errorf("a call over %s: %d %s", any.name, status, text)
			}
		}
	}
	var calls sync.WaitGroup
	for _, id := range ids {
		for _, r := range []*replica{a, b} {
			for range 3 {
				calls.Go(func() {
					if status, text := r.call(t, id, "slow"); status != http.StatusOK || strings.Contains(text, "lost") {
						t.Errorf("a call over %s: %d %s", r.name, status, text)
					}
				})
			}
			calls.Go(func() {
				result, err := r.manager.RunPython(t.Context(), id, execution.Request{Code: "slow"})
				if err != nil || result.Stdout != r.name {
					t.Errorf("a call on %s: %v, %v", r.name, result, err)
				}
			})
		}
	}
	calls.Wait()
}

// A server that ends while calls come hands its sessions over. No call over another server fails.
func TestServerEndsUnderCalls(t *testing.T) {
	z := &zoo{holders: make(map[string]string), addresses: make(map[string]string), sessions: make(map[string]execution.SessionInfo), links: make(map[string]*zooLink)}
	links := writeLink(t)
	a, b := z.start(t, "a", links), z.start(t, "b", links)
	info, err := b.manager.Create(t.Context(), time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() {
			for after := 0; after < 3; { // some more when it has ended
				if status, text := a.call(t, info.ID, "slow"); status != http.StatusOK || strings.Contains(text, "lost") {
					t.Errorf("%d %s", status, text)
				}
				select {
				case <-ended:
					after++
				default:
				}
			}
		})
	}
	b.close()
	close(ended)
	calls.Wait()
	if _, text := a.call(t, info.ID, "1"); !strings.Contains(text, `"stdout":"a"`) {
		t.Error(text)
	}
}

// Servers that may not call each other are not peers.
func TestNoPeers(t *testing.T) {
	alone := defaults(t)
	if p, err := newPeers(alone, nil); p != nil || err != nil {
		t.Errorf("%v, %v", p, err)
	}
	alone.Backend, alone.PodIP, alone.PeerPort = backendKubernetes, "127.0.0.1", 0
	if p, err := newPeers(alone, cluster{}); p != nil || err != nil {
		t.Errorf("%v, %v", p, err)
	}
	alone.PeerPort, alone.KubernetesLinkDir = config.Config{}.PeerPort+1, t.TempDir()
	if _, err := newPeers(alone, cluster{}); err == nil || !strings.Contains(err.Error(), "KUBERNETES_LINK_DIR") {
		t.Errorf("without credentials: %v", err)
	}
}
