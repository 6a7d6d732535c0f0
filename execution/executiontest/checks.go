package executiontest

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// prints checks for a program that succeeds.
func prints(want string) func(*testing.T, *execution.Result) {
	return func(t *testing.T, r *execution.Result) {
		t.Helper()
		wantEnd(t, r, 0, execution.End{Reason: execution.Exited})
		if r.Stdout != want || r.Stderr != "" {
			t.Errorf("stdout is %q, not %q; stderr is %q", r.Stdout, want, r.Stderr)
		}
	}
}

// exits checks for a program that ends by itself.
func exits(exitCode int) func(*testing.T, *execution.Result) {
	return func(t *testing.T, r *execution.Result) {
		t.Helper()
		wantEnd(t, r, exitCode, execution.End{Reason: execution.Exited})
	}
}

// fails checks for a program that ends with 1 and a message.
func fails(inStderr ...string) func(*testing.T, *execution.Result) {
	return func(t *testing.T, r *execution.Result) {
		t.Helper()
		wantEnd(t, r, 1, execution.End{Reason: execution.Exited})
		for _, want := range inStderr {
			if !strings.Contains(r.Stderr, want) {
				t.Errorf("%q is not in stderr: %s", want, r.Stderr)
			}
		}
	}
}

// dies checks for a program that a signal ends.
func dies(signal string, exitCode int) func(*testing.T, *execution.Result) {
	return func(t *testing.T, r *execution.Result) {
		t.Helper()
		wantEnd(t, r, exitCode, execution.End{Reason: execution.Signal, Signal: signal})
		if r.Stdout != "before\n" {
			t.Errorf("stdout is %q", r.Stdout)
		}
	}
}

func wantEnd(t *testing.T, r *execution.Result, exitCode int, want execution.End) {
	t.Helper()
	if r.ExitCode == nil || *r.ExitCode != exitCode {
		t.Errorf("the exit code is %s, not %d", exitCodeOf(r), exitCode)
	}
	if r.End != want {
		t.Errorf("the end is %+v, not %+v; stderr is %s", r.End, want, r.Stderr)
	}
}

func exitCodeOf(r *execution.Result) string {
	if r.ExitCode == nil {
		return "none"
	}
	return strconv.Itoa(*r.ExitCode)
}

const shortTime = 500 * time.Millisecond

// timesOut checks for a program whose time is up after 500 ms.
func timesOut(t *testing.T, r *execution.Result) {
	t.Helper()
	if !r.TimedOut() || r.ExitCode != nil || !r.Failed() {
		t.Errorf("the end is %+v, the exit code %s", r.End, exitCodeOf(r))
	}
	if r.Duration < shortTime || r.Duration > shortTime+slack {
		t.Errorf("it ran for %v, of %v", r.Duration, shortTime)
	}
	if r.Stdout != "before\n" {
		t.Errorf("stdout is %q", r.Stdout)
	}
}

func wantFiles(t *testing.T, r *execution.Result, want map[string]string) {
	t.Helper()
	if len(r.Files) != len(want) {
		t.Errorf("%d files, not %d; stderr is %s", len(r.Files), len(want), r.Stderr)
	}
	for _, file := range r.Files {
		content, expected := want[file.Path]
		if !expected || content != string(file.Content) || file.Size != int64(len(content)) {
			t.Errorf("the file %q has %.60q (expected: %v)", file.Path, file.Content, expected)
		}
	}
}

func wantSkipped(t *testing.T, r *execution.Result, want ...string) {
	t.Helper()
	var paths []string
	for _, file := range r.Skipped {
		paths = append(paths, file.Path)
		if file.Reason == "" {
			t.Errorf("%s was skipped for no reason", file.Path)
		}
	}
	slices.Sort(paths)
	if !slices.Equal(paths, want) {
		t.Errorf("skipped are %q, not %q", paths, want)
	}
}
