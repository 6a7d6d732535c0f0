package local_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/local"
)

// shim is a script that chooses an interpreter, as those of pyenv do, and notes each time
// that it is asked.
type shim struct{ root, log string }

func newShim(t *testing.T, folder string) shim {
	t.Helper()
	root := filepath.Join(outside(t), ".pyenv")
	s := shim{root: root, log: filepath.Join(t.TempDir(), "log")}
	text := fmt.Sprintf("#!/bin/sh\necho asked >> %s\nexec %s \"$@\"\n", s.log, systemPython)
	path := filepath.Join(root, folder, "python3")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", filepath.Dir(root))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", filepath.Dir(path)+":/usr/bin:/bin")
	return s
}

// asked resolves the interpreter in a new server, and returns how often the shim was asked
// in all.
func (s shim) asked(t *testing.T) int {
	t.Helper()
	b := newBackend(t, "", func(o *local.Options) { o.Python = "" })
	if _, err := b.Resolve(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if path, err := b.Interpreter(t.Context()); err != nil || !strings.HasPrefix(path, "/usr/bin/python3") {
		t.Errorf("the interpreter is %q, %v", path, err)
	}
	log, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(log), "asked")
}

// A shim is asked once, and again when something changes that it may choose by.
func TestShimIsAskedOnce(t *testing.T) {
	s := newShim(t, "shims")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	project, shimPath := t.TempDir(), filepath.Join(s.root, "shims", "python3")
	text, err := os.ReadFile(shimPath)
	if err != nil {
		t.Fatal(err)
	}
	for want, step := range []struct {
		name   string
		change func()
	}{
		{"the first time", func() {}},
		{"another global version", func() { write(filepath.Join(s.root, "version"), "3.12") }},
		{"a new version", func() { write(filepath.Join(s.root, "versions"), "") }},
		{"a version in the environment", func() { t.Setenv("PYENV_VERSION", "3.13") }},
		{"another folder", func() { t.Chdir(project) }},
		{"a version of the folder", func() { write(filepath.Join(project, ".python-version"), "3.11") }},
		{"a version of the folder, for asdf", func() { write(filepath.Join(project, ".tool-versions"), "python 3.11") }},
		{"another shim", func() { write(shimPath, string(text)+"# changed\n") }},
	} {
		step.change()
		for range 3 {
			if got := s.asked(t); got != want+1 {
				t.Errorf("%s: asked %d times, not %d", step.name, got, want+1)
			}
		}
	}
}

// A script of another kind may choose by anything: it is asked each time.
func TestOtherScriptsAreAskedEachTime(t *testing.T) {
	s := newShim(t, "scripts")
	for want := range 3 {
		if got := s.asked(t); got != want+1 {
			t.Errorf("asked %d times, not %d", got, want+1)
		}
	}
}

// Where nothing can be remembered, the shim is asked.
func TestShimWithoutACache(t *testing.T) {
	s := newShim(t, "shims")
	t.Setenv("XDG_CACHE_HOME", "/proc/nowhere")
	for want := range 2 {
		if got := s.asked(t); got != want+1 {
			t.Errorf("asked %d times, not %d", got, want+1)
		}
	}
}
