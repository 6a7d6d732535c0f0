package executiontest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
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

// conformance is one program and what must come of it.
type conformance struct {
	name  string
	req   execution.Request
	check func(t *testing.T, r *execution.Result)
}

func code(lines ...string) execution.Request {
	return execution.Request{Code: strings.Join(lines, "\n")}
}

func interactive(lines ...string) execution.Request {
	req := code(lines...)
	req.Interactive = true
	return req
}

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

const shortTime = 500 * time.Millisecond

func briefly(req execution.Request) execution.Request {
	req.Timeout = shortTime
	return req
}

var endings = []conformance{
	{"nothing", code(""), prints("")},
	{"success", code("print(6 * 7)"), prints("42\n")},
	{"sys.exit(0)", code("import sys", "sys.exit(0)"), exits(0)},
	{"sys.exit()", code("import sys", "sys.exit()"), exits(0)},
	{"sys.exit(3)", code("import sys", "sys.exit(3)"), exits(3)},
	{"sys.exit(-1)", code("import sys", "sys.exit(-1)"), exits(255)},
	{"sys.exit with text", code("import sys", "sys.exit('no luck')"), fails("no luck\n")},
	{"os._exit", code("import os", "os._exit(7)"), exits(7)},
	{"exit code above 128", code("import sys", "sys.exit(137)"), exits(137)},
	{"exception", code("def f():", "    return 1 / 0", "f()"), func(t *testing.T, r *execution.Result) {
		fails("Traceback (most recent call last):", "__main__.py\", line 3", "in f", "return 1 / 0", "ZeroDivisionError: division by zero")(t, r)
		if strings.Contains(r.Stderr, "supervisor") || strings.Count(r.Stderr, "File \"") != 2 {
			t.Errorf("the traceback shows more than the program: %s", r.Stderr)
		}
	}},
	{"exception in a text that is executed", code("exec('\\n' * 9 + '1 / 0')"), func(t *testing.T, r *execution.Result) {
		fails("__main__.py\", line 1", "File \"<string>\", line 10", "ZeroDivisionError")(t, r)
		if strings.Count(r.Stderr, "\n") > 6 || strings.Contains(r.Stderr, "fork") {
			t.Errorf("the traceback shows lines of others: %s", r.Stderr)
		}
	}},
	{"syntax error", code("print('never')", "x = = 1"), func(t *testing.T, r *execution.Result) {
		fails("SyntaxError", "line 2")(t, r)
		if r.Stdout != "" {
			t.Errorf("a part was run: %q", r.Stdout)
		}
	}},
	{"SIGSEGV", code("import os", "print('before')", "os.kill(os.getpid(), 11)"), dies("SIGSEGV", 139)},
	{"SIGKILL", code("import os", "print('before')", "os.kill(os.getpid(), 9)"), dies("SIGKILL", 137)},
	{"SIGTERM", code("import os", "print('before')", "os.kill(os.getpid(), 15)"), dies("SIGTERM", 143)},
	{"abort", code("import os", "print('before')", "os.abort()"), dies("SIGABRT", 134)},
	{"timeout, asleep", briefly(code("import time", "print('before')", "time.sleep(60)")), timesOut},
	{"timeout, busy", briefly(code("print('before')", "while True: pass")), timesOut},
	{"timeout, signals ignored", briefly(code(
		"import signal, time", "for n in range(1, 32):", "    if n not in (9, 19): signal.signal(n, signal.SIG_IGN)",
		"print('before')", "while True: time.sleep(1)")), timesOut},
	{
		"timeout, with files", briefly(code("import time", "open('kept', 'w').write('yes')", "print('before')", "time.sleep(60)")),
		func(t *testing.T, r *execution.Result) {
			timesOut(t, r)
			wantFiles(t, r, map[string]string{"kept": "yes"})
		},
	},
	{"duration", code("import time", "time.sleep(0.3)"), func(t *testing.T, r *execution.Result) {
		if r.Duration < 300*time.Millisecond || r.Duration > slack || r.Queue < 0 || r.Started.IsZero() {
			t.Errorf("it ran for %v after %v, from %v", r.Duration, r.Queue, r.Started)
		}
	}},
	{
		"usage", code("x = b'x' * 50_000_000", "while __import__('time').process_time() < 0.2: pass"),
		func(t *testing.T, r *execution.Result) {
			if r.Usage.CPU < 200*time.Millisecond || r.Usage.PeakMemoryBytes < 50_000_000 {
				t.Errorf("the usage is %+v", r.Usage)
			}
		},
	},
}

func withStdin(req execution.Request, stdin string) execution.Request {
	req.Stdin = stdin
	return req
}

var input = []conformance{
	{"stdin", withStdin(code("import sys", "print(input(), repr(sys.stdin.read()))"), "one\ntwo\n"), prints("one 'two\\n'\n")},
	{"no stdin", code("import sys", "print(repr(sys.stdin.read()))"), prints("''\n")},
	{"input without stdin", code("input()"), fails("EOFError")},
	{"stdin that nobody reads", withStdin(code("print(1)"), strings.Repeat("x", 1<<20)), prints("1\n")},
	{"much stdin", withStdin(code("import sys", "print(len(sys.stdin.read()))"), strings.Repeat("x", 1<<20)), prints("1048576\n")},
	{"stdin in Unicode", withStdin(code("print(input().upper())"), "é€😀ß\n"), prints("É€😀SS\n")},
}

