package integration

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// thawTime is how long a call on a frozen sandbox may take in a test: it takes
// 2 s and, where it is tried again, the start of a sandbox. Without the watch for
// signs of life it took 30 to 60 s.
const thawTime = 30 * time.Second

// freezeIdle freezes all sandboxes of a server, which must come to have so many
// idle ones at least, and gives their ids.
func freezeIdle(t *testing.T, s *server, least int) (frozen []string) {
	t.Helper()
	frozen = awaitIdle(t, s, least)
	for _, id := range frozen {
		freeze(t, id)
	}
	return frozen
}

// awaitIdle waits until a server has that many sandboxes at least, all idle, and gives their
// ids. What it runs and starts by itself at first is over when as many programs have
// run at once. Those that were started for them are not waited for: they stay for 10 s and more.
func awaitIdle(t *testing.T, s *server, least int) (idle []string) {
	t.Helper()
	runs := make([]<-chan outcome, least)
	for i := range runs {
		runs[i] = runSleeper(t.Context(), s, 1)
	}
	for _, run := range runs {
		if o := <-run; o.err != nil || o.a.Stdout != "finished\n" {
			t.Fatalf("got %+v", o)
		}
	}
	const processes = 2 // the supervisor and the program; or the supervisor and the zygote, which is about to make that
	if !poll(func() bool {
		list, err := shared.host.sandboxes(s.instance)
		idle = nil
		for _, one := range list {
			if commands, err := shared.host.commands(one.id); one.running && err == nil && len(commands) >= processes {
				idle = append(idle, one.id)
			}
		}
		return err == nil && len(idle) == len(list) && len(idle) >= least
	}) {
		t.Fatalf("%d sandboxes are idle, of %d", len(idle), least)
	}
	return idle
}

func freeze(t *testing.T, sandbox string) {
	t.Helper()
	// On a loaded machine runc gives up freezing a cgroup of version 1 (opencontainers/runc, fs/freezer.go).
	var err error
	if !poll(func() bool { err = shared.host.freeze(sandbox); return err == nil }) {
		t.Fatal(err)
	}
}

// wantSoon checks how long something has taken, and logs it.
func wantSoon(t *testing.T, began time.Time) {
	t.Helper()
	took := time.Since(began)
	t.Logf("it takes %.2f s", took.Seconds())
	if took > thawTime {
		t.Errorf("it takes %v", took)
	}
}

// A run gets a sandbox that answers, wherever its first one freezes before the
// start, with room for another one or not.
func TestFrozenBeforeTheStart(t *testing.T) {
	for name, test := range map[string]struct {
		body request
		env  []string
	}{
		"idle":          {request{"code": "print(6*7)"}, nil},
		"idle, no room": {request{"code": "print(6*7)"}, []string{"MAX_SANDBOXES=2"}},
		"staging":       {request{"code": "print(6*7)", "stdin": strings.Repeat("x", 4<<20)}, nil},
		"one for each":  {request{"code": "print(6*7)"}, []string{"ISOLATION=container"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time it waits
			s := startServer(t, append(test.env, "POOL_SIZE=2")...)
			freezeIdle(t, s, 2)
			began := time.Now()
			program{stdout: "42\n"}.check(t, mustRun(t, s, test.body))
			wantSoon(t, began)
		})
	}
}

// Idle sandboxes that are frozen are replaced though nobody asks for them.
func TestFrozenIdleSandboxesAreReplaced(t *testing.T) {
	s := startServer(t, "POOL_SIZE=2")
	frozen := freezeIdle(t, s, 2)
	if !poll(func() bool {
		list, err := shared.host.sandboxes(s.instance)
		return err == nil && len(list) >= 2 && !slices.ContainsFunc(list, func(one sandbox) bool { return slices.Contains(frozen, one.id) })
	}) {
		t.Error("they are still there")
	}
}

// isThere says whether a server has a sandbox.
func isThere(t *testing.T, s *server, sandboxID string) bool {
	t.Helper()
	list, err := shared.host.sandboxes(s.instance)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(list, func(one sandbox) bool { return one.id == sandboxID })
}

func TestFrozenWhileRunning(t *testing.T) {
	s := startServer(t, "POOL_SIZE=1")
	run := runSleeper(t.Context(), s, 60)
	freeze(t, awaitSleeper(t, s))
	began := time.Now()
	o := <-run
	wantSoon(t, began)
	if o.err != nil || o.a.status != http.StatusOK || !strings.Contains(o.a.End.Message, "did not answer any more") {
		t.Fatalf("got %+v", o)
	}
	program{exit: "137", reason: "sandbox_lost"}.check(t, o.a)
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
}

// A sandbox that freezes while its files are collected leaves the end that is
// known. It may be done with that when it freezes: then it is tried again.
func TestFrozenWhileCollecting(t *testing.T) {
	for range 20 {
		if freezeWhileCollecting(t) {
			return
		}
	}
	t.Error("no sandbox could be frozen in time")
}

func freezeWhileCollecting(t *testing.T) bool {
	t.Helper()
	folder := folderOf(t, *userFlag)
	s := startServer(t, "POOL_SIZE=1", "MAX_SANDBOXES=1", "MAX_RESULT_MB=60", "FILE_STORAGE_DIR="+folder)
	only := awaitIdle(t, s, 1)
	answers := make(chan outcome, 1)
	go func() {
		a, err := s.execute(t.Context(), patient(request{"code": "_ = open('a', 'wb').write(bytes(45 << 20))"}))
		answers <- outcome{a, err}
	}()
	for !isStoring(folder) {
		runtime.Gosched()
	}
	freeze(t, only[0])
	began := time.Now()
	o := <-answers
	wantSoon(t, began)
	if o.err != nil || o.a.status != http.StatusOK {
		t.Fatalf("got %+v", o)
	}
	if o.a.exitCode() != "0" || o.a.End.Reason != "exited" {
		t.Errorf("got %+v", o.a)
	}
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"})) // it may be frozen while it is renewed
	wantSoon(t, began)
	return strings.Contains(o.a.End.Message, "not all files could be fetched")
}

