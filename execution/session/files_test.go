package session_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/session"
)

// fileCalls are the calls about files, of a path.
func fileCalls(t *testing.T, m *session.Manager, id string) map[string]func(path string) error {
	t.Helper()
	return map[string]func(path string) error{
		"list": func(path string) error {
			_, err := m.ListFiles(t.Context(), id, execution.ListRequest{Path: path})
			return err
		},
		"pack":   func(path string) error { return m.PackFolder(t.Context(), id, execution.PackRequest{Path: path}) },
		"delete": func(path string) error { return m.DeleteFile(t.Context(), id, path) },
		"rename": func(path string) error {
			return m.RenameFile(t.Context(), id, execution.RenameRequest{Path: path, Target: "b"})
		},
	}
}

// Calls about files are calls like any other: they renew the session.
func TestFileCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		m := newManager(t, h)
		info := begin(t, m, 2*time.Second)
		for name, call := range fileCalls(t, m, info.ID) {
			time.Sleep(time.Second)
			if err := call("a/b"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			calls := h.only(t).calls
			if got := calls[len(calls)-1].Code; strings.TrimSuffix(got, " b") != name+" a/b" {
				t.Errorf("%s became %q", name, got)
			}
			ends(t, h, time.Now().Add(2*time.Second))
		}
		listing, err := m.ListFiles(t.Context(), info.ID, execution.ListRequest{})
		if err != nil || listing.Entries[0].Path != "10000" || !listing.Session.Expires.Equal(time.Now().Add(2*time.Second)) {
			t.Errorf("the list is %+v, %v", listing, err)
		}
	})
}

func TestFileCallsInvalid(t *testing.T) {
	m := newManager(t, newHost())
	info := create(t, m)
	for name, call := range fileCalls(t, m, info.ID) {
		for _, path := range []string{"../x", "/etc", "a//b", "a\x00"} {
			if err := call(path); !isCode(err, execution.Invalid) || !strings.Contains(err.Error(), "path must") {
				t.Errorf("%s of %q: %v", name, path, err)
			}
		}
	}
	for target, want := range map[string]string{
		"": "target must not be empty", "../x": `target must not contain ".."`, "__main__.py": "target is reserved for the program itself",
	} {
		err := m.RenameFile(t.Context(), info.ID, execution.RenameRequest{Path: "a", Target: target})
		if !isCode(err, execution.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("renaming to %q: %v", target, err)
		}
	}
}

// A list or a folder that does not arrive whole is an error.
func TestFileCallsLost(t *testing.T) {
	h := newHost()
	m := newManager(t, h)
	info := create(t, m)
	h.only(t).do = func(context.Context, execution.Request) (*execution.Result, error) {
		return &execution.Result{End: execution.End{Reason: execution.SandboxLost, Message: "the session ended"}}, nil
	}
	for _, name := range []string{"list", "pack"} {
		if err := fileCalls(t, m, info.ID)[name]("a"); !isCode(err, execution.Unavailable) || !strings.HasSuffix(err.Error(), "the session ended") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
