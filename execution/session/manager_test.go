package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	answer   chan struct{} // when it may say which; nil: at once
	fail     error         // of every operation but End

	unreachable error                                                                       // of Attach
	do          func(ctx context.Context, req execution.Request) (*execution.Result, error) // of new sessions
}

// sandbox is one of them; link is a connection to it.
type sandbox struct {
	info  execution.SessionInfo
	calls []execution.Request
	do    func(ctx context.Context, req execution.Request) (*execution.Result, error) // nil: echoes
	links []*link
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
	s := &sandbox{info: spec.Session, do: h.do}
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

func (h *host) Sessions(context.Context) ([]execution.SessionInfo, error) {
	h.mu.Lock()
	h.asked++
	h.mu.Unlock()
	if h.answer != nil {
		<-h.answer
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var infos []execution.SessionInfo
	for _, s := range h.sessions {
		infos = append(infos, s.info)
	}
	return infos, h.fail
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

func (l *link) Call(ctx context.Context, _ execution.Operation, req execution.Request, _ execution.Limits) (*execution.Result, error) {
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

func (l *link) Usable() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

func (l *link) Done() <-chan struct{} { return l.done }
func (l *link) Detach()               { l.once.Do(func() { close(l.done) }) }

// only gives the one session of a host.
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
	return m.Call(t.Context(), id, execution.RunPython, execution.Request{Code: code})
}

func isCode(err error, code execution.Code) bool {
	return err != nil && execution.AsError(err).Code == code
}

func TestLife(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	before := time.Now()
	info := create(t, m, execution.Inline("a.txt", []byte("hello")))
	if left := info.Expires.Sub(before); left < session.DefaultTTL-time.Second || left > session.DefaultTTL+time.Minute {
		t.Errorf("it expires in %v", left)
	}
	if calls := h.only(t).calls; len(calls) != 1 || calls[0].Files[0].Path != "a.txt" {
		t.Errorf("files were not staged: %+v", calls)
	}
	result, err := call(t, m, info.ID, "1")
	if err != nil || result.Stdout != "1" {
		t.Fatalf("the call gives %+v, %v", result, err)
	}
	listed, err := m.List(t.Context())
	if err != nil || len(listed) != 1 || listed[0] != info {
		t.Errorf("the list is %v, %v", listed, err)
	}
	if err := m.Delete(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.NotFound) {
		t.Errorf("a call after the end gives %v", err)
	}
	if err := m.Delete(t.Context(), info.ID); !isCode(err, execution.NotFound) {
		t.Errorf("a second end gives %v", err)
	}
}

func TestUnknown(t *testing.T) {
	m := newManager(t, newHost())
	for _, id := range []string{"", "../../etc/passwd", "x", strings.Repeat("0", 32), strings.Repeat("A", 32), strings.Repeat("é", 500)} {
		_, err := call(t, m, id, "1")
		if !isCode(err, execution.NotFound) || len(err.Error()) > 200 || !strings.HasPrefix(err.Error(), "Session '") {
			t.Errorf("%.40q gives %v", id, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	m := newManager(t, newHost())
	info := create(t, m)
	for name, c := range map[string]struct {
		operation execution.Operation
		req       execution.Request
		want      string
	}{
		"no command":     {execution.RunBash, execution.Request{}, "cmd must not be empty"},
		"NUL":            {execution.RunBash, execution.Request{Code: "echo \x00"}, "cmd must not contain NUL"},
		"long command":   {execution.RunBash, execution.Request{Code: strings.Repeat("x", 128<<10)}, "at most 131071 bytes"},
		"long timeout":   {execution.RunBash, execution.Request{Code: "true", Timeout: time.Hour}, "timeout_ms exceeds maximum of 60000 ms"},
		"path out of it": {execution.ReadFile, execution.Request{Code: "../x"}, `path must not contain ".."`},
	} {
		_, err := m.Call(t.Context(), info.ID, c.operation, c.req)
		if !isCode(err, execution.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMax(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	first, _ := create(t, m), create(t, m)
	if _, err := m.Create(t.Context(), 0, nil); !isCode(err, execution.Busy) || !strings.Contains(err.Error(), "MAX_SESSIONS") {
		t.Errorf("a third session gives %v", err)
	}
	if err := m.Delete(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	create(t, m)
}

// A session whose files cannot be staged is not left behind.
func TestCreateFails(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	broken := execution.Input{Path: "../x", Size: 1}
	if _, err := m.Create(t.Context(), 0, []execution.Input{broken}); !isCode(err, execution.Invalid) {
		t.Errorf("a path out of the workspace gives %v", err)
	}
	h.fail = errors.New("no engine")
	if _, err := m.Create(t.Context(), 0, nil); err == nil {
		t.Error("no error without an engine")
	}
	if len(h.sessions) != 0 {
		t.Errorf("%d sessions are left", len(h.sessions))
	}
}

// A session that is still being started, though it runs already, counts once.
func TestMaxWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		h.do = func(context.Context, execution.Request) (*execution.Result, error) {
			time.Sleep(time.Second)
			return &execution.Result{}, nil
		}
		m := newManager(t, h)
		go func() {
			if _, err := m.Create(t.Context(), 0, []execution.Input{execution.Inline("large", nil)}); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		create(t, m)
		if _, err := m.Create(t.Context(), 0, nil); !isCode(err, execution.Busy) {
			t.Errorf("a third session gives %v", err)
		}
		time.Sleep(time.Minute)
	})
}

// A session whose caller has left, or that does not take its files, is not left
// behind.
func TestCreateForNobody(t *testing.T) {
	for name, c := range map[string]struct {
		files []execution.Input
		do    func(leave func()) error
		code  execution.Code
	}{
		"left":          {[]execution.Input{execution.Inline("a", nil)}, func(leave func()) error { leave(); return context.Canceled }, execution.Cancelled},
		"left too late": {[]execution.Input{execution.Inline("a", nil)}, func(leave func()) error { leave(); return nil }, execution.Cancelled},
		"no answer": {[]execution.Input{execution.Inline("a", nil)}, func(func()) error {
			return fmt.Errorf("%w: a secret", execution.ErrNotStarted)
		}, execution.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			h := newHost()
			h.do = func(context.Context, execution.Request) (*execution.Result, error) {
				return &execution.Result{}, c.do(leave)
			}
			if _, err := newManager(t, h).Create(ctx, 0, c.files); !isCode(err, c.code) {
				t.Errorf("it gives %v, not %s", err, c.code)
			}
			if len(h.sessions) != 0 {
				t.Errorf("%d sessions are left", len(h.sessions))
			}
		})
	}
}

// A session that cannot be reached is no fault of ours.
func TestUnreachable(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	info := create(t, m)
	h.only(t).links[0].Detach()
	h.unreachable = errors.New("time is up")
	if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.Unavailable) {
		t.Errorf("the call gives %v", err)
	}
}

// silentHost refuses to attach, and from then on does not answer.
type silentHost struct {
	*host
	silent atomic.Bool
}

func (h *silentHost) Attach(context.Context, string) (execution.Session, error) {
	h.silent.Store(true)
	return nil, errors.New("the session does not answer")
}

func (h *silentHost) Sessions(ctx context.Context) ([]execution.SessionInfo, error) {
	if h.silent.Load() {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return h.host.Sessions(ctx)
}

// A host that does not answer holds up a call for a while, and none whose caller
// has left.
func TestSilentHost(t *testing.T) {
	for name, c := range map[string]struct {
		patience, want time.Duration
		code           execution.Code
	}{
		"patient": {time.Hour, 5 * time.Second, execution.Unavailable},
		"left":    {time.Second, time.Second, execution.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &silentHost{host: newHost()}
				m := newManagerOf(t, h)
				info := create(t, m)
				h.only(t).links[0].Detach()
				ctx, cancel := context.WithTimeout(t.Context(), c.patience)
				defer cancel()
				began := time.Now()
				_, err := m.Call(ctx, info.ID, execution.RunPython, execution.Request{Code: "1"})
				if took := time.Since(began); !isCode(err, c.code) || took != c.want {
					t.Errorf("the call gives %v after %v", err, took)
				}
			})
		})
	}
}

// Another server finds the session, and this one finds it again.
func TestFoundAgain(t *testing.T) {
	h := newHost()
	first := newManager(t, h)
	info := create(t, first)
	second := newManager(t, h)
	result, err := call(t, second, info.ID, "2")
	if err != nil || result.Stdout != "2" || h.attached != 1 {
		t.Errorf("the second server gets %+v, %v, attached %d times", result, err, h.attached)
	}
	h.only(t).links[0].Detach() // as when the other takes over
	result, err = call(t, first, info.ID, "3")
	if err != nil || result.Stdout != "3" || h.attached != 2 {
		t.Errorf("the first server gets %+v, %v, attached %d times", result, err, h.attached)
	}
}

// A session that is gone without our doing is unknown, and its place is free.
func TestGone(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	info := create(t, m)
	if err := h.End(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.NotFound) {
		t.Errorf("the call gives %v", err)
	}
}

// staged is a source that is gone when it is opened.
type staged struct{}

func (staged) Open(context.Context) (io.ReadCloser, error) {
	return nil, &execution.Error{Code: execution.NotFound, Message: "File with ID 'x' not found"}
}

// A file that is not found is no session that is gone: its calls go on coming
// one after the other.
func TestFileIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := create(t, m)
		running := 0
		h.only(t).do = func(ctx context.Context, req execution.Request) (*execution.Result, error) {
			if running++; running != 1 {
				t.Error("two calls at once")
			}
			defer func() { running-- }()
			time.Sleep(time.Second)
			for _, file := range req.Files {
				if _, err := file.Open(ctx); err != nil {
					return nil, err
				}
			}
			return &execution.Result{Started: time.Now()}, nil
		}
		go func() {
			file := execution.Input{Path: "a", Size: 1, Source: staged{}}
			_, err := m.Call(t.Context(), info.ID, execution.RunPython, execution.Request{Files: []execution.Input{file}})
			if !isCode(err, execution.NotFound) || !strings.HasPrefix(err.Error(), "File ") {
				t.Errorf("the call without its file gives %v", err)
			}
		}()
		synctest.Wait()
		for range 2 { // one that waits meanwhile, one that comes afterwards
			go func() {
				if _, err := call(t, m, info.ID, "1"); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(1100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if h.attached != 0 {
			t.Errorf("the session was attached to %d times, though its connection was fine", h.attached)
		}
	})
}

// once is a source that can be opened once.
type once struct{ opened bool }

func (o *once) UsedUp() bool { return o.opened }

func (o *once) Open(context.Context) (io.ReadCloser, error) {
	if o.opened {
		return nil, errors.New("it was opened before")
	}
	o.opened = true
	return io.NopCloser(strings.NewReader("1")), nil
}

// A call whose file cannot be sent a second time ends no other server's call for
// a connection that it has no use for.
func TestFileIsUsedUp(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	info := create(t, m)
	h.only(t).do = func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		links := h.only(t).links
		defer links[len(links)-1].Detach()
		if _, err := req.Files[0].Open(ctx); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: another server has the session", execution.ErrNotStarted)
	}
	upload := func(source execution.Source) error {
		files := []execution.Input{{Path: "a", Size: 1, Source: source}}
		_, err := m.Call(t.Context(), info.ID, execution.WriteFiles, execution.Request{Files: files})
		return err
	}
	if err := upload(new(once)); !isCode(err, execution.Unavailable) || h.attached != 0 {
		t.Errorf("the call gives %v, with %d connections more", err, h.attached)
	}
	if err := upload(nil); !isCode(err, execution.Unavailable) || h.attached != 2 {
		t.Errorf("one that can be sent again gives %v, with %d connections more", err, h.attached)
	}
}

// Who waits for a session while it ends finds that out when the turn comes, and
// leaves no connection behind.
func TestDeletedWhileCallsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := create(t, m)
		h.only(t).do = func(context.Context, execution.Request) (*execution.Result, error) {
			time.Sleep(time.Second)
			return &execution.Result{Started: time.Now()}, nil
		}
		waited := make(chan error, 1)
		go func() { _, _ = call(t, m, info.ID, "1") }()
		synctest.Wait()
		go func() {
			_, err := call(t, m, info.ID, "2")
			waited <- err
		}()
		synctest.Wait()
		if err := m.Delete(t.Context(), info.ID); err != nil {
			t.Fatal(err)
		}
		if err := <-waited; !isCode(err, execution.NotFound) || !strings.HasPrefix(err.Error(), "Session '") {
			t.Errorf("the call that waited gives %v", err)
		}
	})
}

