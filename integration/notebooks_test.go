package integration

import (
	"encoding/json"
	"strings"
	"testing"

	mcpclient "github.com/mark3labs/mcp-go/client"
)

// notebooks are programs as notebooks and chats have them.
func notebooks() []program {
	const noHash = `class M(type):
    def __eq__(self, other): return self is other
class A(metaclass=M): pass
a = A()
with open("x.txt", "w") as file: file.write("data")
1`
	// What displays is loaded when it is used first, here by several threads at once.
	const threads = `import threading
class A:
    def _repr_markdown_(self): return "#"
    def __repr__(self): return "<A>"
all = [threading.Thread(target=display, args=(A(),)) for _ in range(8)]
for t in all: t.start()
for t in all: t.join()`
	const ownModule = "x = open('results.py', 'w').write('mine = 1')\ndisplay(get_ipython() is None)\nimport results\nresults.mine"
	const await = "import asyncio\nasync def m(): return 5\n"
	return []program{
		{name: "fences", code: "```python\nprint(6*7)\n```", stdout: "42\n"},
		{name: "fences without a language", code: "\n```\nprint(6*7)\n```\n", stdout: "42\n"},
		{name: "magics", code: "%matplotlib inline\n%load_ext autoreload\n%time x = 42\nprint(x)", stdout: "~42\n"},
		{name: "command", code: "n = 2\n!echo {n+1} $n $HOME\nfiles = !echo a; echo b\nfiles", stdout: "3 2 /tmp\n['a', 'b']\n"},
		{name: "cell of bash", code: "%%bash\nfor i in 1 2; do echo $i; done", stdout: "1\n2\n"},
		{name: "cell that is timed", code: "%%time\nx = 5\nx", stdout: "~5\nCPU times: "},
		{name: "unknown magic", code: "%nonsense", exit: "1", stderr: "~UsageError: Line magic function `%nonsense` not found."},
		{name: "pip", code: "!pip install no-such-package-x\nprint('on')", stdout: "on\n", stderr: "~nothing can be installed"},
		{name: "pip as a magic", code: "%pip install no-such-package-x\n", stderr: "~nothing can be installed"},
		{name: "IPython", code: "from IPython.display import display, HTML, Markdown\ndisplay(Markdown('# x'))\nget_ipython() is None", stdout: "# x\nFalse\n"},
		{name: "IPython as a module", code: "import IPython\nIPython.display.display(IPython.display.Markdown('# y'))", stdout: "# y\n"},
		{name: "an error of Python's own", code: "%matplotlib inline\nx = = 1", exit: "1", stderr: "~line 2\n    x = = 1\n"},
		{name: "semicolon", code: "x = 1\nx;"},
		{name: "semicolon and comment", code: "(1\n); # shows nothing"},
		{name: "await and run", code: await + "x = await m()\nprint(asyncio.run(m()) + x)", stdout: "10\n"},
		{name: "await and a loop", code: await + "x = await m()\nasyncio.new_event_loop().run_until_complete(m())", stdout: "5\n"},
		{name: "run, then await", code: await + "y = asyncio.run(m())\nt = asyncio.create_task(m())\nawait t + y", stdout: "10\n"},
		{name: "big numbers", code: "x = 2**20000\nprint(len(str(x)), int('9' * 5000) > 0)", stdout: "6021 True\n"},
		{name: "big numbers in a child", code: "import subprocess, sys\nsubprocess.check_output([sys.executable, '-c', 'print(len(str(2**20000)))'])", stdout: "b'6021\\n'\n"},
		{name: "classes without a hash", code: noHash, stdout: "1\n", files: "x.txt"},
		{name: "displays in threads", code: threads, stdout: "~#\n"},
		{name: "a module of the program's own", code: ownModule, stdout: "False\n1\n", files: "results.py"},
		{name: "warning of the last frame", code: "import warnings\nwarnings.warn('w', stacklevel=2)", stderr: "~<sys>:"},
	}
}

func TestNotebooks(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		t.Helper()
		for _, p := range notebooks() {
			t.Run(p.name, func(t *testing.T) { p.check(t, mustRun(t, s, request{"code": p.code})) })
		}
		atEnd := program{stderr: "~<sys>:"}
		atEnd.check(t, mustRun(t, s, request{"code": "async def m(): pass\nx = m()"}))
	})
}

// A model sends the same programs.
func TestNotebooksOverMCP(t *testing.T) {
	c, err := mcpclient.NewStreamableHttpClient(shared.server.url + "/mcp")
	c = connect(t, c, err)
	for _, p := range notebooks() {
		t.Run(p.name, func(t *testing.T) {
			text, failed := call(t, c, patient(request{"code": p.code}))
			for _, want := range []string{p.stdout, p.stderr} {
				if !strings.Contains(text, strings.TrimPrefix(want, "~")) {
					t.Errorf("%q is not in %q", want, text)
				}
			}
			if failed != (p.exit != "") {
				t.Errorf("failed: %t; %s", failed, text)
			}
		})
	}
}

func TestSessionNotebooks(t *testing.T) {
	s := startSession(t, shared.server, request{})
	for _, p := range notebooks() {
		t.Run(p.name, func(t *testing.T) {
			p.check(t, s.python(t, p.code))
		})
	}
}

