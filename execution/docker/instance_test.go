package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
)

const (
	create = "POST /containers/create"
	names  = "/containers/vivarium-"
)

func path(suffix string) string { return "/containers/" + containerID + suffix }

// The request to the engine has every restriction: it is compared with a snapshot.
func TestStartAsksForEveryWall(t *testing.T) {
	e := newEngine(t)
	bodies := make(chan []byte, 1)
	e.handle(create, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies <- body
		fail(http.StatusTeapot, "enough")(w, r)
	})
	b := e.backend(docker.Options{
		Command: func(s execution.Spec) []string {
			return []string{"python3", "-c", "supervise()", string(s.Isolation)}
		},
		Environment: []string{"LANG=C.UTF-8"}, Lifetime: time.Hour,
	})
	before := time.Now()
	_, err := b.Start(t.Context(), execution.Spec{Image: "sha256:abc", Settings: execution.Settings{
		Isolation: execution.IsolationContainer, Network: "none", Runtime: "runsc", MemoryBytes: 256 << 20, CPUs: 1.5, Processes: 64,
		WorkspaceBytes: 64 << 20, TempBytes: 1 << 20,
	}})
	if err == nil {
		t.Fatal("no error")
	}
	var asked map[string]any
	if err := json.Unmarshal(<-bodies, &asked); err != nil {
		t.Fatal(err)
	}
	checkLabels(t, asked["Labels"], b.InstanceID(), before.Add(time.Hour))
	checkSeccomp(t, asked["HostConfig"].(map[string]any)["SecurityOpt"].([]any))
	got, err := json.MarshalIndent(asked, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = regexp.MustCompile(`\b19000\d{5}\b`).ReplaceAll(got, []byte("USER")) // each container has another
	golden(t, "create.json", append(got, '\n'))
}

// checkLabels checks the labels that differ from server to server, and makes
// them equal.
func checkLabels(t *testing.T, value any, id string, deadline time.Time) {
	t.Helper()
	labels := value.(map[string]any)
	if len(id) < 16 || labels["vivarium.instance"] != id {
		t.Errorf("the instance is %q, the labels are %v", id, labels)
	}
	text, _ := labels["vivarium.deadline"].(string)
	if n, err := json.Number(text).Int64(); err != nil || n < deadline.Unix() || n > deadline.Unix()+60 {
		t.Errorf("the deadline is %q, not %d", text, deadline.Unix())
	}
	labels["vivarium.instance"], labels["vivarium.deadline"] = "ID", "DEADLINE"
}

// checkSeccomp checks that the profile is the strict one, and shortens it.
func checkSeccomp(t *testing.T, options []any) {
	t.Helper()
	for i, option := range options {
		text, found := strings.CutPrefix(option.(string), "seccomp=")
		if !found {
			continue
		}
		options[i] = "seccomp=PROFILE"
		var profile struct {
			DefaultAction string
			Syscalls      []struct {
				Names    []string
				Action   string
				Args     []any
				Includes map[string]any
			}
		}
		if err := json.Unmarshal([]byte(text), &profile); err != nil || profile.DefaultAction != "SCMP_ACT_ERRNO" {
			t.Fatalf("the profile is %.100s (%v)", text, err)
		}
		for _, rule := range profile.Syscalls {
			for _, name := range rule.Names {
				switch name {
				case "io_uring_setup", "bpf", "keyctl", "userfaultfd", "ptrace", "mount", "unshare", "setns":
					if rule.Action == "SCMP_ACT_ALLOW" && rule.Includes["caps"] == nil && rule.Includes["minKernel"] == nil {
						t.Errorf("%s is allowed", name)
					}
				case "fcntl":
					if len(rule.Args) == 0 {
						t.Errorf("%s is allowed whatever its command: leases are among them", name)
					}
				}
			}
		}
		return
	}
	t.Errorf("there is no profile in %v", options)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s has changed; if that is meant, run go test ./execution/docker -update (-want +got):\n%s", name, diff)
	}
}

