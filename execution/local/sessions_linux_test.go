package local_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/local"
)

const sessionID = "0123456789abcdef"

func startSession(t *testing.T, b *local.Backend, expires time.Time) execution.Instance {
	t.Helper()
	spec := specOf(t, b)
	spec.Isolation = execution.IsolationSession
	spec.Session = execution.SessionInfo{ID: sessionID, Owner: "anna", Expires: expires}
	i, err := b.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// same returns a backend that shares the folder of sessions, as the next server does.
func same(folder string) func(*local.Options) {
	return func(o *local.Options) { o.Folder = folder }
}

// A request for a session with an id that is taken does not end the existing one.
func TestSessionIsTaken(t *testing.T) {
	b := newBackend(t, echo)
	first := startSession(t, b, time.Now().Add(time.Hour))
	t.Cleanup(func() { _ = first.Destroy(context.Background()) })
	spec := specOf(t, b)
	spec.Isolation, spec.Session = execution.IsolationSession, execution.SessionInfo{ID: sessionID}
	if _, err := b.Start(t.Context(), spec); err == nil {
		t.Error("it is started a second time")
	}
	if found, err := b.Find(t.Context(), sessionID); err != nil || found.Owner != "anna" {
		t.Errorf("the session is %v (%v)", found, err)
	}
}

// A session goes on without its server, and the next one finds it.
func TestSessions(t *testing.T) {
	_ = asNobody(t)
	folder := filepath.Join(t.TempDir(), "sessions")
	first := newBackend(t, echo, same(folder))
	expires := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	i := startSession(t, first, expires)
	hear(t, bufio.NewReader(i), "ready\n")

	second := newBackend(t, echo, same(folder))
	if _, err := second.Attach(t.Context(), sessionID); err == nil {
		t.Error("two servers are connected")
	} else {
		checkUnavailable(t, err, "another server")
	}
	i.Detach()
	i.Detach() // it may be called again
	i, err := second.Attach(t.Context(), sessionID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(i, "still here\n"); err != nil {
		t.Fatal(err)
	}
	hear(t, bufio.NewReader(i), "still here\n")
	i.Detach()

	found, err := first.Owned(t.Context(), "anna")
	if err != nil || len(found) != 1 || found[0].ID != sessionID || found[0].Owner != "anna" || !found[0].Expires.Equal(expires) {
		t.Errorf("the sessions are %+v (%v)", found, err)
	}
	if others, err := first.Owned(t.Context(), "ben"); err != nil || len(others) != 0 {
		t.Errorf("another's sessions are %+v (%v)", others, err)
	}
	for owner, want := range map[execution.Owner]int{"anna": 1, "ben": 0} {
		if own, all, err := first.Count(t.Context(), owner, nil); own != want || all != 1 || err != nil {
			t.Errorf("%q has %d of %d sessions (%v)", owner, own, all, err)
		}
	}
	if own, all, err := first.Count(t.Context(), "anna", []string{sessionID}); own != 0 || all != 0 || err != nil {
		t.Errorf("without it there are %d of %d sessions (%v)", own, all, err)
	}
	later := found[0]
	later.Expires, later.Idle = expires.Add(time.Hour), time.Minute
	if err := second.Announce(t.Context(), later); err != nil {
		t.Error(err)
	}
	one, err := first.Find(t.Context(), sessionID)
	if err != nil || !one.Expires.Equal(later.Expires) || one.Idle != time.Minute || one.Owner != "anna" {
		t.Errorf("once it is announced the session is %+v (%v)", one, err)
	}
	if n, err := second.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("%d sessions are swept that run (%v)", n, err)
	}
	for range 2 { // that there is none is success
		if err := second.End(t.Context(), sessionID); err != nil {
			t.Error(err)
		}
	}
	if _, err := first.Attach(t.Context(), sessionID); !isNotFound(err) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := first.Find(t.Context(), sessionID); !isNotFound(err) {
		t.Errorf("found after its end: %v", err)
	}
	if err := first.Announce(t.Context(), later); !isNotFound(err) {
		t.Errorf("announcing after its end: %v", err)
	}
	checkEmpty(t, folder)
}

func isNotFound(err error) bool {
	var e *execution.Error
	return errors.As(err, &e) && e.Code == execution.NotFound
}

func checkEmpty(t *testing.T, folder string) {
	t.Helper()
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("left in the folder of sessions: %v (%v)", left, err)
	}
}

// The record of a session that has ended by itself is swept.
func TestSessionsThatEnd(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "sessions")
	b := newBackend(t, "print('bye', flush=True)", same(folder))
	i := startSession(t, b, time.Now().Add(time.Hour))
	if text, err := io.ReadAll(i); string(text) != "bye\n" || err != nil {
		t.Errorf("it said %q (%v)", text, err)
	}
	gone := func() bool {
		_, err := b.Find(t.Context(), sessionID)
		_, all, countErr := b.Count(t.Context(), "anna", nil)
		return isNotFound(err) && all == 0 && countErr == nil
	}
	for began := time.Now(); !gone(); runtime.Gosched() { // its stream ends a moment before it does
		if time.Since(began) > patience {
			t.Fatal("it is still listed")
		}
	}
	if _, err := b.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	checkEmpty(t, folder)
	if err := i.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a session's PID 1 writes to stderr neither fills the disk nor blocks PID 1. Each