// What a cell prints and writes is written at its end.
func TestSessionFlushes(t *testing.T) {
	s := startSession(t, shared.server, request{})
	const wrap = "import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('answer: 42')"
	s.check(t, []step{
		py("a wrapper", wrap, "answer: 42\n"),
		py("a wrapper again", wrap, "answer: 42\n"),
		py("after it", "print(1)", "1\n"),
		py("a stream of its own", "own = io.TextIOWrapper(sys.__stdout__.buffer)\nx = own.write('own')", "own"),
		{program: program{name: "a file", code: "import csv\nf = open('out.csv', 'w')\ncsv.writer(f).writerows([['a', 'b'], [1, 2]])", files: "out.csv"}},
		{bash: "cat out.csv", program: program{name: "a command", stdout: "a,b\r\n1,2\r\n"}},
		{program: program{name: "the same file", code: "x = f.write('c')", files: "out.csv"}},
		{bash: "tail -c 1 out.csv", program: program{name: "a command again", stdout: "c"}},
		{program: program{name: "a failing cell", code: "g = open('g.bin', 'wb'); g.write(b'x'); 1/0", exit: "1", stderr: "~ZeroDivisionError", files: "g.bin"}},
		{bash: "cat g.bin", program: program{name: "its file", stdout: "x"}},
	})
}

// Processes that a cell spawns know what cells define, and inspect finds it.
func TestSessionDefinitions(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.check(t, []step{
		py("spawn", "import multiprocessing as mp\ndef sq(x): return x * x\nif __name__ == '__main__':\n    with mp.get_context('spawn').Pool(1) as p:\n        print(p.map(sq, range(3)))", "[0, 1, 4]\n"),
		py("definitions", "import math\nN = 10\nclass A:\n    def f(self, x): return x * N + math.floor(1.5)\ndef g(x): return A().f(x)", ""),
		py("forkserver", "from concurrent.futures import ProcessPoolExecutor\nwith ProcessPoolExecutor(1, mp_context=mp.get_context('forkserver')) as p: print(list(p.map(g, range(3))))", "[1, 11, 21]\n"),
		py("a class", "import inspect\nprint(inspect.getsource(A), end='')", "class A:\n    def f(self, x): return x * N + math.floor(1.5)\n"),
		py("a function", "print(inspect.getsource(sq), end='')", "def sq(x): return x * x\n"),
		py("a class without methods", "class B:\n    x = 1", ""),
		py("its source", "print(inspect.getsource(B), end='')", "class B:\n    x = 1\n"),
	})
}

// The answer has each displayed value in all its forms.
func TestDisplayedValues(t *testing.T) {
	const code = `from IPython.display import *
class H:
    def _repr_html_(self): return "<b>日本語 é</b>"
    def __repr__(self): return "<H>"
display(H(), Markdown("# x"))
display(JSON({"a": [1]}))
b"text"`
	onBoth(t, func(t *testing.T, s *server) {
		t.Helper()
		var answer struct {
			Stdout  string
			Results []map[string]any
			Files   []file
		}
		if status := s.post(t, "/v1/execute", patient(request{"code": code}), &answer); status != 200 {
			t.Fatalf("status %d", status)
		}
		got, err := json.Marshal(answer.Results)
		if err != nil {
			t.Fatal(err)
		}
		const want = `[{"text/html":"\u003cb\u003e日本語 é\u003c/b\u003e","text/plain":"\u003cH\u003e"},` +
			`{"text/markdown":"# x","text/plain":"# x"},` +
			`{"application/json":{"a":[1]},"text/plain":"{\"a\": [1]}"},{"text/plain":"b'text'"}]`
		if string(got) != want || answer.Stdout != "<H>\n# x\n{\"a\": [1]}\nb'text'\n" {
			t.Errorf("%q\n got %s\nwant %s", answer.Stdout, got, want)
		}
		if len(answer.Files) != 1 || answer.Files[0].Path != "output-1.html" {
			t.Fatalf("the files are %+v", answer.Files)
		}
		page := s.download(t, answer.Files[0].FileID)
		if !strings.HasPrefix(page, "<!doctype html>") || !strings.Contains(page, `<meta charset="utf-8">`) || !strings.Contains(page, "日本語 é") {
			t.Errorf("the page is %q", page)
		}
	})
}

// A program cannot make the server hold more than its output limit by what it displays.
func TestDisplayedValuesAreBounded(t *testing.T) {
	s := startServer(t, with(slimImage, "POOL_SIZE=1", "MAX_OUTPUT_BYTES=1000")...)
	for name, p := range map[string]struct {
		code string
		want int // results
	}{
		"many":          {"for i in range(1000): display({'text/plain': '', 'a/b': 'x' * 100}, raw=True)", 1000},
		"large":         {"display({'text/plain': 'p', 'a/b': 'x' * 10_000_000}, raw=True)", 1},
		"forged":        {"open('/tmp/.vivarium-results', 'wb').write(b'\\x01\\x03\\xff\\xff\\xff\\xffa/b'); None", 0},
		"a pipe":        {"import os; os.mkfifo('/tmp/.vivarium-results'); None", 0},
		"a link":        {"import os; os.symlink('/etc/passwd', '/tmp/.vivarium-results'); None", 0},
		"a folder":      {"import os; os.mkdir('/tmp/.vivarium-results')\n5", 0},
		"no media type": {"display({'text/plain': 'x', 'a b': 'y', '': 'z'}, raw=True)", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var answer struct {
				Results []map[string]string
			}
			if status := s.post(t, "/v1/execute", patient(request{"code": p.code}), &answer); status != 200 {
				t.Fatalf("status %d", status)
			}
			size := 0
			for _, result := range answer.Results {
				for _, form := range result {
					size += len(form)
				}
			}
			if size > 1000 || len(answer.Results) > p.want || p.want == 1 && len(answer.Results) != 1 {
				t.Errorf("%d results of %d bytes", len(answer.Results), size)
			}
			program{stdout: "1\n"}.check(t, mustRun(t, s, request{"code": "print(1)"}))
		})
	}
}
