package docker_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
)

// The engine makes /proc/sys read-only, except where the supervisor does so itself: in a
// container for many runs, unless AppArmor or SELinux forbids it. It always masks what it masks.
func TestReadOnlyPaths(t *testing.T) {
	for name, test := range map[string]struct {
		info      string
		isolation execution.Isolation
		own       bool
	}{
		"many runs":           {`{"SecurityOptions": ["name=seccomp,profile=default", "name=cgroupns"]}`, execution.IsolationRun, true},
		"many runs, AppArmor": {`{"SecurityOptions": ["name=apparmor", "name=seccomp,profile=default"]}`, execution.IsolationRun, false},
		"many runs, SELinux":  {`{"SecurityOptions": ["name=selinux"]}`, execution.IsolationRun, false},
		"one run":             {`{}`, execution.IsolationContainer, false},
		"session":             {`{}`, execution.IsolationSession, false},
	} {
		t.Run(name, func(t *testing.T) {
			paths := pathsOf(t, test.info, test.isolation)
			if paths.MaskedPaths != nil {
				t.Errorf("not the engine's own list of masked paths: %v", paths.MaskedPaths)
			}
			if own := paths.ReadonlyPaths != nil; own != test.own {
				t.Errorf("read-only are %v", paths.ReadonlyPaths)
			}
			if test.own && (slices.Contains(paths.ReadonlyPaths, "/proc/sys") || !slices.Contains(paths.ReadonlyPaths, "/proc/sysrq-trigger")) {
				t.Errorf("read-only are %v", paths.ReadonlyPaths)
			}
		})
	}
}

type proc struct{ MaskedPaths, ReadonlyPaths []string }

// pathsOf returns what an engine is asked to do with /proc. Nil is its own list.
func pathsOf(t *testing.T, info string, isolation execution.Isolation) proc {
	t.Helper()
	e := newEngineOf(t, info)
	var asked struct{ HostConfig proc }
	e.handle(create, func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		fail(http.StatusTeapot, "enough")(w, r)
	})
	spec := execution.Spec{Image: "sha256:abc", Settings: execution.Settings{Isolation: isolation}}
	if _, err := e.backend(docker.Options{}).Start(t.Context(), spec); err == nil {
		t.Fatal("no error")
	}
	return asked.HostConfig
}