// Attaching comes before starting, so that no container runs unattended.
func TestStartAttachesFirst(t *testing.T) {
	e := newEngine(t)
	e.containers(obedient)
	start(t, e.backend(docker.Options{}))
	e.wantRequests(create, "POST "+path("/attach"), "POST "+path("/start"))
	if name := e.query(create, "name"); !strings.HasPrefix(name, "vivarium-") || len(name) < 20 {
		t.Errorf("the container's name is %q", name)
	}
	for _, stream := range []string{"stream", "stdin", "stdout", "stderr"} {
		if e.query("POST "+path("/attach"), stream) != "1" {
			t.Errorf("%s is not attached", stream)
		}
	}
}

func TestNamesDiffer(t *testing.T) {
	e := newEngine(t)
	e.handle(create, fail(http.StatusInternalServerError, "no"))
	b := e.backend(docker.Options{})
	seen := make(map[string]bool)
	for range 5 {
		_, _ = b.Start(t.Context(), execution.Spec{})
		seen[e.query(create, "name")] = true
	}
	if len(seen) != 5 {
		t.Errorf("the names are %v", seen)
	}
}

// The engine's text goes to the log, and a failure leaves no container.
func TestStartFails(t *testing.T) {
	for name, test := range map[string]struct {
		spoil   func(e *engine)
		cause   string
		removed string // prefix of what is removed
	}{
		"at create": {
			func(e *engine) { e.handle(create, fail(http.StatusInternalServerError, "unknown runtime runsc")) },
			"create: Error response from daemon: unknown runtime runsc", names,
		},
		"at create, image missing": {
			func(e *engine) { e.handle(create, fail(http.StatusNotFound, "No such image: sha256:abc")) },
			"No such image", names,
		},
		"at attach": {
			func(e *engine) {
				e.handle(create, say(http.StatusCreated, map[string]any{"Id": containerID}))
				e.handle("POST /containers/{id}/attach", fail(http.StatusInternalServerError, "no"))
			}, "attach: ", path(""),
		},
		"at start": {
			func(e *engine) {
				e.containers(obedient)
				e.handle("POST "+path("/start"), fail(http.StatusBadRequest, "OCI runtime create failed"))
			}, "start: Error response from daemon: OCI runtime create failed", path(""),
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			test.spoil(e)
			e.handle("DELETE /containers/{id}", quiet)
			instance, err := e.backend(docker.Options{}).Start(t.Context(), execution.Spec{Image: "sha256:abc"})
			if instance != nil {
				t.Error("there is an instance")
			}
			unavailable(t, err, refused, test.cause)
			requests := e.requests()
			last := requests[len(requests)-1]
			if !strings.HasPrefix(last, "DELETE "+test.removed) || e.query(last, "force") != "1" || e.query(last, "v") != "1" {
				t.Errorf("the last request is %s", last)
			}
		})
	}
}

func TestStartFailsAndSoDoesRemoval(t *testing.T) {
	e := newEngine(t)
	e.containers(obedient)
	e.handle("POST "+path("/start"), fail(http.StatusInternalServerError, "cannot start"))
	e.handle("DELETE /containers/{id}", fail(http.StatusInternalServerError, "cannot remove"))
	_, err := e.backend(docker.Options{}).Start(t.Context(), execution.Spec{})
	unavailable(t, err, refused, "cannot start")
	unavailable(t, err, refused, "cannot remove")
}

