package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var limits = execution.Limits{
	MaxTimeout: time.Minute, CPUTime: 5 * time.Second, OutputBytes: 1000, WorkspaceBytes: 1 << 20,
	ResultFiles: 3, ResultFileBytes: 1000, ResultBytes: 2000,
}

// host is sessions in memory. They outlive the manager.
type host struct {
	mu       sync.Mutex
	sessions map[string]*sandbox
	attached int
	asked    int           // how often it was asked for its sessions
	answer   chan struct{} // when it may answer; nil: at once
	fail     error         // of every operation but End

	unreachable error                                                                       // of Attach
	do          func(ctx context.Context, req execution.Request) (*execution.Result, error) // of new sessions
}

// sandbox is one of them; link is a connection to it.
type sandbox struct {
	info  execution.SessionInfo                                                       // as it is announced
	end   time.Time                                                                   // as the supervisor knows it
	calls []execution.Request                                                         // a command or a path is the Code
	do    func(ctx context.Context, req execution.Request) (*execution.Result, error) // nil: echoes
	links []*link

	announced int  // how often
	told      int  // how often the supervisor learnt an end
	deaf      bool // the supervisor learns no end
	mute      bool // no end can be announced
}

type link struct {
	host    *host
	sandbox *sandbox
	once    sync.Once
	done    chan struct{}
}

func newHost() *host { return &host{sessions: make(map[string]*sandbox)} }

func (h *host) connect(s *sandbox) *link {
	l := &link{host: h, sandbox: s, done: make(chan struct{})}
	s.links = append(s.links, l)
	return l
}

func (h *host) Start(_ context.Context, spec execution.Spec) (execution.Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return nil, h.fail
	}
	if spec.Isolation != execution.IsolationSession || spec.Image != "sha256:x" {
		return nil, fmt.Errorf("a strange spec: %+v", spec)
	}
	s := &sandbox{info: spec.Session, end: spec.Session.Expires, do: h.do}
	h.sessions[spec.Session.ID] = s
	return h.connect(s), nil
}

func (h *host) Attach(_ context.Context, id string) (execution.Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sessions[id]
	if s == nil {
		return nil, &execution.Error{Code: execution.NotFound, Message: "gone"}
	}
	if h.unreachable != nil {
		return nil, h.unreachable
	}
	h.attached++
	return h.connect(s), h.fail
}

func (h *host) Find(_ context.Context, id string) (execution.SessionInfo, error) {
	all, err := h.ask()
	if i := slices.IndexFunc(all, func(s execution.SessionInfo) bool { return s.ID == id }); i >= 0 {
		return all[i], err
	}
	if err == nil {
		err = &execution.Error{Code: execution.NotFound, Message: "gone"}
	}
	return execution.SessionInfo{}, err
}

func (h *host) Owned(_ context.Context, owner execution.Owner) ([]execution.SessionInfo, error) {
	all, err := h.ask()
	return slices.DeleteFunc(all, func(s execution.SessionInfo) bool { return s.Owner != owner }), err
}

func (h *host) Count(_ context.Context, owner execution.Owner, except []string) (own, all int, err error) {
	list, err := h.ask()
	own, all = execution.CountSessions(list, owner, except)
	return own, all, err
}

// ask returns all sessions.
func (h *host) ask() ([]execution.SessionInfo, error) {
	h.mu.Lock()
	h.asked++
	h.mu.Unlock()
	if h.answer != nil {
		<-h.answer
	}
	return h.list(), h.fail
}

func (h *host) list() []execution.SessionInfo {
	h.mu.Lock()
	defer h.mu.Unlock()
	var infos []execution.SessionInfo
	for _, s := range h.sessions {
		infos = append(infos, s.info)
	}
	return infos
}

func (h *host) Announce(_ context.Context, info execution.SessionInfo) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sessions[info.ID]
	if s == nil {
		return execution.SessionNotFound(info.ID)
	}
	if s.mute {
		return errors.New("it cannot be announced")
	}
	s.info = info
	s.announced++
	return s.check()
}

// check returns an error if a server that died now would leave the sandbox longer than
// it has said.
func (s *sandbox) check() error {
	if s.end.After(s.info.Expires) {
		return fmt.Errorf("the sandbox ends at %v, and is announced to end at %v", s.end, s.info.Expires)
	}
	return nil
}

func (h *host) End(_ context.Context, id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sessions[id]; s != nil {
		delete(h.sessions, id)
		for _, l := range s.links {
			l.Detach()
		}
	}
	return nil
}

func (l *link) RunPython(ctx context.Context, req execution.Request, _ execution.Limits) (*execution.Result, error) {
	return l.call(ctx, req)
}

func (l *link) RunBash(ctx context.Context, cmd execution.Command, _ execution.Limits) (*execution.Result, error) {
	return l.call(ctx, execution.Request{Code: cmd.Command, Timeout: cmd.Timeout})
}

func (l *link) ReadFile(ctx context.Context, req execution.ReadRequest, _ execution.Limits) (*execution.Result, error) {
	return l.call(ctx, execution.Request{Code: req.Path, Keep: req.Keep})
}

