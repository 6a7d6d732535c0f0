package executiontest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Executor is what the suite tests.
type Executor interface {
	Execute(ctx context.Context, req execution.Request) (*execution.Result, error)
}

// Limits that the suite expects: an executor may allow more.
const (
	leastTimeout     = 20 * time.Second
	leastOutputBytes = 10_000
	leastFiles       = 10
)

// slack is how much longer than its timeout a run may be under way on a loaded
// machine.
const slack = 10 * time.Second

// Run checks that an executor runs Python as the domain promises, whatever its
// backend: how programs end, what they read, print, find and leave behind.
//
// The executor must run real Python 3.9 or newer, allow timeouts of 20 s,
// return at least ten files and admit as many requests at once as go test runs
// in parallel. Where it has a method Limits, as [execution.Executor] has, output
// is tested up to its limit and beyond. Walls (memory, processes, the network)
// are not tested here: each backend has its own.
func Run(t *testing.T, executor Executor) {
	t.Helper()
	s := suite{executor: executor, outputBytes: -1}
	if limited, ok := executor.(interface{ Limits() execution.Limits }); ok {
		s.outputBytes = limited.Limits().OutputBytes
		checkLimits(t, limited.Limits())
	}
	t.Run("conformance", s.test) // returns when all that runs in parallel is over
}

func (s suite) test(t *testing.T) {
	for _, c := range slices.Concat(endings, input, output, lastLine, workspace) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.check(t, s.execute(t, c.req))
		})
	}
	t.Run("output limit", s.testOutputLimit)
	t.Run("files are kept", s.testKeep)
	t.Run("every run is fresh", s.testFresh)
	t.Run("children do not delay the end", s.testChildren)
	t.Run("caller leaves", s.testCancelled)
	t.Run("invalid requests", s.testInvalid)
}

type suite struct {
	executor    Executor
	outputBytes int // -1: not known
}

func checkLimits(t *testing.T, l execution.Limits) {
	t.Helper()
	if l.MaxTimeout < leastTimeout || l.OutputBytes < leastOutputBytes || l.ResultFiles < leastFiles {
		t.Fatalf("the executor's limits are too small for this suite: %+v", l)
	}
}

func (s suite) execute(t *testing.T, req execution.Request) *execution.Result {
	t.Helper()
	if req.Timeout == 0 {
		req.Timeout = leastTimeout
	}
	result, err := s.executor.Execute(t.Context(), req)
	if err != nil {
		t.Fatalf("Execute: %v", err)
	}
	return result
}

const truncated = "\n...[truncated]"

// testOutputLimit checks that output is kept up to its last byte and then cut,
// each stream by itself, and that a program may go on printing.
func (s suite) testOutputLimit(t *testing.T) {
	t.Parallel()
	if s.outputBytes < 0 {
		r := s.execute(t, code("for _ in range(64): print('x' * (1 << 20))"))
		if !strings.HasSuffix(r.Stdout, truncated) {
			t.Errorf("64 MB of output were not cut: there are %d bytes", len(r.Stdout))
		}
		return
	}
	limit := s.outputBytes
	most, err := strings.Repeat("x", limit), strings.Repeat("e", 10)
	for name, test := range map[string]struct {
		print, want string
	}{
		"exactly the limit":        {fmt.Sprintf("'x' * %d", limit), most},
		"one byte more":            {fmt.Sprintf("'x' * %d", limit+1), most + truncated},
		"three times as much":      {fmt.Sprintf("'x' * %d", 3*limit), most + truncated},
		"a character at the limit": {fmt.Sprintf("'x' * %d + '€'", limit-1), most[1:] + truncated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := s.execute(t, code("import sys", "sys.stdout.write("+test.print+")", "sys.stderr.write('e' * 10)"))
			wantEnd(t, r, 0, execution.End{Reason: execution.Exited})
			if r.Stdout != test.want || r.Stderr != err {
				t.Errorf("%d bytes that end in %q, %q", len(r.Stdout), r.Stdout[max(0, len(r.Stdout)-30):], r.Stderr)
			}
		})
	}
}