// A host that takes its time to end a session holds nobody up: the call that the
// end cuts short says so, and the one that waits is not tried.
func TestDeletedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &slowEnd{host: newHost(), begun: make(chan struct{})}
		m := newManagerOf(t, h)
		info := create(t, m)
		s := h.only(t)
		s.do = func(context.Context, execution.Request) (*execution.Result, error) {
			<-h.begun // the sandbox is killed
			s.links[0].Detach()
			return &execution.Result{Started: time.Now(), End: execution.End{Reason: execution.SandboxLost}}, nil
		}
		first, second := make(chan *execution.Result, 1), make(chan error, 1)
		go func() {
			result, _ := call(t, m, info.ID, "1")
			first <- result
		}()
		synctest.Wait()
		go func() {
			_, err := call(t, m, info.ID, "2")
			second <- err
		}()
		synctest.Wait()
		deleted := make(chan error, 1)
		go func() { deleted <- m.Delete(t.Context(), info.ID) }()
		if result := <-first; result == nil || result.End.Message != "the session was ended" {
			t.Errorf("the call that was cut short gives %+v", result)
		}
		if err := <-second; !isCode(err, execution.NotFound) {
			t.Errorf("the call that waited gives %v", err)
		}
		if len(s.links) != 1 || len(s.calls) != 1 {
			t.Errorf("there were %d connections and %d calls", len(s.links), len(s.calls))
		}
		select {
		case err := <-deleted:
			t.Errorf("it has ended before its host says so: %v", err)
		default:
		}
		if err := <-deleted; err != nil {
			t.Error(err)
		}
	})
}

