package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/session"
)

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
		t.Fatalf("the call returns %+v, %v", result, err)
	}
	listed, err := m.List(t.Context())
	if err != nil || len(listed) != 1 || listed[0].ID != info.ID || listed[0].Expires.Before(info.Expires) {
		t.Errorf("the list is %v, %v", listed, err)
	}
	if err := m.Delete(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, m, info.ID, "1"); !isCode(err, execution.NotFound) {
		t.Errorf("a call after the end returns %v", err)
	}
	if err := m.Delete(t.Context(), info.ID); !isCode(err, execution.NotFound) {
		t.Errorf("a second end returns %v", err)
	}
}

func TestUnknown(t *testing.T) {
	m := newManager(t, newHost())
	for _, id := range []string{"", "../../etc/passwd", "x", strings.Repeat("0", 32), strings.Repeat("A", 32), strings.Repeat("é", 500)} {
		_, err := call(t, m, id, "1")
		if !isCode(err, execution.NotFound) || len(err.Error()) > 200 || !strings.HasPrefix(err.Error(), "Session '") {
			t.Errorf("%.40q returns %v", id, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	m := newManager(t, newHost())
	info := create(t, m)
	bash := func(cmd execution.Command) error {
		_, err := m.RunBash(t.Context(), info.ID, cmd)
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no command":     {bash(execution.Command{}), "command must not be empty"},
		"NUL":            {bash(execution.Command{Command: "echo \x00"}), "command must not contain NUL"},
		"long command":   {bash(execution.Command{Command: strings.Repeat("x", 128<<10)}), "at most 131071 bytes"},
		"long timeout":   {bash(execution.Command{Command: "true", Timeout: time.Hour}), "timeout must be at most 1m0s"},
		"path out of it": {m.ReadFile(t.Context(), info.ID, execution.ReadRequest{Path: "../x"}), `path must not contain ".."`},
	} {
		if !isCode(c.err, execution.Invalid) || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func TestMax(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	first, _ := create(t, m), create(t, m)
	if _, err := m.Create(t.Context(), 0, nil); !isCode(err, execution.Busy) || !strings.Contains(err.Error(), "MAX_SESSIONS") {
		t.Errorf("a third session returns %v", err)
	}
	if err := m.Delete(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	create(t, m)
}

// The host is asked once for each creation, once for each unknown session, and not at all
// for one that is known.
func TestHostIsAskedOnce(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	var info execution.SessionInfo
	for _, step := range []struct {
		name string
		do   func() error
		want int
		code execution.Code
	}{
		{"create", func() (err error) { info, err = m.Create(t.Context(), 0, nil); return err }, 1, ""},
		{"call", func() error { _, err := call(t, m, info.ID, "1"); return err }, 0, ""},
		{"an unknown one's call", func() error { _, err := call(t, m, strings.Repeat("0", 32), "1"); return err }, 1, execution.NotFound},
		{"an unknown one's end", func() error { return m.Delete(t.Context(), strings.Repeat("0", 32)) }, 1, execution.NotFound},
		{"end", func() error { return m.Delete(t.Context(), info.ID) }, 0, ""},
	} {
		before := h.asked
		if err := step.do(); (err != nil || step.code != "") && !isCode(err, step.code) {
			t.Errorf("%s: %v", step.name, err)
		}
		if asked := h.asked - before; asked != step.want {
			t.Errorf("%s: the host is asked %d times, not %d", step.name, asked, step.want)
		}
	}
}

// A session whose files cannot be staged is not left behind.
func TestCreateFails(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	broken := execution.Input{Path: "../x", Size: 1}
	if _, err := m.Create(t.Context(), 0, []execution.Input{broken}); !isCode(err, execution.Invalid) {
		t.Errorf("a path out of the workspace returns %v", err)
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
			t.Errorf("a third session returns %v", err)
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
				t.Errorf("it returns %v, not %s", err, c.code)
			}
			if len(h.sessions) != 0 {
				t.Errorf("%d sessions are left", len(h.sessions))
			}
		})
	}
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
		if listed, err := m.List(t.Context()); err != nil || len(listed) != 1 {
			t.Errorf("just before its end %v, %v are listed", listed, err)
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

// A session that does not end when it expires is ended.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		if _, err := m.Create(t.Context(), time.Second, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if list := h.list(); len(list) != 1 {
			t.Fatalf("%d sessions before the grace is over", len(list))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if list := h.list(); len(list) != 0 {
			t.Errorf("%d sessions afterwards", len(list))
		}
	})
}

// Deleting a session that has expired but still runs ends it.
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
			t.Errorf("deleting returns %v", err)
		}
		if list := h.list(); len(list) != 0 {
			t.Errorf("%d sessions are left", len(list))
		}
	})
}

// A manager can end all sessions that it has started; those of others stay.
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
	if only := h.only(t); only.info.ID != theirs.ID {
		t.Errorf("%+v is left", only.info)
	}
}