// testKeep checks that a request's Keep gets each file while it comes in, and
// that one which it refuses is skipped.
func (s suite) testKeep(t *testing.T) {
	t.Parallel()
	kept := make(map[string]string)
	req := code("open('a', 'w').write('x' * 200_000)", "open('b', 'w').write('no')", "open('c', 'w')")
	req.Keep = func(_ context.Context, path string, content io.Reader) (string, error) {
		if path == "b" {
			return "", &execution.Error{Code: execution.StoreFull, Message: "there is no room"}
		}
		data, err := io.ReadAll(content)
		kept[path] = string(data)
		return "id of " + path, err
	}
	r := s.execute(t, req)
	if len(kept) != 2 || kept["a"] != strings.Repeat("x", 200_000) || kept["c"] != "" {
		t.Errorf("kept were %d files", len(kept))
	}
	want := []execution.File{{Path: "a", Size: 200_000, ID: "id of a"}, {Path: "c", ID: "id of c"}}
	if !slices.EqualFunc(r.Files, want, func(a, b execution.File) bool {
		return a.Path == b.Path && a.Size == b.Size && a.ID == b.ID && a.Content == nil
	}) {
		t.Errorf("files are %+v", r.Files)
	}
	wantSkipped(t, r, "b")
}

// testFresh checks that a run finds nothing of an earlier one.
func (s suite) testFresh(t *testing.T) {
	t.Parallel()
	leave := code("import os, builtins", "builtins.left = os.environ['LEFT'] = 'x'", "open('left', 'w').write('x')",
		"open('/tmp/left', 'w').write('x')", "print('done')")
	find := code("import os", "print(os.listdir('.'), os.path.exists('/tmp/left'), 'LEFT' in os.environ, 'left' in dir(__builtins__))")
	for range 3 {
		left := s.execute(t, leave)
		wantFiles(t, left, map[string]string{"left": "x"})
		prints("['__main__.py'] False False False\n")(t, s.execute(t, find))
	}
}

// testChildren checks that a run ends with its main process, whatever that
// left behind.
func (s suite) testChildren(t *testing.T) {
	t.Parallel()
	r := s.execute(t, code("import subprocess", "subprocess.Popen(['sleep', '1000'], start_new_session=True)", "print('done')"))
	prints("done\n")(t, r)
	if r.Duration > slack {
		t.Errorf("it ran for %v", r.Duration)
	}
}

// testCancelled checks that a caller who leaves ends the run.
func (s suite) testCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), shortTime)
	defer cancel()
	began := time.Now()
	req := code("import time", "time.sleep(1000)")
	req.Timeout = leastTimeout
	result, err := s.executor.Execute(ctx, req)
	var domain *execution.Error
	if result != nil || !errors.As(err, &domain) || domain.Code != execution.Cancelled {
		t.Errorf("result %v, error %v", result, err)
	}
	if took := time.Since(began); took > slack {
		t.Errorf("it took %v", took)
	}
}

// testInvalid checks that faults are reported before anything runs.
func (s suite) testInvalid(t *testing.T) {
	t.Parallel()
	for name, req := range map[string]execution.Request{
		"a timeout below zero":   {Timeout: -time.Second},
		"a timeout of a century": {Timeout: 100 * 365 * 24 * time.Hour},
		"a path that leads out":  withFiles(code(""), execution.Inline("../a", nil)),
		"the program's own path": withFiles(code(""), execution.Inline(execution.MainFile, nil)),
	} {
		result, err := s.executor.Execute(t.Context(), req)
		var domain *execution.Error
		if result != nil || !errors.As(err, &domain) || domain.Code != execution.Invalid {
			t.Errorf("%s: result %v, error %v", name, result, err)
		}
	}
}
