package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
)

const (
	ref     = "example/python:3"
	inspect = "GET /images/example/python:3/json"
	pull    = "POST /images/create"
)

// store is an engine's image store with at most one image in it.
type store struct {
	there atomic.Bool
	label map[string]string
}

func (s *store) serve(w http.ResponseWriter, r *http.Request) {
	if !s.there.Load() {
		fail(http.StatusNotFound, "No such image: "+ref)(w, r)
		return
	}
	say(http.StatusOK, map[string]any{"Id": "sha256:found", "Config": map[string]any{"Labels": s.label}})(w, r)
}

// streams answers with what an engine says while it works.
func streams(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func TestResolve(t *testing.T) {
	broken := errors.New("the builder is broken")
	for name, test := range map[string]struct {
		there          bool
		ours           bool
		provideErr     error
		pulled         http.HandlerFunc
		arrives        bool // once it was provided or pulled
		provides       int
		requests       []string
		message, cause string // of the error
	}{
		"there": {there: true, requests: []string{inspect}},
		"pulled": {
			provides: 1, pulled: streams(`{"status": "Pulling"}` + "\n" + `{"status": "Done"}`), arrives: true,
			requests: []string{inspect, pull, inspect},
		},
		"ours":        {ours: true, provides: 1, arrives: true, requests: []string{inspect, inspect}},
		"ours, fails": {ours: true, provides: 1, provideErr: broken, requests: []string{inspect}, message: `image "example/python:3" is not available`, cause: "the builder is broken"},
		"ours, fails for a reason to tell": {
			ours: true, provides: 1, requests: []string{inspect},
			provideErr: &execution.Error{Code: execution.Unavailable, Message: "no base image", Err: broken},
			message:    "no base image", cause: "the builder is broken",
		},
		"pull refused": {
			provides: 1, pulled: fail(http.StatusInternalServerError, "registry says no"), requests: []string{inspect, pull},
			message: `image "example/python:3" is not available`, cause: "pull example/python:3: Error response from daemon: registry says no",
		},
		"pull fails on the way": {
			provides: 1, pulled: streams(`{"status": "Pulling"}` + "\n" + `{"errorDetail": {"message": "x"}, "error": "manifest unknown"}`),
			requests: []string{inspect, pull}, message: `image "example/python:3" is not available`, cause: "pull example/python:3: manifest unknown",
		},
		"pull is cut off": {
			provides: 1, pulled: streams(`{"status": "Pull`), requests: []string{inspect, pull},
			message: `image "example/python:3" is not available`, cause: "pull example/python:3: unexpected EOF",
		},
		"pulled and still not there": {
			provides: 1, pulled: streams(""), requests: []string{inspect, pull, inspect},
			message: `image "example/python:3" is not available`, cause: "No such image",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			images := new(store)
			images.there.Store(test.there)
			e.handle(inspect, images.serve)
			e.handle(pull, func(w http.ResponseWriter, r *http.Request) {
				images.there.Store(test.arrives)
				test.pulled(w, r)
			})
			provided := 0
			b := e.backend(docker.Options{Provide: func(_ context.Context, _ *docker.Backend, asked string) (bool, error) {
				provided++
				if asked != ref {
					t.Errorf("asked to provide %s", asked)
				}
				images.there.Store(test.ours && test.arrives)
				return test.ours, test.provideErr
			}})
			digest, err := b.Resolve(t.Context(), ref)
			if test.message != "" {
				unavailable(t, err, test.message, test.cause)
			} else if err != nil || digest != "sha256:found" {
				t.Errorf("the digest is %q, %v", digest, err)
			}
			if provided != test.provides {
				t.Errorf("it was provided %d times", provided)
			}
			e.wantRequests(test.requests...)
		})
	}
}

