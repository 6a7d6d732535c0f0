package integration

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster returns the host of the tests of a cluster.
func cluster(t *testing.T) *kubernetesHost {
	t.Helper()
	h, ok := shared.host.(*kubernetesHost)
	if !ok {
		t.Fatal("this test needs -backend=kubernetes")
	}
	return h
}

// awaitSlow waits for something that pods do, which takes a loaded node minutes.
func awaitSlow(t *testing.T, what string, holds func() bool) {
	t.Helper()
	const minutes = 4
	for range minutes {
		if poll(holds) {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// account writes a kubeconfig with the rights of the chart's server, and returns its path. The audit log has the
// requests under a name. An address is another way to the apiserver; empty means the usual one.
func (h *kubernetesHost) account(t *testing.T, name, address string) string {
	t.Helper()
	return h.accountOf(t, release()+"-vivarium", name, address)
}

// accountOf does the same for another account.
func (h *kubernetesHost) accountOf(t *testing.T, account, name, address string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(h.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, cluster := range config.Clusters {
		if address != "" {
			usual, err := url.Parse(cluster.Server)
			if err != nil {
				t.Fatal(err)
			}
			cluster.Server, cluster.TLSServerName = "https://"+address, usual.Hostname()
		}
	}
	for _, user := range config.AuthInfos {
		user.Impersonate = "system:serviceaccount:" + release() + ":" + account
		user.ImpersonateUserExtra = map[string][]string{"test": {name}}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// auditLog is what the apiserver writes down from the time on when it was opened.
type auditLog struct {
	path string
	file *os.File
	rest []byte // of a line that has not come whole
}

func (h *kubernetesHost) openAudit(t *testing.T) *auditLog {
	t.Helper()
	log := &auditLog{path: filepath.Join(filepath.Dir(h.kubeconfig), "log", "audit.log")}
	var err error
	if log.file, err = os.Open(log.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.file.Close() })
	if _, err := log.file.Seek(0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	return log
}

// auditEvent is a request, as the audit log has it.
type auditEvent struct {
	Verb, RequestURI, UserAgent string
	ImpersonatedUser            struct{ Extra map[string][]string }
	ObjectRef                   struct{ Resource, Subresource, Name string }
	ResponseStatus              struct{ Code int }
}

func (e auditEvent) String() string {
	return fmt.Sprintf("%s %s %s%s: %d", e.Verb, e.ObjectRef.Resource, e.ObjectRef.Name, e.ObjectRef.Subresource, e.ResponseStatus.Code)
}

// of returns the requests under a name that have been answered by now, since the last call.
func (a *auditLog) of(t *testing.T, h *kubernetesHost, name string) (events []auditEvent) {
	t.Helper()
	mark := "/api/v1/namespaces/mark-" + strings.ToLower(rand.Text())
	if err := h.ask(http.MethodGet, mark, nil, nil); err != nil {
		t.Fatal(err)
	}
	if !poll(func() bool {
		lines, err := a.read()
		if err != nil {
			t.Fatal(err)
		}
		marked := false
		for _, line := range lines {
			var e auditEvent
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if extra := e.ImpersonatedUser.Extra["test"]; len(extra) == 1 && extra[0] == name {
				events = append(events, e)
			}
			marked = marked || e.RequestURI == mark
		}
		return marked
	}) {
		t.Fatal("the audit log stays behind")
	}
	return events
}

// read returns the lines that have come. The apiserver begins another file when one is large.
func (a *auditLog) read() (lines [][]byte, err error) {
	for {
		text, err := io.ReadAll(a.file)
		if err != nil {
			return nil, err
		}
		scanner := bufio.NewReader(bytes.NewReader(append(a.rest, text...)))
		for {
			line, err := scanner.ReadBytes('\n')
			if err != nil {
				a.rest = line
				break
			}
			lines = append(lines, line)
		}
		ours, err := a.file.Stat()
		if err != nil {
			return nil, err
		}
		newest, err := os.Stat(a.path)
		if err != nil || os.SameFile(ours, newest) {
			return lines, err
		}
		_ = a.file.Close()
		if a.file, err = os.Open(a.path); err != nil {
			return nil, err
		}
	}
}

// gate is a way to the apiserver that can be shut: then nothing passes, and what comes waits, as if the apiserver
// had been stopped.
type gate struct {
	net.Listener
	target string

	mu   sync.Mutex
	open chan struct{} // closed while it is open
}

func (h *kubernetesHost) openGate(t *testing.T) *gate {
	t.Helper()
	target, err := url.Parse(h.address)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	g := &gate{Listener: listener, target: target.Host, open: make(chan struct{})}
	close(g.open)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go g.serve(conn)
		}
	}()
	return g
}

func (g *gate) serve(from net.Conn) {
	to, err := net.Dial("tcp", g.target)
	if err != nil {
		_ = from.Close()
		return
	}
	go g.pass(from, to)
	g.pass(to, from)
}

func (g *gate) pass(from, to net.Conn) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		<-open
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// shut shuts the gate until what it returns is called, or the test ends.
func (g *gate) shut(t *testing.T) (open func()) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := make(chan struct{})
	g.open = shut
	open = sync.OnceFunc(func() { close(shut) })
	t.Cleanup(open)
	return open
}

// load is calls that clients make again and again.
type load struct {
	stop    chan struct{}
	clients sync.WaitGroup

	mu     sync.Mutex
	made   int
	faults []error
}

// startLoad has clients make calls until the load is ended.
func startLoad(clients int, call func() error) *load {
	l := &load{stop: make(chan struct{})}
	for range clients {
		l.clients.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				err := call()
				l.mu.Lock()
				l.made++
				if err != nil {
					l.faults = append(l.faults, err)
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

func (l *load) state() (made int, faults error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made, errors.Join(l.faults...)
}

// await waits until as many more calls have ended.
func (l *load) await(t *testing.T, more int) {
	t.Helper()
	before, _ := l.state()
	awaitSlow(t, fmt.Sprintf("%d more calls", more), func() bool {
		made, _ := l.state()
		return made >= before+more
	})
}

// end ends the load. All calls must have succeeded.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.clients.Wait()
	made, faults := l.state()
	t.Logf("%d calls", made)
	if faults != nil {
		t.Errorf("calls failed: %v", faults)
	}
}

// runs returns a call that runs a program on a server.
func runs(t *testing.T, s *server) func() error {
	t.Helper()
	return func() error {
		a, err := s.execute(t.Context(), request{"code": "print(6*7)"})
		if err != nil {
			return err
		}
		if a.status != http.StatusOK || a.Stdout != "42\n" {
			return fmt.Errorf("%d %v %+v", a.status, a.Detail, a)
		}
		return nil
	}
}

// tryCall makes a call of a session, whatever comes of it.
func (s *session) tryCall(route string, body request) (*answer, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	resp, err := http.Post(s.server.url+s.path(route), "application/json", bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	a := &answer{status: resp.StatusCode}
	return a, json.NewDecoder(resp.Body).Decode(a)
}

// ownPool makes a pool for a test alone, with a number of blanks, and returns its name.
func (h *kubernetesHost) ownPool(t *testing.T, free int32) string {
	t.Helper()
	var pool appsv1.Deployment
	if err := h.ask(http.MethodGet, deploymentsPath()+"/"+basePool(), nil, &pool); err != nil {
		t.Fatal(err)
	}
	name := "own-" + strings.ToLower(rand.Text()[:8])
	pool.ObjectMeta = metav1.ObjectMeta{Name: name, Labels: pool.Labels}
	label := map[string]string{"vivarium.dev/pool": name}
	pool.Spec.Replicas = &free
	pool.Spec.Selector.MatchLabels = merged(pool.Spec.Selector.MatchLabels, label)
	pool.Spec.Template.Labels = merged(pool.Spec.Template.Labels, label)
	if err := h.ask(http.MethodPost, deploymentsPath(), pool, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.ask(http.MethodDelete, deploymentsPath()+"/"+name, map[string]string{"propagationPolicy": "Background"}, nil); err != nil {
			t.Error(err)
		}
	})
	h.awaitPool(t, name)
	return name
}

// awaitPool waits until a pool has all of its blanks, of its newest template and no other.
func (h *kubernetesHost) awaitPool(t *testing.T, name string) {
	t.Helper()
	awaitSlow(t, "the pool is full", func() bool {
		var pool appsv1.Deployment
		err := h.ask(http.MethodGet, deploymentsPath()+"/"+name, nil, &pool)
		want, is := pool.Spec.Replicas, pool.Status
		return err == nil && want != nil && is.ObservedGeneration == pool.Generation &&
			is.UpdatedReplicas == *want && is.Replicas == *want && is.ReadyReplicas == *want
	})
}

// change changes an object of the cluster.
func change[T any](t *testing.T, h *kubernetesHost, path string, edit func(*T)) {
	t.Helper()
	var err error
	if !poll(func() bool { // somebody else may change it at the same time
		var object T
		if err = h.ask(http.MethodGet, path, nil, &object); err != nil {
			return false
		}
		edit(&object)
		err = h.ask(http.MethodPut, path, object, nil)
		return err == nil
	}) {
		t.Fatal(err)
	}
}

func podPath(pod corev1.Pod) string {
	return "/api/v1/namespaces/" + pod.Namespace + "/pods/" + pod.Name
}

// onlyPod returns the only pod with a label.
func (h *kubernetesHost) onlyPod(t *testing.T, selector string) corev1.Pod {
	t.Helper()
	pods, err := h.pods(selector)
	if err != nil {
		t.Fatal(err)
	}
	if len(pods) != 1 {
		t.Fatalf("there are %d pods with %s", len(pods), selector)
	}
	return pods[0]
}

// isGone reports whether a pod is not there any more.
func (h *kubernetesHost) isGone(pod corev1.Pod) bool {
	var now corev1.Pod
	err := h.ask(http.MethodGet, podPath(pod), nil, &now)
	return err == nil && now.UID != pod.UID
}

// blanksOf selects the blanks of a pool.
func blanksOf(pool string) string {
	return "vivarium.dev/state=free,vivarium.dev/pool=" + pool
}

// end ends a session through its server.
func (s *session) end(t *testing.T) {
	t.Helper()
	if status, text := s.server.send(t, http.MethodDelete, s.path(""), "", nil); status != http.StatusNoContent {
		t.Errorf("DELETE: %d %s", status, text)
	}
}

// leave ends a server, whose sessions go on.
func (s *server) leave(t *testing.T) {
	t.Helper()
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(); err != nil {
		t.Errorf("%v\n%s", err, s.logged())
	}
}
