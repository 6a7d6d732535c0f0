package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A session that cannot be reached is unavailable, which is not an internal error.
func TestUnreachable(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	info := create(t, m)
	h.only(t).links[0].Detach()
	h.unreachable = errors.New("time is up")
	if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.Unavailable) {
		t.Errorf("the call returns %v", err)
	}
}

// A host that does not answer delays a call for a bounded time, and not at all once
// its caller has left.
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
				_, err := m.RunPython(ctx, info.ID, execution.Request{Code: "1"})
				if took := time.Since(began); !isCode(err, c.code) || took != c.want {
					t.Errorf("the call returns %v after %v", err, took)
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

// A session that ended without the manager is unknown, and its place is free.
func TestGone(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	info := create(t, m)
	if err := h.End(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.NotFound) {
		t.Errorf("the call returns %v", err)
	}
}

// A file that is not found does not mean that the session is gone: its calls still run
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
			_, err := m.RunPython(t.Context(), info.ID, execution.Request{Files: []execution.Input{file}})
			if !isCode(err, execution.NotFound) || !strings.HasPrefix(err.Error(), "File ") {
				t.Errorf("the call without its file returns %v", err)
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

// A call whose file cannot be sent a second time makes no second connection, which
// would end the calls of other servers.
func TestFileIsSpent(t *testing.T) {
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
	upload := func(source execution.Source, spent func() bool) error {
		files := []execution.Input{{Path: "a", Size: 1, Source: source}}
		return m.WriteFiles(t.Context(), info.ID, execution.WriteRequest{Files: files, Spent: spent})
	}
	source := new(once)
	if err := upload(source, source.spent); !isCode(err, execution.Unavailable) || h.attached != 0 {
		t.Errorf("the call returns %v, with %d connections more", err, h.attached)
	}
	if err := upload(nil, nil); !isCode(err, execution.Unavailable) || h.attached != 2 {
		t.Errorf("one that can be sent again returns %v, with %d connections more", err, h.attached)
	}
}

// A bounded number of calls waits; the others are refused.
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

// Calls of a session run one after the other; the caller of a waiting one may leave.
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
		_, err := m.RunPython(ctx, info.ID, execution.Request{Code: "1"})
		if !isCode(err, execution.Cancelled) {
			t.Errorf("the impatient caller gets %v", err)
		}
		calls.Wait()
	})
}

// A file that did not arrive is an error with the reason.
func TestReadFileThatDoesNotArrive(t *testing.T) {
	for name, c := range map[string]struct {
		result execution.Result
		want   string // "": the file was read
	}{
		"read":    {execution.Result{Files: []execution.File{{Path: "a"}}}, ""},
		"skipped": {execution.Result{Skipped: []execution.SkippedFile{{Path: "a", Reason: "it was changed"}}}, "the file could not be read: it was changed"},
		"lost":    {execution.Result{End: execution.End{Reason: execution.SandboxLost, Message: "the session ended"}}, "the file could not be read: the session ended"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost()
			m := newManager(t, h)
			info := create(t, m)
			h.only(t).do = func(_ context.Context, req execution.Request) (*execution.Result, error) {
				if req.Code != "a" || req.Keep == nil {
					t.Errorf("the session is asked for %q", req.Code)
				}
				return &c.result, nil
			}
			err := m.ReadFile(t.Context(), info.ID, execution.ReadRequest{Path: "a", Keep: func(context.Context, string, io.Reader) (string, error) { return "", nil }})
			if c.want == "" && err != nil || c.want != "" && (!isCode(err, execution.Unavailable) || err.Error() != c.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