// A session that could not be ended goes on.
func TestDeletedInVain(t *testing.T) {
	h := &slowEnd{host: newHost(), begun: make(chan struct{}), fault: errors.New("the engine hangs")}
	m := newManagerOf(t, h)
	info := create(t, m)
	if err := m.Delete(t.Context(), info.ID); err == nil {
		t.Error("no error")
	}
	if _, err := call(t, m, info.ID, "1"); err != nil {
		t.Error(err)
	}
}

// slowEnd takes its time to end a session, or cannot.
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

// A session that is deleted while it is attached to keeps no connection.
func TestDeletedWhileAttaching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &slowHost{host: newHost(), takes: time.Second}
		m := newManagerOf(t, h)
		info := create(t, m)
		s := h.only(t)
		s.links[0].Detach()
		called := make(chan error, 1)
		go func() {
			_, err := call(t, m, info.ID, "1")
			called <- err
		}()
		synctest.Wait()
		if err := m.Delete(t.Context(), info.ID); err != nil {
			t.Fatal(err)
		}
		if err := <-called; !isCode(err, execution.NotFound) {
			t.Errorf("the call gives %v", err)
		}
		if len(s.links) != 2 || s.links[1].Usable() || len(s.calls) != 0 {
			t.Errorf("of %d connections the last is still there, or was used for %d calls", len(s.links), len(s.calls))
		}
	})
}

