package executiontest

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

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

func briefly(req execution.Request) execution.Request {
	req.Timeout = shortTime
	return req
}

func withStdin(req execution.Request, stdin string) execution.Request {
	req.Stdin = stdin
	return req
}

func withEnvironment(req execution.Request, env map[string]string, args ...string) execution.Request {
	req.Env, req.Args = env, args
	return req
}

func withFiles(req execution.Request, files ...execution.Input) execution.Request {
	req.Files = files
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
		// A program's process begins before its run: only what it takes from here on is the run's.
		"usage", code("import time", "began = time.process_time()", "x = b'x' * 50_000_000",
			"while time.process_time() - began < 0.2: pass"),
		func(t *testing.T, r *execution.Result) {
			if r.Usage.CPU < 200*time.Millisecond || r.Usage.PeakMemoryBytes < 50_000_000 {
				t.Errorf("the usage is %+v", r.Usage)
			}
		},
	},
}

var input = []conformance{
	{"stdin", withStdin(code("import sys", "print(input(), repr(sys.stdin.read()))"), "one\ntwo\n"), prints("one 'two\\n'\n")},
	{"no stdin", code("import sys", "print(repr(sys.stdin.read()))"), prints("''\n")},
	{"input without stdin", code("input()"), fails("EOFError")},
	{"stdin that is not read", withStdin(code("print(1)"), strings.Repeat("x", 1<<20)), prints("1\n")},
	{"much stdin", withStdin(code("import sys", "print(len(sys.stdin.read()))"), strings.Repeat("x", 1<<20)), prints("1048576\n")},
	{"variables", withEnvironment(code("import os, subprocess", "print(os.environ['A'], os.environ['HOME'])", "subprocess.run('echo $A', shell=True)"),
		map[string]string{"A": "é=\n", "HOME": "/"}), prints("é=\n /\né=\n")},
	{"arguments", withEnvironment(code("import sys", "print(sys.argv)"), nil, "", "-v", "é\n"), prints("['/workspace/__main__.py', '', '-v', 'é\\n']\n")},
	{"as many variables and arguments as there can be", withEnvironment(code("import os, sys", "print(len(os.environ['A']), len(sys.argv))"),
		map[string]string{"A": strings.Repeat("x", 64<<10-3-2*255)}, slices.Repeat([]string{"x"}, 255)...), prints("65023 256\n")},
	{"no variables and arguments", code("import os, sys", "print(os.environ.get('A'), os.environ['HOME'], len(sys.argv))"), prints("None /tmp 1\n")},
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
	{"bytes that are not UTF-8", code("import sys", `sys.stdout.buffer.write(b'a\xff\xfeb')`), prints("a\uFFFD\uFFFDb")},
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
	{"names that are not UTF-8", code(`open(b'\xff', 'w').write('x')`), func(t *testing.T, r *execution.Result) {
		wantFiles(t, r, nil)
		if len(r.Skipped) != 1 {
			t.Errorf("skipped are %v", r.Skipped)
		}
	}},
}