// connected server finds the beginning of it, even after the end.
func TestSessionDiagnostics(t *testing.T) {
	_ = asNobody(t)
	folder := filepath.Join(t.TempDir(), "sessions")
	first := newBackend(t, "import os\nfor n in range(200):\n try: os.write(2, b'no' * 30_000)\n except BlockingIOError: pass\n"+echo, same(folder))
	i := startSession(t, first, time.Now().Add(time.Hour))
	hear(t, bufio.NewReader(i), "ready\n")
	check := func(when string) {
		t.Helper()
		if text := i.Diagnostics(); !strings.HasPrefix(text, "nono") || len(text) > 4096 {
			t.Errorf("%s it has said %d bytes: %.20q", when, len(text), text)
		}
	}
	check("at first")
	check("asked again")
	i.Detach()
	check("detached")
	if bytes := bytesBelow(t, folder); bytes > 64<<10 {
		t.Errorf("the session has %d bytes on the disk", bytes)
	}
	i, err := newBackend(t, echo, same(folder)).Attach(t.Context(), sessionID)
	if err != nil {
		t.Fatal(err)
	}
	check("to the next server")
	if err := i.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	check("destroyed")
}

// bytesBelow adds up the sizes of the files below a folder.
func bytesBelow(t *testing.T, folder string) (all int64) {
	t.Helper()
	if err := filepath.Walk(folder, func(_ string, info fs.FileInfo, err error) error {
		if err == nil {
			all += info.Size()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// One that is overdue, though it ought to have ended itself, is ended.
func TestOverdueSessions(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "sessions")
	b := newBackend(t, echo, same(folder))
	i := startSession(t, b, time.Now().Add(-time.Minute))
	defer i.Detach()
	if n, err := b.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("%d sessions are swept (%v)", n, err)
	}
	if text, err := io.ReadAll(i); err != nil {
		t.Errorf("it said %q (%v)", text, err)
	}
	checkEmpty(t, folder)
}

// Ids that could be paths are not found.
func TestSessionIDs(t *testing.T) {
	b := newBackend(t, echo)
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a\x00b"} {
		if _, err := b.Attach(t.Context(), id); !isNotFound(err) {
			t.Errorf("Attach %q: %v", id, err)
		}
		if _, err := b.Find(t.Context(), id); !isNotFound(err) {
			t.Errorf("Find %q: %v", id, err)
		}
		if err := b.End(t.Context(), id); err != nil {
			t.Errorf("End %q: %v", id, err)
		}
	}
}

// A folder that is not this user's alone is not used, and the error names what to do.
func TestFolderOfSessions(t *testing.T) {
	target := t.TempDir()
	for name, test := range map[string]struct {
		make func(path string) error
		want string
	}{
		"open to others": {func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o777)) }, "is open to other users (mode 0777): run `chmod 700 "},
		"others read":    {func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o755)) }, "is open to other users (mode 0755): run `chmod 700 "},
		"a link":         {func(path string) error { return os.Symlink(target, path) }, "is a symbolic link"},
		"a file":         {func(path string) error { return os.WriteFile(path, nil, 0o600) }, "is not a folder"},
		"below everybody's": {func(path string) error {
			return os.Chmod(filepath.Dir(path), 0o777)
		}, "can be written by other users (mode 0777)"},
	} {
		path := filepath.Join(t.TempDir(), "sessions")
		if err := test.make(path); err != nil {
			t.Fatal(err)
		}
		_, err := newBackend(t, echo, same(path)).Owned(t.Context(), "")
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		checkUnavailable(t, err, path, test.want, "set TMPDIR to another folder")
	}
}

// A session that other users could have put there is not known, even if it runs.
func TestPlantedSessions(t *testing.T) {
	folder, planted := filepath.Join(t.TempDir(), "sessions"), filepath.Join(t.TempDir(), "sessions")
	b := newBackend(t, echo, same(folder))
	i := startSession(t, b, time.Now().Add(time.Hour))
	t.Cleanup(func() { _ = i.Destroy(context.Background()) })
	place := filepath.Join(folder, sessionID)
	if err := errors.Join(os.Mkdir(planted, 0o700), os.Symlink(place, filepath.Join(planted, sessionID))); err != nil {
		t.Fatal(err)
	}
	unknown := func(what string, b *local.Backend) {
		t.Helper()
		if found, err := b.Owned(t.Context(), "anna"); len(found) != 0 || err != nil {
			t.Errorf("%s: the sessions are %v (%v)", what, found, err)
		}
		if found, err := b.Find(t.Context(), sessionID); err == nil {
			t.Errorf("%s: the session is %v", what, found)
		}
		if err := b.End(t.Context(), sessionID); err == nil {
			t.Errorf("%s: the session is ended", what)
		}
	}
	unknown("a link", newBackend(t, echo, same(planted)))
	if err := os.Chmod(place, 0o755); err != nil {
		t.Fatal(err)
	}
	unknown("open to others", b)
	if err := os.Chmod(place, 0o700); err != nil {
		t.Fatal(err)
	}
	if found, err := b.Owned(t.Context(), "anna"); err != nil || len(found) != 1 {
		t.Errorf("the sessions are %v (%v)", found, err)
	}
}

// The sweep leaves alone what this server holds.
func TestSweepSpares(t *testing.T) {
	b := newBackend(t, echo)
	i := start(t, b)
	in := bufio.NewReader(i)
	hear(t, in, "ready\n")
	if n, err := b.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("%d are swept (%v)", n, err)
	}
	if _, err := io.WriteString(i, "one\n"); err != nil {
		t.Fatal(err)
	}
	hear(t, in, "one\n")
}