// slowHost takes its time to attach, whoever has left meanwhile.
type slowHost struct {
	*host
	takes time.Duration
}

func (h *slowHost) Attach(ctx context.Context, id string) (execution.Session, error) {
	link, err := h.host.Attach(ctx, id)
	time.Sleep(h.takes)
	return link, err
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info, err := m.Create(t.Context(), time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(999 * time.Millisecond)
		if _, err := call(t, m, info.ID, "1"); err != nil {
			t.Errorf("just before its end: %v", err)
		}
		time.Sleep(time.Millisecond)
		if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.NotFound) {
			t.Errorf("at its end: %v", err)
		}
		if listed, err := m.List(t.Context()); err != nil || len(listed) != 0 {
			t.Errorf("it is listed: %v, %v", listed, err)
		}
	})
}

// A session that does not end at its time is ended.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		if _, err := m.Create(t.Context(), time.Second, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if list, _ := h.Sessions(t.Context()); len(list) != 1 {
			t.Fatalf("%d sessions before the grace is over", len(list))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if list, _ := h.Sessions(t.Context()); len(list) != 0 {
			t.Errorf("%d sessions afterwards", len(list))
		}
	})
}

// Deleting one that is over, and still there, ends it.
func TestDeleteOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info, err := m.Create(t.Context(), time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if err := m.Delete(t.Context(), info.ID); !isCode(err, execution.NotFound) {
			t.Errorf("deleting gives %v", err)
		}
		if list, _ := h.Sessions(t.Context()); len(list) != 0 {
			t.Errorf("%d sessions are left", len(list))
		}
	})
}