// A caller who leaves while a container is created leaves no container behind.
func TestStartCancelled(t *testing.T) {
	e := newEngine(t)
	ctx, cancel := context.WithCancel(t.Context())
	e.handle(create, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		say(http.StatusCreated, map[string]any{"Id": containerID})(w, r)
	})
	e.handle("DELETE /containers/{id}", quiet)
	if _, err := e.backend(docker.Options{}).Start(ctx, execution.Spec{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	requests := e.requests()
	if len(requests) != 2 || !strings.HasPrefix(requests[1], "DELETE "+names) {
		t.Errorf("the engine was asked %v", requests)
	}
}

func TestEngineIsNotThere(t *testing.T) {
	for name, spoken := range map[string]bool{"from the start": false, "any more": true} {
		t.Run(name, func(t *testing.T) {
			const down = "Cannot connect to the Docker daemon"
			e := newEngine(t)
			b := e.backend(docker.Options{})
			if spoken {
				if err := b.Health(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			e.server.Close()
			absent := "Docker Engine does not answer at " + e.host
			_, err := b.Start(t.Context(), execution.Spec{})
			unavailable(t, err, absent, down)
			_, err = b.Resolve(t.Context(), "python")
			unavailable(t, err, absent, down)
			_, err = b.Sweep(t.Context())
			unavailable(t, err, absent, down)
			_, err = b.Version(t.Context())
			unavailable(t, err, absent, down)
			_, _, err = b.Label(t.Context(), "python", "label")
			unavailable(t, err, absent, down)
			unavailable(t, b.Health(t.Context()), absent, down)
		})
	}
}

// An engine that accepts a connection and sends nothing does not answer.
func TestEngineIsSilent(t *testing.T) {
	e := newEngine(t)
	over := make(chan struct{})
	defer close(over)
	e.handle("GET /images/{name}/json", func(http.ResponseWriter, *http.Request) { <-over })
	b := e.backend(docker.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, err := b.Label(ctx, "python", "label")
	unavailable(t, err, "Docker Engine does not answer at "+e.host, "deadline exceeded")
}

// The engine multiplexes stdout and stderr. Read returns stdout.
func TestReadDemultiplexes(t *testing.T) {
	long := strings.Repeat("e", 10_000)
	for name, test := range map[string]struct {
		stream, stdout, stderr string
		err                    error // nil: the end
	}{
		"nothing":                {"", "", "", nil},
		"one chunk":              {chunk(1, "hello"), "hello", "", nil},
		"chunks":                 {chunk(1, "one ") + chunk(1, "") + chunk(1, "two"), "one two", "", nil},
		"mixed":                  {chunk(2, "oh ") + chunk(1, "one ") + chunk(2, "no") + chunk(1, "two"), "one two", "oh no", nil},
		"stderr alone":           {chunk(2, "oh"), "", "oh", nil},
		"empty stderr":           {chunk(2, "") + chunk(1, "x"), "x", "", nil},
		"much stderr":            {chunk(2, long) + chunk(1, "x"), "x", long[:2048], nil},
		"much stderr, in parts":  {strings.Repeat(chunk(2, long[:1500]), 3) + chunk(1, "x"), "x", long[:2048], nil},
		"an error of the engine": {chunk(3, "engine trouble") + chunk(1, "x"), "x", "engine trouble", nil},
		"much stdout":            {chunk(1, strings.Repeat("x", 200_000)), strings.Repeat("x", 200_000), "", nil},
		"half a header":          {chunk(1, "x") + "\x01\x00", "x", "", io.ErrUnexpectedEOF},
		"half of stdout":         {chunk(1, "hello")[:10], "he", "", nil},
		"half of stderr":         {chunk(2, "oh no")[:10], "", "", io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.containers(func(conn net.Conn, _ io.Reader) { _, _ = io.WriteString(conn, test.stream) })
			i := start(t, e.backend(docker.Options{}))
			got, err := io.ReadAll(iotest.OneByteReader(i))
			if string(got) != test.stdout || !errors.Is(err, test.err) {
				t.Errorf("%d bytes %.50q, %v", len(got), got, err)
			}
			if text := i.Diagnostics(); text != test.stderr {
				t.Errorf("the diagnostics are %d bytes: %.50q", len(text), text)
			}
			if _, again := i.Read(make([]byte, 1)); again == nil {
				t.Error("after the end there is no error")
			}
		})
	}
}

func TestReadAcrossChunks(t *testing.T) {
	e := newEngine(t)
	e.containers(func(conn net.Conn, _ io.Reader) {
		_, _ = io.WriteString(conn, chunk(1, "abc")+chunk(2, "x")+chunk(1, "def"))
	})
	i := start(t, e.backend(docker.Options{}))
	var got bytes.Buffer
	if n, err := got.ReadFrom(i); err != nil || n != 6 || got.String() != "abcdef" {
		t.Errorf("%d %q %v", n, got.String(), err)
	}
}

func TestWriteReachesStdin(t *testing.T) {
	e := newEngine(t)
	heard := make(chan string, 1)
	e.containers(func(conn net.Conn, in io.Reader) {
		heard <- line(in)
		obedient(conn, in)
	})
	i := start(t, e.backend(docker.Options{}))
	if err := i.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(i, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got != "hello\n" {
		t.Errorf("PID 1 received %q", got)
	}
}

// A PID 1 that does not read cannot block the server.
func TestWriteDeadline(t *testing.T) {
	e := newEngine(t)
	over := make(chan struct{})
	e.containers(func(net.Conn, io.Reader) { <-over })
	defer close(over)
	i := start(t, e.backend(docker.Options{}))
	if err := i.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}

// Destroy asks PID 1 to leave; one that does is not killed.
func TestDestroy(t *testing.T) {
	e := newEngine(t)
	e.containers(obedient)
	i := start(t, e.backend(docker.Options{}))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, i)
	}()
	for range 2 {
		if err := i.Destroy(t.Context()); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	}
	within(t, "the stream's end", ended)
	e.wantRequests(create, "POST "+path("/attach"), "POST "+path("/start"))
}

// One that stays is killed by the engine. That it is gone is success. All
// cases wait at once for the time that PID 1 gets to leave.
func TestDestroyByForce(t *testing.T) {
	var cases sync.WaitGroup
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		cause  string // empty: success
	}{
		"done":         {quiet, ""},
		"already gone": {fail(http.StatusNotFound, "No such container"), ""},
		"on its way":   {fail(http.StatusConflict, "removal is already in progress"), ""},
		"failure":      {fail(http.StatusInternalServerError, "device or resource busy"), "remove: Error response from daemon: device or resource busy"},
	} {
		e := newEngine(t)
		over := make(chan struct{})
		t.Cleanup(func() { close(over) })
		e.containers(func(net.Conn, io.Reader) { <-over })
		e.handle("DELETE /containers/{id}", test.answer)
		i, err := e.backend(docker.Options{}).Start(t.Context(), execution.Spec{})
		if err != nil {
			t.Fatal(err)
		}
		cases.Go(func() { _, _ = io.Copy(io.Discard, i) })
		cases.Go(func() {
			if err := i.Destroy(t.Context()); test.cause == "" && err != nil {
				t.Errorf("%s: %v", name, err)
			} else if test.cause != "" && (err == nil || !strings.Contains(err.Error(), test.cause)) {
				t.Errorf("%s: %v", name, err)
			}
			if force := e.query("DELETE "+path(""), "force"); force != "1" {
				t.Errorf("%s: force is %q", name, force)
			}
		})
	}
	cases.Wait()
}

// A caller may stop waiting, and the container ends anyway.
func TestDestroyGivesUpWithItsContext(t *testing.T) {
	e := newEngine(t)
	left := make(chan struct{})
	leave := make(chan struct{})
	e.containers(func(conn net.Conn, in io.Reader) {
		obedient(conn, in)
		close(left)
		<-leave
	})
	i := start(t, e.backend(docker.Options{}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := i.Destroy(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Destroy: %v", err)
	}
	within(t, "the end of stdin", left)
	close(leave)
}
