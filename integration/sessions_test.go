package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// session is a session of a server's.
type session struct {
	server  *server
	id      string
	expires float64
}

// post sends JSON and reads the JSON of the answer.
func (s *server) post(t *testing.T, path string, body, answer any) int {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	status, text := s.send(t, http.MethodPost, path, "application/json", bytes.NewReader(data))
	if err := json.Unmarshal([]byte(text), answer); err != nil {
		t.Fatalf("%d %s: %v", status, text, err)
	}
	return status
}

// startSession creates a session, which ends with the test.
func startSession(t *testing.T, s *server, body request) *session {
	t.Helper()
	var created struct {
		SessionID string  `json:"session_id"`
		ExpiresAt float64 `json:"expires_at"`
		Detail    any     `json:"detail"`
	}
	if status := s.post(t, "/v1/sessions", body, &created); status != http.StatusCreated {
		t.Fatalf("%d %v", status, created.Detail)
	}
	t.Cleanup(func() { shared.host.endSession(created.SessionID) })
	return &session{s, created.SessionID, created.ExpiresAt}
}

// sessionSandboxes lists the sandboxes of a session.
func sessionSandboxes(t *testing.T, id string) []sandbox {
	t.Helper()
	list, err := shared.host.session(id)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// sandbox gives the session's sandbox.
func (s *session) sandbox(t *testing.T) string {
	t.Helper()
	list := sessionSandboxes(t, s.id)
	if len(list) != 1 {
		t.Fatalf("the session has not one sandbox: %+v", list)
	}
	return list[0].id
}

// awaitFile waits until there is a file in a sandbox, and says whether it came.
func awaitFile(t *testing.T, sandbox, path string) bool {
	t.Helper()
	return poll(func() bool {
		there, err := shared.host.exists(sandbox, path)
		if err != nil {
			t.Fatal(err)
		}
		return there
	})
}

func (s *session) path(rest string) string { return "/v1/sessions/" + s.id + rest }

// call makes a call, "/execute" or "/bash", that the session must take.
func (s *session) call(t *testing.T, route string, body request) *answer {
	t.Helper()
	a := new(answer)
	if a.status = s.server.post(t, s.path(route), body, a); a.status != http.StatusOK {
		t.Fatalf("status %d: %v", a.status, a.Detail)
	}
	return a
}

func (s *session) python(t *testing.T, code string) *answer {
	t.Helper()
	return s.call(t, "/execute", patient(request{"code": code}))
}

func (s *session) bash(t *testing.T, cmd string) *answer {
	t.Helper()
	return s.call(t, "/bash", request{"cmd": cmd})
}

// step is one call of a session, and what must come of it.
type step struct {
	program

	bash string // instead of code
	lost bool   // the interpreter's state
}

func (s *session) check(t *testing.T, steps []step) {
	t.Helper()
	for i, step := range steps {
		route, body := "/execute", request{"code": step.code, "stdin": step.stdin}
		if step.bash != "" {
			route, body = "/bash", request{"cmd": step.bash}
		}
		if step.timeout > 0 {
			body["timeout_ms"] = step.timeout
		}
		ok := t.Run(fmt.Sprintf("%d %s", i, step.name), func(t *testing.T) {
			a := s.call(t, route, patient(body))
			step.check(t, a)
			if lost := step.lost && !step.refused(a); a.StateLost != lost {
				t.Errorf("state lost: %v (%s)", a.StateLost, a.End.Message)
			}
			if step.timeout > 0 && a.DurationMS > step.timeout+4000 {
				t.Errorf("it took %d ms of %d", a.DurationMS, step.timeout)
			}
		})
		if !ok {
			t.Fatalf("step %d failed: the rest would mean nothing", i)
		}
	}
}

func py(name, code, stdout string) step {
	return step{program: program{name: name, code: code, stdout: stdout}}
}

func sh(name, cmd, stdout string) step {
	return step{program: program{name: name, stdout: stdout}, bash: cmd}
}

// Variables, imports, functions, classes and threads persist.
func TestSessionState(t *testing.T) {
	s := startSession(t, shared.server, request{})
	failing := py("an exception leaves it as it is", "x = 7\ndef f(a):\n    return 1 / a\nf(0)", "")
	failing.exit, failing.stderr = "1", "~File \"<cell 6>\", line 4, in <module>\n    f(0)\n"
	s.check(t, []step{
		py("a value", "x = 6\nx", "6\n"),
		py("a variable", "x * 7", "42\n"),
		py("_", "_ + 1", "43\n"),
		py("an import", "import json, threading, sys\nnow = threading.Event()", ""),
		py("used", "json.dumps([x])", "'[6]'\n"),
		failing,
		py("as it was", "x, f(2)", "(7, 0.5)\n"),
		py("source", "import inspect\nprint(inspect.getsource(f))", "~return 1 / a\n"),
		{program: program{name: "standard input", code: "print(input(), input())", stdin: "a\nb\n", stdout: "a b\n"}},
		{program: program{name: "is a child's", code: "import subprocess\nprint(subprocess.run(['cat'], capture_output=True).stdout)", stdin: "a\nb", stdout: "b'a\\nb'\n"}},
		py("or empty", "print(subprocess.run(['cat'], capture_output=True).stdout, sys.stdin.fileno())", "b'' 0\n"),
		{program: program{name: "nobody reads", code: "1", stdin: strings.Repeat("x", 1<<20), stdout: "1\n"}},
		{program: program{name: "none is left", code: "input()", exit: "1", stderr: "~EOFError"}},
		py("a thread begins", "said = []\ndef wait():\n    now.wait()\n    said.append('done')\nt = threading.Thread(target=wait)\nt.start()", ""),
		py("and ends", "now.set()\nt.join()\nsaid", "['done']\n"),
		{program: program{name: "sys.exit", code: "sys.exit(3)", exit: "3"}},
		py("is no end", "x", "7\n"),
		py("a class", "import pickle\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\npickle.loads(pickle.dumps(P(1)))", "P(a=1)\n"),
		py("multiprocessing", "import multiprocessing\ndef double(n): return 2 * n\nwith multiprocessing.Pool(2) as pool: print(pool.map(double, [1, 2]))", "[2, 4]\n"),
		py("await", "import asyncio\nq = asyncio.Queue()\nawait q.put('kept')", ""),
		py("in the same loop", "await q.get()", "'kept'\n"),
		py("main", "if __name__ == '__main__': print('main')", "main\n"),
		py("a fork that runs on", "import os\nif os.fork() == 0: x = 'child'\nelse: os.wait()\nx", "~7\n"),
		py("is not the session", "x", "7\n"),
		{program: program{name: "no syntax", code: "1 +", exit: "1", stderr: "~File \"<cell 25>\", line 1\n    1 +\n"}},
		{program: program{name: "memory is what it was", code: "b'x' * (1 << 40)", exit: "1", stderr: "~MemoryError"}},
		py("still", "x", "7\n"),
		{program: program{name: "descriptors closed and moved", code: "os.close(2)\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)\nsys.stdout = None"}},
		py("are back", "print('here')", "here\n"),
		{program: program{name: "what tracebacks need is broken", code: "import builtins\nreal, builtins.print = print, None\n1 / 0", exit: "1", stderr: "~could not be reported"}},
		py("and mended", "builtins.print = real\nprint(1)", "1\n"),
		{program: program{name: "a forged end", code: "import struct, time\nos.write(63, struct.pack('IQQ', 0x80000000, 0, 0))\ntime.sleep(0.3)\nprint('mine')", stdout: "mine\n"}},
		py("threads print between cells", "def later():\n    now.wait()\n    print('between ' * 20000)\nnow.clear()\nthreading.Thread(target=later).start()", ""),
		sh("which holds nobody up", "sleep 0.1", ""),
		py("and comes with the next one", "now.set()\nimport time\ntime.sleep(0.2)", "~between between"),
		py("the rest as well", "1", "~1\n"),
		py("a thread prints much", "def much():\n    while not os.path.exists('/tmp/go'): time.sleep(0.01)\n    print('x' * 200000)\n    open('/tmp/done', 'w').close()\nthreading.Thread(target=much).start()", ""),
		sh("while no cell runs", "touch /tmp/go; until [ -e /tmp/done ]; do sleep 0.01; done", ""),
		py("and all of it comes", "1", strings.Repeat("x", 200000)+"\n1\n"),
	})
}

// A timeout that comes before the interpreter has begun costs nothing but the
// cell.
func TestSessionInterruptsEarly(t *testing.T) {
	s := startSession(t, shared.server, request{})
	for range 10 {
		a := s.call(t, "/execute", request{"code": "while True: pass", "timeout_ms": 1})
		if !a.TimedOut || a.StateLost {
			t.Errorf("%+v", a)
		}
	}
	a := s.call(t, "/execute", request{"code": "import asyncio\nawait asyncio.sleep(60)", "timeout_ms": 1})
	program{exit: "null", reason: "timeout", stderr: "~"}.check(t, a)
	program{stdout: "0\n"}.check(t, s.python(t, "import asyncio\nawait asyncio.sleep(0, 0)"))
}

// A cell that takes too long is interrupted, and keeps its state if it heeds it.
func TestSessionInterrupts(t *testing.T) {
	s := startSession(t, shared.server, request{})
	interrupted := func(name, code string) step {
		return step{program: program{name: name, code: code, timeout: 300, exit: "null", reason: "timeout", stderr: "~KeyboardInterrupt"}}
	}
	s.check(t, []step{
		py("state", "x = 1", ""),
		interrupted("a loop", "while True: x += 1"),
		interrupted("asleep", "import time\ntime.sleep(60)"),
		interrupted("waiting for a child", "import subprocess\nsubprocess.run(['sleep', '60'])"),
		interrupted("awaiting", "import asyncio\nawait asyncio.sleep(60)"),
		{program: program{
			name: "awaiting in a function", code: "async def f():\n    await asyncio.sleep(60)\nawait f()", timeout: 300, exit: "null", reason: "timeout",
			stderr: "~line 3, in <module>\n    await f()\n  File \"<cell 6>\", line 2, in f\n    await asyncio.sleep(60)\n",
		}},
		interrupted("waiting for input that never comes", "import os\nr, w = os.pipe()\nos.read(r, 1)"),
		interrupted("waiting for threads at the end", "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n    pool.submit(time.sleep, 8)\n    time.sleep(60)"),
		{program: program{
			name: "one interrupt swallowed", timeout: 300, exit: "null", reason: "timeout", stderr: "~KeyboardInterrupt",
			code: "class Slow:\n    def __del__(self): time.sleep(60)\nSlow()\ntime.sleep(60)",
		}},
		py("kept", "x > 1", "True\n"),
		py("the task does not go on", "len(asyncio.all_tasks(asyncio.get_event_loop()))", "~"),
		interrupted("waiting for threads at a loop's end", "asyncio.run(asyncio.to_thread(time.sleep, 8))"),
		{program: program{
			name: "deaf", code: "while True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass",
			timeout: 300, exit: "null", reason: "timeout",
		}, lost: true},
		{program: program{name: "lost", code: "x", exit: "1", stderr: "~NameError"}},
		{program: program{name: "no Python runs", code: "sum(range(10 ** 12))", timeout: 300, exit: "null", reason: "timeout"}, lost: true},
		{program: program{name: "crashed", code: "import os\nos.kill(os.getpid(), 11)", exit: "139", reason: "signal", signal: "SIGSEGV"}, lost: true},
		{program: program{name: "left", code: "import os\nos._exit(5)", exit: "5"}, lost: true},
		{program: program{name: "out of memory", code: "x = []\nwhile True: x.append(bytearray(1 << 24))", timeout: 20000, exit: "137", reason: "memory_limit", signal: "SIGKILL"}, lost: true},
		py("and goes on", "x = 2\nx", "2\n"),
		py("to end between cells", `import os, threading, time
def end():
    while not os.path.exists("/tmp/end"): time.sleep(0.01)
    print("last words")
    os._exit(1)
open("/tmp/pid", "w").write(str(os.getpid()))
threading.Thread(target=end).start()`, ""),
		{program: program{name: "with a word"}, bash: "touch /tmp/end; while [ -e /proc/$(cat /tmp/pid) ]; do sleep 0.01; done", lost: true},
		{program: program{name: "that is heard", code: "1", stdout: "last words\n1\n"}},
	})
}

func TestSessionCPULimit(t *testing.T) {
	server := startServer(t, "CPU_TIME_LIMIT_SEC=1", "POOL_SIZE=0")
	startSession(t, server, request{}).check(t, []step{
		py("state", "x = 1", ""),
		{program: program{name: "a loop", code: "while True: pass", timeout: 20000, exit: "152", reason: "cpu_limit", signal: "SIGXCPU", stderr: "~KeyboardInterrupt"}},
		{program: program{name: "each has its own", code: "while True: pass", timeout: 20000, exit: "152", reason: "cpu_limit", signal: "SIGXCPU", stderr: "~"}},
		py("kept", "x", "1\n"),
		{program: program{name: "a command", timeout: 20000, exit: "152", reason: "cpu_limit", signal: "SIGXCPU"}, bash: "while :; do :; done"},
	})
}

// Commands share files and what is in the background, and nothing else.
func TestSessionCommands(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.check(t, []step{
		sh("a file", "echo hello > a.txt; pwd; x=1; cd /tmp", "/workspace\n"),
		sh("stays", "cat a.txt; pwd; echo \"[$x]\"", "hello\n/workspace\n[]\n"),
		py("for Python too", "print(open('a.txt').read())", "hello\n\n"),
		{program: program{name: "a failure", exit: "7", stdout: "out\n", stderr: "err\n"}, bash: "echo out; echo err >&2; exit 7"},
		{program: program{name: "nothing to read", stdout: ""}, bash: "cat"},
		{program: program{name: "too long", timeout: 1500, exit: "null", reason: "timeout", stdout: "began\n"}, bash: "echo began; sleep 60"},
		{program: program{name: "a pipe that breaks"}, bash: "yes | head -1 > /dev/null"},
		{
			program: program{name: "too long, with a background", timeout: 3000, exit: "null", reason: "timeout"},
			bash:    "sleep 61 & setsid sleep 62 & setsid -w sleep 63",
		},
		sh("of which what has a session of its own is left", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep '^6[123]$' | sort", "62\n63\n"),
		sh("a background", "(while :; do date >> tick.txt; echo noise; sleep 0.05; done) & echo $!", "~\n"),
		{program: program{
			name: "goes on", timeout: 20000, stdout: "ticks\n",
			code:  "import os, time\nwhile not os.path.exists('tick.txt'): time.sleep(0.01)\nsize = os.path.getsize('tick.txt')\nwhile os.path.getsize('tick.txt') == size: time.sleep(0.01)\nprint('ticks')",
			files: "tick.txt",
		}},
		sh("a server that prints", "mkfifo in out; (while read x < in; do printf '%01000d\\n' 0; echo $x > out; done) & ", ""),
		{
			program: program{name: "is held up by no call", timeout: 20000, stdout: "done\n"},
			bash:    "for i in $(seq 300); do echo $i > in; read y < out; done; echo done",
		},
		{program: program{name: "a signal", exit: "143", reason: "signal", signal: "SIGTERM"}, bash: "kill $$"},
		{program: program{name: "PID 1 is out of reach", exit: "1", stderr: "~Permission denied"}, bash: "cat /proc/1/environ /proc/1/fd/0"},
	})
}

// As many jobs can go on in the background as there may be processes.
func TestSessionJobs(t *testing.T) {
	s := startSession(t, shared.server, request{})
	const jobs = 40
	s.bash(t, "mkfifo gate")
	for range jobs {
		s.bash(t, "(read x < gate; echo noise; touch done-$BASHPID) &")
	}
	s.bash(t, ": > gate")
	count := func() string { return s.bash(t, "ls | grep -c done").Stdout }
	if !poll(func() bool { return count() == strconv.Itoa(jobs)+"\n" }) {
		t.Errorf("only %s of %d jobs have come to their end", count(), jobs)
	}
}

// A cell that comes while its interpreter dies runs in a new one.
func TestSessionKillsAll(t *testing.T) {
	s := startSession(t, shared.server, request{})
	for i := range 10 {
		s.python(t, "x = 1")
		known := s.bash(t, "kill -9 -1").StateLost
		a := s.call(t, "/execute", request{"code": "print('ran', input(), 'x' in globals())", "stdin": "in"})
		if a.Stdout != "ran in False\n" || a.exitCode() != "0" || a.StateLost == known {
			t.Errorf("%d: %+v; the command's answer said that the state is lost: %v", i, a, known)
		}
	}
}

// Where processes fill the session they are ended before the next call, which
// could not begin otherwise.
func TestSessionBomb(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.bash(t, ":(){ :|:& };:")
	for range 5 {
		if a := s.bash(t, "echo alive"); a.Stdout != "alive\n" {
			t.Errorf("after a bomb: %+v", a)
		}
	}
	program{stdout: "42\n"}.check(t, s.python(t, "print(6*7)"))
}

// What a cell changes comes back, once.
func TestSessionResults(t *testing.T) {
	server := startServer(t, with(dataImage, "POOL_SIZE=0", "CPU_TIME_LIMIT_SEC=60")...)
	s := startSession(t, server, request{"files": []request{{"path": "in/data.txt", "content_base64": encode("in")}}})
	slow := func(name, code, stdout, files string) step {
		return step{program: program{name: name, code: code, stdout: stdout, files: files, timeout: 60000}}
	}
	s.check(t, []step{
		py("staged", "open('in/data.txt').read()", "'in'\n"),
		slow("made", "open('a.txt', 'w').write('1'); None", "", "a.txt"),
		slow("not again", "1", "1\n", ""),
		slow("a program", "open('__main__.py', 'w').write('1'); None", "", "__main__.py"),
		{program: program{name: "a link", code: "import os\nos.symlink('a', 'link')", skipped: 1}},
		py("is named once", "1", "1\n"),
		slow("changed", "open('in/data.txt', 'a').write('2'); None", "", "in/data.txt"),
		slow("a figure", "import matplotlib.pyplot as plt\nline, = plt.plot([1, 2])", "", "figure-1.png"),
		slow("stays open", "len(plt.get_fignums())", "1\n", ""),
		slow("and is shown when it changes", "plt.title('x'); None", "", "figure-2.png"),
		slow("closed, and not shown again", "plt.show()\nplt.get_fignums()", "[]\n", ""),
		{program: program{
			name: "a figure that is too slow to draw", timeout: 1000, exit: "null", reason: "timeout", stderr: "~KeyboardInterrupt", stdout: "~",
			code: "import matplotlib.text, time\nplt.title('x')\nreal = matplotlib.text.Text.draw\nmatplotlib.text.Text.draw = lambda *_: time.sleep(60)\ntime.sleep(60)",
		}},
		slow("costs nothing but its picture", "matplotlib.text.Text.draw = real; None", "", "figure-3.png"),
		slow("closed", "plt.close('all')", "", ""),
		slow("display", "display(plt.figure())", "~Figure", "figure-4.png"),
		slow("a figure and a fork that runs on", "fig, _ = plt.subplots()\nif os.fork(): os.wait()", "~", "figure-5.png"),
		slow("closed again", "plt.close('all')", "", ""),
		slow("a frame", "import pandas as pd\npd.DataFrame({'a': [1]})", "   a\n0  1\n", ""),
	})
	a := s.call(t, "/execute", request{"code": "print(open('b').read())", "files": []request{{"path": "b", "content_base64": encode("new")}}})
	program{stdout: "new\n"}.check(t, a)
	a = s.call(t, "/execute", request{"code": "print(open('b').read())", "files": []request{{"path": "b", "content_base64": encode("newer")}}})
	program{stdout: "newer\n"}.check(t, a)
}

// Files are read and written over HTTP; nothing outside of the workspace is.
func TestSessionFiles(t *testing.T) {
	s := startSession(t, shared.server, request{})
	put := func(path, content string) (int, string) {
		return s.server.send(t, http.MethodPut, s.path("/files/"+path), "", strings.NewReader(content))
	}
	get := func(path string) (int, string) {
		return s.server.send(t, http.MethodGet, s.path("/files/"+path), "", nil)
	}
	large := strings.Repeat("\x00\xff\r\nrandom", 2<<20)
	for path, content := range map[string]string{"a.txt": "1", "deep/er/b.bin": large, "empty": "", "%C3%A9%20%22": "named"} {
		if status, text := put(path, content); status != http.StatusNoContent {
			t.Errorf("PUT %s: %d %s", path, status, text)
		}
		if status, text := get(path); status != http.StatusOK || text != content {
			t.Errorf("GET %s: %d, %d bytes", path, status, len(text))
		}
	}
	s.bash(t, "ln -s /etc/passwd link; ln -s /etc folder; mkfifo fifo; truncate -s 10G holes; ln a.txt hard; mkdir closed; chmod 0 closed; rm -f deep/er/b.bin")
	for _, test := range []struct {
		method, path string
		status       int
		answer       string
	}{
		{"GET", "link", 422, "a link, which is not followed"},
		{"GET", "folder/passwd", 404, "not found in the session"},
		{"GET", "fifo", 422, "not a regular file"},
		{"GET", "deep", 422, "not a regular file"},
		{"GET", "holes", 413, "does not fit"},
		{"GET", "closed/x", 422, "permission denied"},
		{"GET", "nothing", 404, "File 'nothing' not found in the session"},
		{"GET", "a.txt/b", 404, "not found in the session"},
		{"GET", "hard", 200, "1"},
		{"PUT", "folder/x", 422, "cannot be used"},
		{"PUT", "deep", 422, "is a directory"},
		{"PUT", "a.txt/b", 422, "cannot be used"},
		{"PUT", "__main__.py", 422, "is reserved"},
		{"PUT", "..%2Fx", 422, `must not contain`},
		{"PUT", "link", 204, ""},
		{"GET", "link", 200, "PUT"},
		{"PUT", "fifo", 204, ""},
	} {
		status, text := s.server.send(t, test.method, s.path("/files/"+test.path), "", strings.NewReader(test.method))
		if status != test.status || !strings.Contains(text, test.answer) {
			t.Errorf("%s %s: %d %s; want %d with %q", test.method, test.path, status, text, test.status, test.answer)
		}
	}
	if status, text := put("huge", strings.Repeat("x", 65<<20)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge file: %d %s", status, text)
	}
	if status, text := s.server.send(t, http.MethodPost, s.path("/execute"), "application/json", strings.NewReader(
		`{"code": "", "files": [{"path": "first", "content_base64": ""}, {"path": "a.txt/b", "content_base64": ""}]}`)); status != http.StatusUnprocessableEntity {
		t.Errorf("files of which one cannot be put: %d %s", status, text)
	}
	if status, text := get("first"); status != http.StatusNotFound {
		t.Errorf("a file is left of those that were refused: %d %s", status, text)
	}
	if a := s.bash(t, "ls -a"); strings.Contains(a.Stdout, ".vivarium") {
		t.Errorf("something is left behind: %s", a.Stdout)
	}
}

// Output of a session's cell streams as it comes.
func TestSessionStream(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.python(t, "import time\nx = 'kept'")
	status, text := s.server.send(t, http.MethodPost, s.path("/execute/stream"), "application/json",
		strings.NewReader(`{"code": "print(x)\ntime.sleep(0.2)\nx"}`))
	events := gather(t, text)
	if status != http.StatusOK || events.Output["stdout"] != "kept\n'kept'\n" {
		t.Errorf("%d %s", status, text)
	}
}

// lease takes a lease on a file, which would hold up PID 1 when that opens it.
const lease = "import fcntl; fcntl.fcntl(open('/tmp/a', 'w'), fcntl.F_SETLEASE, fcntl.F_WRLCK)"

// No process of a session's gets a lease on a file. That PID 1 itself gets none,
// and so nobody, is tested with each backend.
func TestSessionLeases(t *testing.T) {
	s := startSession(t, shared.server, request{})
	program{exit: "1", stderr: "~PermissionError"}.check(t, s.python(t, lease))
	program{exit: "1", stderr: "~PermissionError"}.check(t, s.bash(t, `python3 -c "`+lease+`"`))
	program{}.check(t, s.python(t, "import fcntl; fcntl.lockf(open('/tmp/a', 'w'), fcntl.LOCK_EX)"))
}

// A cell that closes its streams costs the session nothing.
func TestSessionMendsStreams(t *testing.T) {
	s := startSession(t, shared.server, request{})
	program{exit: "1", stderr: "~ZeroDivisionError"}.check(t, s.python(t, "import sys\nx = 'kept'\nsys.stdout.close()\nsys.stderr.close()\n1 / 0"))
	for name, code := range map[string]string{
		"detached": "buffer = sys.stdout.detach()", "deleted": "del sys.stdout, sys.stderr",
		"odd": "class Odd:\n    closed = property(lambda self: 1 / 0)\nsys.stdout = sys.stderr = Odd()",
	} {
		s.python(t, code)
		t.Run(name, func(t *testing.T) { program{stdout: "'kept'\n"}.check(t, s.python(t, "x")) })
	}
}

// What a handler of a program's raises while no cell runs costs the session
// nothing, and comes with the next cell. A debugger's handler stays in no cell's way.
func TestSessionSignals(t *testing.T) {
	s := startSession(t, shared.server, request{})
	interrupted := step{program: program{
		name: "a cell after a debugger's", code: "while True: pass", timeout: 300, exit: "null", reason: "timeout", stderr: "~KeyboardInterrupt",
	}}
	s.check(t, []step{
		py("a clock", `import signal, threading
rung = 0
def ring(*_):
    global rung
    rung += 1
    if rung == 10:
        signal.setitimer(signal.ITIMER_REAL, 0)
        open("/tmp/rung", "w").close()
    raise RuntimeError("rung")
signal.signal(signal.SIGALRM, ring)
threading.Thread(target=threading.Event().wait, daemon=True).start()  # signals may come to it as well
x = 1
signal.setitimer(signal.ITIMER_REAL, 0.2, 0.02)
None`, ""),
		sh("rings", "until [ -e /tmp/rung ]; do sleep 0.02; done", ""),
		{program: program{name: "which is told", code: "rung, x", stdout: "(10, 1)\n", stderr: "~in ring\n    raise RuntimeError(\"rung\")\n"}},
		{program: program{name: "and heard in a cell", code: "signal.raise_signal(signal.SIGALRM)", exit: "1", stderr: "~RuntimeError: rung"}},
		{program: program{name: "a debugger", code: "import pdb\npdb.set_trace()\ny = 2", stdin: "c\n", stdout: "~(Pdb)"}},
		interrupted,
		py("is over", "x, y", "(1, 2)\n"),
	})
}

// A file that changes while it is read is skipped, and costs the session nothing.
func TestSessionFilesChange(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.python(t, `
import threading
open("log", "w").close()
def write():
    while True:
        with open("log", "r+b") as log:
            log.write(b"x" * 5_000_000)
threading.Thread(target=write, daemon=True).start()
x = "kept"`)
	if !poll(func() bool {
		a := s.python(t, "x")
		if a.Stdout != "'kept'\n" || a.StateLost {
			t.Fatalf("the session is lost: %+v", a)
		}
		return len(a.SkippedFiles) == 1 && strings.Contains(a.SkippedFiles[0].Reason, "changed")
	}) {
		t.Error("no file was skipped")
	}
}

// Orphans that have ended take no room in an idle session.
func TestIdleSessionBuriesOrphans(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.bash(t, "for i in $(seq 150); do (true &); sleep 0.05; done 2>&1 | cat >log; touch over &")
	id := s.sandbox(t)
	if !awaitFile(t, id, "/workspace/over") {
		t.Fatal("it does not end")
	}
	if a := s.bash(t, "cat log"); a.Stdout != "" {
		t.Errorf("processes were refused: %s", a.Stdout)
	}
}