func (l *link) WriteFiles(ctx context.Context, req execution.WriteRequest, _ execution.Limits) error {
	_, err := l.call(ctx, execution.Request{Files: req.Files})
	return err
}

func (l *link) ListFiles(ctx context.Context, req execution.ListRequest, listing *execution.Listing, _ execution.Limits) (*execution.Result, error) {
	result, err := l.call(ctx, execution.Request{Code: "list " + req.Path})
	listing.Entries = []execution.Entry{{Path: fmt.Sprint(req.Most)}}
	return result, err
}

func (l *link) PackFolder(ctx context.Context, req execution.PackRequest, _ execution.Limits) (*execution.Result, error) {
	return l.call(ctx, execution.Request{Code: "pack " + req.Path})
}

func (l *link) DeleteFile(ctx context.Context, path string, _ execution.Limits) error {
	_, err := l.call(ctx, execution.Request{Code: "delete " + path})
	return err
}

func (l *link) RenameFile(ctx context.Context, req execution.RenameRequest, _ execution.Limits) error {
	_, err := l.call(ctx, execution.Request{Code: "rename " + req.Path + " " + req.Target})
	return err
}

func (l *link) call(ctx context.Context, req execution.Request) (*execution.Result, error) {
	if !l.Usable() {
		return nil, fmt.Errorf("%w: detached", execution.ErrNotStarted)
	}
	l.host.mu.Lock()
	l.sandbox.calls = append(l.sandbox.calls, req)
	do := l.sandbox.do
	l.host.mu.Unlock()
	if do != nil {
		return do(ctx, req)
	}
	return &execution.Result{Stdout: req.Code, Started: time.Now()}, nil
}

func (l *link) SetEnd(_ context.Context, end time.Time) error {
	l.host.mu.Lock()
	defer l.host.mu.Unlock()
	if l.sandbox.deaf {
		l.Detach()
		return errors.New("it does not hear")
	}
	l.sandbox.end = end
	l.sandbox.told++
	return l.sandbox.check()
}

func (l *link) Usable() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

func (l *link) Done() <-chan struct{} { return l.done }

func (l *link) Detach() { l.once.Do(func() { close(l.done) }) }

// only returns the one session of a host.
func (h *host) only(t *testing.T) *sandbox {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.sessions) != 1 {
		t.Fatalf("there are %d sessions, not one", len(h.sessions))
	}
	for _, s := range h.sessions {
		return s
	}
	return nil
}

func newManager(t *testing.T, h *host) *session.Manager {
	t.Helper()
	return newManagerOf(t, h)
}

func newManagerOf(t *testing.T, h session.Host) *session.Manager {
	t.Helper()
	m := session.New(session.Options{
		Host: h, Limits: limits, Max: 2,
		Spec: func(context.Context) (execution.Spec, error) { return execution.Spec{Image: "sha256:x"}, nil },
	})
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

func create(t *testing.T, m *session.Manager, files ...execution.Input) execution.SessionInfo {
	t.Helper()
	info, err := m.Create(t.Context(), 0, files)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func call(t *testing.T, m *session.Manager, id, code string) (*execution.Result, error) {
	t.Helper()
	return m.RunPython(t.Context(), id, execution.Request{Code: code})
}

func isCode(err error, code execution.Code) bool {
	return err != nil && execution.AsError(err).Code == code
}

// silentHost fails to attach, and does not answer after that.
type silentHost struct {
	*host
	silent atomic.Bool
}

func (h *silentHost) Attach(context.Context, string) (execution.Session, error) {
	h.silent.Store(true)
	return nil, errors.New("the session does not answer")
}

func (h *silentHost) Find(ctx context.Context, id string) (execution.SessionInfo, error) {
	if h.silent.Load() {
		<-ctx.Done()
		return execution.SessionInfo{}, context.Cause(ctx)
	}
	return h.host.Find(ctx, id)
}

// slowEnd is slow to end a session, or fails.
type slowEnd struct {
	*host
	begun chan struct{} // closed when it begins
	fault error
}

func (h *slowEnd) End(ctx context.Context, id string) error {
	close(h.begun)
	if h.fault != nil {
		return h.fault
	}
	time.Sleep(time.Second)
	return h.host.End(ctx, id)
}

// slowHost is slow to attach, and ignores the end of its context.
type slowHost struct {
	*host
	takes time.Duration
}

func (h *slowHost) Attach(ctx context.Context, id string) (execution.Session, error) {
	link, err := h.host.Attach(ctx, id)
	time.Sleep(h.takes)
	return link, err
}

// staged is a source that is gone when it is opened.
type staged struct{}

func (staged) Open(context.Context) (io.ReadCloser, error) {
	return nil, &execution.Error{Code: execution.NotFound, Message: "File with ID 'x' not found"}
}

// once is a source that can be opened once.
type once struct{ opened bool }

func (o *once) spent() bool { return o.opened }

func (o *once) Open(context.Context) (io.ReadCloser, error) {
	if o.opened {
		return nil, errors.New("it was opened before")
	}
	o.opened = true
	return io.NopCloser(strings.NewReader("1")), nil
}