func TestResolveWithoutProvide(t *testing.T) {
	e := newEngine(t)
	images := new(store)
	e.handle(inspect, images.serve)
	e.handle(pull, func(http.ResponseWriter, *http.Request) { images.there.Store(true) })
	if digest, err := e.backend(docker.Options{}).Resolve(t.Context(), ref); err != nil || digest != "sha256:found" {
		t.Errorf("the digest is %q, %v", digest, err)
	}
	if e.query(pull, "fromImage") != "docker.io/example/python" && e.query(pull, "fromImage") != "example/python" || e.query(pull, "tag") != "3" {
		t.Errorf("%s:%s was pulled", e.query(pull, "fromImage"), e.query(pull, "tag"))
	}
}

func TestResolveEngineTrouble(t *testing.T) {
	for name, test := range map[string]struct {
		status        int
		message, want string
	}{
		"a bad reference": {http.StatusBadRequest, "invalid reference format", `"example/python:3" is not an image reference`},
		"trouble":         {http.StatusInternalServerError, "layer does not exist", `image "example/python:3" is not available`},
		"dial of its own": {http.StatusInternalServerError, "dial tcp: lookup registry: no such host", `image "example/python:3" is not available`},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.handle(inspect, fail(test.status, test.message))
			_, err := e.backend(docker.Options{}).Resolve(t.Context(), ref)
			unavailable(t, err, test.want, test.message)
			e.wantRequests(inspect)
		})
	}
}

func TestLabel(t *testing.T) {
	e := newEngine(t)
	images := &store{label: map[string]string{"recipe": "abc"}}
	e.handle(inspect, images.serve)
	e.handle("GET /images/bare/json", say(http.StatusOK, map[string]any{"Id": "sha256:bare"}))
	e.handle("GET /images/broken/json", fail(http.StatusInternalServerError, "no"))
	b := e.backend(docker.Options{})
	if value, there, err := b.Label(t.Context(), ref, "recipe"); value != "" || there || err != nil {
		t.Errorf("of no image: %q %v %v", value, there, err)
	}
	images.there.Store(true)
	for label, want := range map[string]string{"recipe": "abc", "other": ""} {
		if value, there, err := b.Label(t.Context(), ref, label); value != want || !there || err != nil {
			t.Errorf("%s: %q %v %v", label, value, there, err)
		}
	}
	if value, there, err := b.Label(t.Context(), "bare", "recipe"); value != "" || !there || err != nil {
		t.Errorf("of an image without configuration: %q %v %v", value, there, err)
	}
	_, _, err := b.Label(t.Context(), "broken", "recipe")
	unavailable(t, err, `image "broken" is not available`, "no")
}