// isStoring says whether a file has begun to come in.
func isStoring(folder string) bool {
	found := false
	_ = filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		found = found || err == nil && !entry.IsDir()
		return nil // some go meanwhile
	})
	return found
}

// Nothing that is frozen holds a client or a shutdown up.
func TestFrozenSandboxHoldsNobodyUp(t *testing.T) {
	s, err := start([]string{"POOL_SIZE=1", "MAX_SANDBOXES=2", "SHUTDOWN_TIMEOUT_SEC=60"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	run := runSleeper(ctx, s, 60)
	first := awaitSleeper(t, s)
	freeze(t, first)
	left := time.Now()
	leave()
	<-run
	if !poll(func() bool { return !isThere(t, s, first) }) {
		t.Error("the client has left, and its sandbox is there")
	}
	wantSoon(t, left)
	other := runSleeper(t.Context(), s, 60)
	freeze(t, awaitSleeper(t, s))
	began := time.Now()
	if err := s.end(); err != nil {
		t.Error(err)
	}
	wantSoon(t, began)
	if o := <-other; o.err != nil || o.a.End.Reason != "sandbox_lost" {
		t.Errorf("got %+v", o)
	}
}

// Calls on a frozen session cost 2 s. Those that were refused do not run when it
// thaws.
func TestFrozenSession(t *testing.T) {
	own := startServer(t)
	s := startSession(t, own, request{})
	s.python(t, "x = 41")
	sandbox := s.sandbox(t)
	freeze(t, sandbox)
	for i, refused := range []struct {
		route string
		body  request
	}{
		{"/bash", request{"cmd": "touch ran-bash"}},
		{"/execute", request{"code": "open('ran-python', 'w')"}},
		{"/bash", request{"cmd": "touch ran-bash", "files": []request{{"path": "large", "content_base64": encode(strings.Repeat("x", 4<<20))}}}},
	} {
		began := time.Now()
		a := new(answer)
		if a.status = own.post(t, s.path(refused.route), refused.body, a); a.status != http.StatusServiceUnavailable {
			t.Errorf("call %d: %d %+v", i, a.status, a)
		}
		wantSoon(t, began)
	}
	if err := shared.host.thaw(sandbox); err != nil {
		t.Fatal(err)
	}
	s.check(t, []step{{program: program{code: "x += 1; print(x)", stdout: "42\n"}}, {bash: "ls", program: program{stdout: ""}}})
}

func TestFrozenSessionWhileRunning(t *testing.T) {
	own := startServer(t)
	s := startSession(t, own, request{})
	sandbox := s.sandbox(t)
	answers := make(chan *answer, 1)
	go func() {
		a := new(answer)
		a.status = own.post(t, s.path("/bash"), request{"cmd": "touch begun; sleep 60", "timeout_ms": 60000}, a)
		answers <- a
	}()
	if !awaitFile(t, sandbox, "/workspace/begun") {
		t.Fatal("the command does not run")
	}
	freeze(t, sandbox)
	began := time.Now()
	a := <-answers
	wantSoon(t, began)
	if a.status != http.StatusOK || a.End.Reason != "sandbox_lost" || !strings.Contains(a.End.Message, "does not answer") {
		t.Errorf("got %+v", a)
	}
	began = time.Now()
	if status, text := own.send(t, http.MethodDelete, s.path(""), "", nil); status != http.StatusNoContent {
		t.Errorf("DELETE: %d %s", status, text)
	}
	wantSoon(t, began)
}

// A download from a session that freezes is cut off, however slowly it is read.
func TestFrozenSessionWhileReading(t *testing.T) {
	own := startServer(t)
	s := startSession(t, own, request{})
	s.bash(t, "head -c 45000000 /dev/zero > large")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, own.url+s.path("/files/large"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	freeze(t, s.sandbox(t)) // what is on its way by now is less than the file
	began := time.Now()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("all %d bytes came", n)
	}
	wantSoon(t, began)
}

// A loaded machine and large files are slow, which is not frozen.
func TestLoadedMachineIsNotFrozen(t *testing.T) {
	s := startServer(t, "POOL_SIZE=2", "MAX_RESULT_MB=60", "WORKSPACE_LIMIT_MB=150")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var loops []*exec.Cmd
	for range 2 * runtime.NumCPU() {
		loop := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
		if err := loop.Start(); err != nil {
			t.Fatal(err)
		}
		loops = append(loops, loop)
	}
	large := s.upload(t, "large", string(bytes.Repeat([]byte("x"), 60<<20)))
	for ctx.Err() == nil {
		program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "import time; time.sleep(2.5); print(6*7)"}))
		a := mustRun(t, s, request{
			"code":  "import shutil; print(shutil.copy('in', 'out'))",
			"files": []request{{"path": "in", "file_id": large}}, "timeout_ms": 60000,
		})
		program{stdout: "out\n", files: "out"}.check(t, a)
		if a.End.Message != "" {
			t.Errorf("it ends with %q", a.End.Message)
		}
	}
	for _, loop := range loops {
		_ = loop.Wait() // it was killed
	}
	if strings.Contains(s.logged(), "does not answer") {
		t.Error("a sandbox was given up")
	}
}