// Of many calls at once some wait, and the others are refused.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := create(t, m)
		h.only(t).do = func(context.Context, execution.Request) (*execution.Result, error) {
			time.Sleep(time.Second)
			return &execution.Result{Started: time.Now()}, nil
		}
		results := make(chan error, 20)
		for range cap(results) {
			go func() {
				_, err := call(t, m, info.ID, "1")
				results <- err
			}()
		}
		busy := 0
		for range cap(results) {
			if err := <-results; isCode(err, execution.Busy) {
				busy++
			} else if err != nil {
				t.Error(err)
			}
		}
		if busy != cap(results)-9 {
			t.Errorf("%d calls were refused", busy)
		}
	})
}

// Calls of a session come one after the other; one that waits can be left.
func TestOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := create(t, m)
		running := 0
		h.only(t).do = func(context.Context, execution.Request) (*execution.Result, error) {
			running++
			if running != 1 {
				t.Error("two calls at once")
			}
			time.Sleep(time.Second)
			running--
			return &execution.Result{Started: time.Now()}, nil
		}
		var calls sync.WaitGroup
		for range 3 {
			calls.Go(func() {
				if _, err := call(t, m, info.ID, "1"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := m.Call(ctx, info.ID, execution.RunPython, execution.Request{Code: "1"})
		if !isCode(err, execution.Cancelled) {
			t.Errorf("the impatient caller gets %v", err)
		}
		calls.Wait()
	})
}

// Closing waits for calls, then ends them; the sessions go on.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := create(t, m)
		h.only(t).do = func(ctx context.Context, _ execution.Request) (*execution.Result, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		called := make(chan error, 1)
		go func() {
			_, err := call(t, m, info.ID, "1")
			called <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := m.Close(ctx); err == nil || time.Since(began) != time.Minute {
			t.Errorf("closing gives %v after %v", err, time.Since(began))
		}
		if err := <-called; !isCode(err, execution.Unavailable) {
			t.Errorf("the call gives %v", err)
		}
		if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.Unavailable) {
			t.Errorf("a call afterwards gives %v", err)
		}
		if h.only(t).links[0].Usable() {
			t.Error("the connection is still there")
		}
	})
}

// Calls that do not heed their end hold up closing for a while only, and leave no
// connection behind.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &slowHost{host: newHost()}
		m := newManagerOf(t, h)
		busy, lost := create(t, m), create(t, m)
		h.sessions[busy.ID].do = func(context.Context, execution.Request) (*execution.Result, error) {
			time.Sleep(time.Hour)
			return &execution.Result{Started: time.Now()}, nil
		}
		h.takes = time.Hour
		h.sessions[lost.ID].links[0].Detach()
		var calls sync.WaitGroup
		for _, id := range []string{busy.ID, lost.ID} {
			calls.Go(func() {
				if _, err := call(t, m, id, "1"); id == lost.ID && !isCode(err, execution.Unavailable) {
					t.Errorf("the call over a connection that comes too late gives %v", err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := m.Close(ctx); err == nil || time.Since(began) != time.Minute+20*time.Second {
			t.Errorf("closing gives %v after %v", err, time.Since(began))
		}
		calls.Wait()
		for _, l := range append(h.sessions[busy.ID].links, h.sessions[lost.ID].links...) {
			if l.Usable() {
				t.Error("a connection is still there")
			}
		}
	})
}

// With nothing under way, closing takes no time and finds nothing wrong.
// Who has started sessions can end them all; those of others stay.
func TestEndOurs(t *testing.T) {
	h := newHost()
	others := newManager(t, h)
	theirs := create(t, others)
	m := newManager(t, h)
	if _, err := call(t, m, theirs.ID, "1"); err != nil {
		t.Fatal(err)
	}
	gone := create(t, m)
	if err := others.Delete(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	create(t, m)
	if err := m.EndOurs(t.Context()); err != nil {
		t.Error(err)
	}
	if only := h.only(t); only.info != theirs {
		t.Errorf("%+v is left", only.info)
	}
}

func TestCloseIdle(t *testing.T) {
	m := newManager(t, newHost())
	create(t, m)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Close(over); err != nil {
		t.Error(err)
	}
}

// What ends with the session says so.
func TestExpiresDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info, err := m.Create(t.Context(), time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		h.only(t).do = func(context.Context, execution.Request) (*execution.Result, error) {
			time.Sleep(time.Second)
			return &execution.Result{End: execution.End{Reason: execution.SandboxLost, Message: "?"}, Started: time.Now()}, nil
		}
		result, err := call(t, m, info.ID, "1")
		if err != nil || result.End.Message != "the session has expired" {
			t.Errorf("the call gives %+v, %v", result, err)
		}
	})
}