var output = []conformance{
	{"stdout and stderr", code("import sys", "print('out')", "print('err', file=sys.stderr)"), func(t *testing.T, r *execution.Result) {
		exits(0)(t, r)
		if r.Stdout != "out\n" || r.Stderr != "err\n" {
			t.Errorf("stdout is %q, stderr is %q", r.Stdout, r.Stderr)
		}
	}},
	{"no newline at the end", code("print('x', end='')"), prints("x")},
	{"output of children", code("import subprocess, sys", "subprocess.run([sys.executable, '-c', 'print(1)'])", "print(2)"), prints("1\n2\n")},
	{"Unicode", code("print('é€😀')"), prints("é€😀\n")},
	{"bytes that are no UTF-8", code("import sys", `sys.stdout.buffer.write(b'a\xff\xfeb')`), prints("a\uFFFD\uFFFDb")},
	{"half a character", code("import sys", `sys.stdout.buffer.write('€'.encode()[:2])`), prints("\uFFFD\uFFFD")},
	{"NUL", code(`print('a\0b')`), prints("a\x00b\n")},
	{"code in Unicode", code("größe = '😀'", "print(größe)"), prints("😀\n")},
}

var lastLine = []conformance{
	{"last expression", interactive("x = 20", "x + 1"), prints("21\n")},
	{"last expression as repr", interactive("'text'"), prints("'text'\n")},
	{"last expression None", interactive("print('p')", "None"), prints("p\n")},
	{"earlier expressions are not shown", interactive("1", "2", "3"), prints("3\n")},
	{"last statement no expression", interactive("x = 5"), prints("")},
	{"last expression in a block", interactive("if True:", "    5"), prints("")},
	{"last expression over lines", interactive("[1,", " 2]"), prints("[1, 2]\n")},
	{"last expression that fails", interactive("print('p')", "1 / 0"), fails("ZeroDivisionError", "line 2")},
	{"last expression, not asked for", code("x = 20", "x + 1"), prints("")},
	{"last expression and a comment", interactive("5  # five", "# the end"), prints("5\n")},
}

func withFiles(req execution.Request, files ...execution.Input) execution.Request {
	req.Files = files
	return req
}

var workspace = []conformance{
	{
		"a program like any other", code("import sys, os",
			"print(__name__, os.path.basename(__file__), sys.argv == [__file__], os.path.dirname(__file__) == os.getcwd())"),
		prints("__main__ __main__.py True True\n"),
	},
	{"files in", withFiles(code("print(open('a.txt').read(), open('d/e/b.bin', 'rb').read(), len(open('empty').read()))"),
		execution.Inline("a.txt", []byte("text")), execution.Inline("d/e/b.bin", []byte{0, 255}),
		execution.Inline("empty", nil)), prints("text b'\\x00\\xff' 0\n")},
	{"a module in", withFiles(code("import helper", "print(helper.answer)"),
		execution.Inline("helper.py", []byte("answer = 42"))), func(t *testing.T, r *execution.Result) {
		prints("42\n")(t, r)
		wantFiles(t, r, nil)
	}},
	{"a large file in and out", withFiles(code("data = open('large', 'rb').read()", "open('copy', 'wb').write(data[::-1])"),
		execution.Inline("large", bytes.Repeat([]byte("0123456789"), 100_000))), func(t *testing.T, r *execution.Result) {
		wantFiles(t, r, map[string]string{"copy": strings.Repeat("9876543210", 100_000)})
	}},
	{"files out", code("import os", "os.makedirs('d/e')", "open('d/e/b.bin', 'wb').write(bytes([0, 255]))",
		"open('a.txt', 'w').write('text')", "open('empty', 'w')", "os.mkdir('folder')"), func(t *testing.T, r *execution.Result) {
		wantFiles(t, r, map[string]string{"a.txt": "text", "d/e/b.bin": "\x00\xff", "empty": ""})
	}},
	{"only what changed", withFiles(code("import os", "open('changed', 'a').write('!')", "os.remove('removed')",
		"open('same-size', 'w').write('new')", "open('read').read()"),
		execution.Inline("changed", []byte("old")), execution.Inline("removed", nil), execution.Inline("read", nil),
		execution.Inline("untouched", nil), execution.Inline("same-size", []byte("old"))), func(t *testing.T, r *execution.Result) {
		wantFiles(t, r, map[string]string{"changed": "old!", "same-size": "new"})
	}},
	{"file names in Unicode", withFiles(code("open('ü 😀.txt', 'w').write(open('é.txt').read())"),
		execution.Inline("é.txt", []byte("e"))), func(t *testing.T, r *execution.Result) {
		wantFiles(t, r, map[string]string{"ü 😀.txt": "e"})
	}},
	{"files of a program that fails", code("open('kept', 'w').write('yes')", "1 / 0"), func(t *testing.T, r *execution.Result) {
		fails("ZeroDivisionError")(t, r)
		wantFiles(t, r, map[string]string{"kept": "yes"})
	}},
	{"a file left open", code("f = open('open', 'w')", "f.write('buffered')"), func(t *testing.T, r *execution.Result) {
		wantFiles(t, r, map[string]string{"open": "buffered"})
	}},
	{
		"links are not followed", code("import os", "os.symlink('/etc/passwd', 'link')", "os.symlink('/etc', 'folder')"),
		func(t *testing.T, r *execution.Result) {
			wantFiles(t, r, nil)
			wantSkipped(t, r, "folder", "link")
		},
	},
	{"pipes are not read", code("import os", "os.mkfifo('pipe')"), func(t *testing.T, r *execution.Result) {
		wantFiles(t, r, nil)
		wantSkipped(t, r, "pipe")
	}},
	{"names that are no UTF-8", code(`open(b'\xff', 'w').write('x')`), func(t *testing.T, r *execution.Result) {
		wantFiles(t, r, nil)
		if len(r.Skipped) != 1 {
			t.Errorf("skipped are %v", r.Skipped)
		}
	}},
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

// testInvalid checks that faults are told before anything runs.
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