func TestPullTellsItsProgress(t *testing.T) {
	e := newEngine(t)
	e.handle(pull, streams(`{"status": "Pulling from example/python", "id": "3"}
{"status": "Downloading", "id": "abc", "progressDetail": {"current": 5, "total": 10}}
{"status": "Download complete", "id": "abc", "progressDetail": {}}
{"status": "Status: done"}`))
	var said bytes.Buffer
	if err := e.backend(docker.Options{Progress: &said}).Pull(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if want := "3 Pulling from example/python\nabc Download complete\nStatus: done\n"; said.String() != want {
		t.Errorf("it said %q", said.String())
	}
}

func TestImport(t *testing.T) {
	e := newEngine(t)
	var got []byte
	e.handle(pull, func(_ http.ResponseWriter, r *http.Request) { got, _ = io.ReadAll(r.Body) })
	if err := e.backend(docker.Options{}).Import(t.Context(), "base:1", strings.NewReader("a root file system")); err != nil {
		t.Fatal(err)
	}
	if string(got) != "a root file system" || e.query(pull, "fromSrc") != "-" || e.query(pull, "repo") != "base:1" {
		t.Errorf("%q was imported as %s from %s", got, e.query(pull, "repo"), e.query(pull, "fromSrc"))
	}
}

func TestImportFails(t *testing.T) {
	e := newEngine(t)
	e.handle(pull, fail(http.StatusInternalServerError, "disk full"))
	err := e.backend(docker.Options{}).Import(t.Context(), "base:1", strings.NewReader(""))
	if err == nil || !strings.Contains(err.Error(), "import base:1: Error response from daemon: disk full") {
		t.Errorf("the error is %v", err)
	}
}

const build = "POST /build"

func TestBuild(t *testing.T) {
	e := newEngine(t)
	var files map[string]string
	e.handle(build, func(w http.ResponseWriter, r *http.Request) {
		files = untar(t, r.Body)
		streams(`{"stream": "Step 1/2\n"}{"stream": "Step 2/2\n"}`)(w, r)
	})
	var said bytes.Buffer
	err := e.backend(docker.Options{Progress: &said}).Build(t.Context(), docker.Build{
		Tag: "mine:1", Context: fstest.MapFS{"Dockerfile": {Data: []byte("FROM scratch")}, "a/b": {Data: []byte("b")}}, Target: "slim",
		Args: map[string]string{"A": "1", "B": "2"}, Labels: map[string]string{"recipe": "abc"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"Dockerfile": "FROM scratch", "a/": "", "a/b": "b"}, files); diff != "" {
		t.Errorf("the build's context (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"t": "mine:1", "target": "slim", "buildargs": `{"A":"1","B":"2"}`, "labels": `{"recipe":"abc"}`, "version": "1",
	} {
		if got := e.query(build, name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	if said.String() != "Step 1/2\nStep 2/2\n" {
		t.Errorf("it said %q", said.String())
	}
}

func untar(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for in := tar.NewReader(r); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Error(err)
			return files
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Error(err)
		}
		files[header.Name] = string(data)
	}
}

func TestBuildFails(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"at once": {fail(http.StatusBadRequest, "dockerfile parse error"), "build mine:1: Error response from daemon: dockerfile parse error"},
		"late":    {streams(`{"stream": "Step 1"}{"error": "apt-get failed"}`), "build mine:1: apt-get failed"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.handle(build, test.answer)
			err := e.backend(docker.Options{}).Build(t.Context(), docker.Build{Tag: "mine:1", Context: fstest.MapFS{}})
			if err == nil || err.Error() != test.want {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// The version of the API is agreed upon once, however many ask first.
func TestNegotiation(t *testing.T) {
	e := newEngine(t)
	images := new(store)
	images.there.Store(true)
	e.handle(inspect, images.serve)
	b := e.backend(docker.Options{})
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if _, err := b.Resolve(t.Context(), ref); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.seen {
		if !strings.HasPrefix(r.URL.Path, "/v1.41/") {
			t.Errorf("asked at %s", r.URL.Path)
		}
	}
}

func TestNegotiationGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newEngine(t).backend(docker.Options{}).Health(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

// The machine is the engine's, which may be another.
func TestMachine(t *testing.T) {
	e := newEngine(t)
	b := e.backend(docker.Options{})
	if _, err := b.Machine(t.Context()); err != nil {
		t.Errorf("of an engine that does not say: %v", err)
	}
	other := newEngineOf(t, `{"MemTotal": 12345678, "NCPU": 48}`)
	want := execution.Machine{Memory: 12345678, Cores: 48}
	if got, err := other.backend(docker.Options{}).Machine(t.Context()); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	other.server.Close()
	if _, err := other.backend(docker.Options{}).Machine(t.Context()); err == nil {
		t.Error("an engine that is not there has a machine")
	}
}

func TestHealthAndVersion(t *testing.T) {
	e := newEngine(t)
	e.handle("GET /version", say(http.StatusOK, map[string]any{"Version": "20.10.24"}))
	b := e.backend(docker.Options{})
	if err := b.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if version, err := b.Version(t.Context()); err != nil || version != "20.10.24" {
		t.Errorf("the version is %q, %v", version, err)
	}
}

func TestVersionRefused(t *testing.T) {
	e := newEngine(t)
	e.handle("GET /version", fail(http.StatusForbidden, "authorization denied by plugin"))
	_, err := e.backend(docker.Options{}).Version(t.Context())
	unavailable(t, err, refused, "authorization denied by plugin")
}
