package integration

import (
	"cmp"
	"strings"
	"testing"
)

// program is a program that behaves badly, or well, and what must come of it.
// An empty expectation is one too; stdout and stderr are compared whole unless
// they begin with "~", which looks for what follows.
type program struct {
	name    string
	code    string
	timeout int // ms; 0 is 10000, more than the server's default: filling memory takes seconds on slow machines
	stdin   string
	exit    string // "" is 0
	reason  string // "" is exited
	signal  string
	stdout  string
	stderr  string
	files   string // paths
	skipped int    // how many
}

func matches(got, want string) bool {
	if part, ok := strings.CutPrefix(want, "~"); ok {
		return strings.Contains(got, part)
	}
	return got == want
}

// refused says that a program which would be killed for the memory it takes was
// refused it instead, as it may be where there are no cgroups.
func (p program) refused(a *answer) bool {
	return p.reason == "memory_limit" && shared.eachProcess && a.End.Reason == "exited"
}

func (p program) check(t *testing.T, a *answer) {
	t.Helper()
	exit, reason := p.exit, p.reason
	if exit == "" {
		exit = "0"
	}
	if reason == "" {
		reason = "exited"
	}
	signal, stderr := p.signal, p.stderr
	switch {
	case p.refused(a):
		exit, reason, signal, stderr = "1", "exited", "", "~MemoryError"
	case shared.eachProcess && reason == "memory_limit":
		stderr = "~" // it may have been refused some before it was killed
	case shared.eachProcess && reason == "process_limit":
		reason = "exited" // nobody counts what was refused
	}
	if a.exitCode() != exit || a.End.Reason != reason || a.End.Signal != signal {
		t.Errorf("ended with %s, %+v; want %s, %s %s", a.exitCode(), a.End, exit, reason, signal)
	}
	if !matches(a.Stdout, p.stdout) {
		t.Errorf("stdout is %.300q; want %.300q", a.Stdout, p.stdout)
	}
	if !matches(a.Stderr, stderr) {
		t.Errorf("stderr is %.900q; want %.300q", a.Stderr, stderr)
	}
	if !matches(a.paths(), p.files) {
		t.Errorf("files are %q; want %q", a.paths(), p.files)
	}
	if got := a.skippedBeside("/tmp/"); len(got) != p.skipped {
		t.Errorf("%d skipped files; want %d: %+v", len(got), p.skipped, got)
	}
}

// TestPrograms runs every program. Where one sandbox serves many runs, a plain one follows
// each: whatever the first did, the next answer is right too.
func TestPrograms(t *testing.T) {
	t.Run("run", func(t *testing.T) { runPrograms(t, shared.server, true) })
	t.Run("container", func(t *testing.T) { runPrograms(t, startServer(t, "ISOLATION=container"), false) })
}

func runPrograms(t *testing.T, s *server, follow bool) {
	t.Helper()
	for _, p := range programs() {
		t.Run(p.name, func(t *testing.T) {
			limit := cmp.Or(p.timeout, 10_000)
			a := mustRun(t, s, request{"code": p.code, "stdin": p.stdin, "timeout_ms": limit})
			p.check(t, a)
			// What comes after the program's time is ours: killing, draining, reporting. It ends
			// soon, on a loaded machine too.
			if a.DurationMS > limit+5000 {
				t.Errorf("it took %d ms of %d", a.DurationMS, limit)
			}
			if follow {
				program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
			}
		})
	}
}

func programs() []program {
	return append(append(append(endings(), outputs()...), leftovers()...), ordinary()...)
}

// endings end in every way there is.
func endings() []program {
	return []program{
		{name: "exit code", code: "import sys; sys.exit(3)", exit: "3"},
		{name: "exit message", code: `import sys; sys.exit("bye")`, exit: "1", stderr: "bye\n"},
		{name: "negative exit code", code: "import sys; sys.exit(-1)", exit: "255"},
		{name: "huge exit code", code: "import sys; sys.exit(2**80)", exit: "255"},
		{name: "os._exit", code: `import os; print("x"); os._exit(9)`, exit: "9", stdout: "x\n"},
		{name: "segfault", code: "import ctypes; ctypes.string_at(0)", exit: "139", reason: "signal", signal: "SIGSEGV"},
		{name: "SIGKILL", code: "import os; os.kill(os.getpid(), 9)", exit: "137", reason: "signal", signal: "SIGKILL"},
		{name: "SIGTERM", code: "import os; os.kill(os.getpid(), 15)", exit: "143", reason: "signal", signal: "SIGTERM"},
		{name: "abort", code: "import os; os.abort()", exit: "134", reason: "signal", signal: "SIGABRT"},
		{name: "KeyboardInterrupt", code: "raise KeyboardInterrupt", exit: "130", reason: "signal", signal: "SIGINT", stderr: "~KeyboardInterrupt"},
		{name: "exception", code: "\n1/0", exit: "1", stderr: "~File \"/workspace/__main__.py\", line 2, in <module>\n    1/0\n    ~^~\nZeroDivisionError"},
		{name: "syntax error", code: "def f(:\n  pass", exit: "1", stderr: "~SyntaxError"},
		{name: "NUL in the code", code: "print(1)\x00", exit: "1", stderr: "~null bytes"},
		{name: "recursion", code: "def f(): f()\nf()", exit: "1", stderr: "~RecursionError"},
		{name: "timeout", code: `print("before", end=""); import time; time.sleep(100)`, timeout: 1500, exit: "null", reason: "timeout", stdout: "before"},
		{name: "timeout keeps files", code: `open("a","w").write("hi")
import time
time.sleep(100)`, timeout: 1500, exit: "null", reason: "timeout", files: "a"},
		{name: "busy loop", code: "while True: pass", timeout: 300, exit: "null", reason: "timeout"},
		{name: "ignores signals", code: "import signal, time\nfor s in (1,2,3,15): signal.signal(s, signal.SIG_IGN)\ntime.sleep(50)", timeout: 300, exit: "null", reason: "timeout"},
		{name: "memory", code: "x = bytearray(400 << 20)", exit: "137", reason: "memory_limit", signal: "SIGKILL"},
		{name: "memory in small steps", code: "x = []\nwhile True: x.append(bytearray(1 << 20))", exit: "137", reason: "memory_limit", signal: "SIGKILL"},
		{name: "memory in files and heap", code: `open("a","wb").write(b"x"*(60<<20))
open("/tmp/b","wb").write(b"x"*(60<<20))
h = bytearray(200 << 20)
import time
time.sleep(1)`, exit: "137", reason: "memory_limit", signal: "SIGKILL", skipped: 1},
		{name: "memory in files without a name", code: `import os, time
try:
    fd = os.memfd_create("x")
    for _ in range(400): os.write(fd, bytes(1 << 20))
except OSError as e: raise MemoryError from e
time.sleep(1)`, exit: "137", reason: "memory_limit", signal: "SIGKILL"},
		{name: "memory of System V", code: `import ctypes, time
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
for _ in range(4):
    segment = libc.shmget(0, 100 << 20, 0o1600)
    if segment == -1: raise MemoryError
    place = ctypes.c_void_p(libc.shmat(segment, None, 0))
    ctypes.memset(place, 1, 100 << 20)
    libc.shmdt(place)
time.sleep(1)`, exit: "137", reason: "memory_limit", signal: "SIGKILL"},
		{name: "CPU time", code: "while True: pass", timeout: 30000, exit: "152", reason: "cpu_limit", signal: "SIGXCPU"},
		{name: "CPU time, SIGXCPU ignored", code: "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", timeout: 30000, exit: "137", reason: "cpu_limit", signal: "SIGKILL"},
		{name: "threads", code: "import threading\ne = threading.Event()\nfor i in range(200): threading.Thread(target=e.wait, daemon=True).start()", exit: "1", reason: "process_limit", stderr: "~can't start new thread"},
		{name: "fork bomb", code: "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", timeout: 700, exit: "null", reason: "timeout"},
		{name: "full disk", code: "f = open('big', 'wb')\nwhile True: f.write(b'x' * 1000000)", exit: "1", reason: "workspace_limit", stderr: "~No space left on device", skipped: 1},
		{name: "full /tmp", code: "f = open('/tmp/big', 'wb')\nwhile True: f.write(b'x' * 1000000)", exit: "1", reason: "workspace_limit", stderr: "~No space left on device"},
		manyFiles(),
	}
}

// manyFiles creates files without end. In a pod nothing limits their number, but they take memory,
// most of it for their names.
func manyFiles() program {
	p := program{
		name: "files without end", code: "import os\ni = 0\nwhile True:\n  os.mknod(f'/tmp/{i:0250}')\n  i += 1", timeout: 30000,
		exit: "1", reason: "workspace_limit", stderr: "~No space left on device",
	}
	if inPods() {
		p.exit, p.reason, p.signal, p.stderr = "137", "memory_limit", "SIGKILL", ""
	}
	return p
}

// outputs print anything.
func outputs() []program {
	cut := strings.Repeat("x", 1000000) + "\n...[truncated]"
	return []program{
		{name: "NUL and invalid UTF-8", code: "import os\nos.write(1, b'a\\0\\xff\\xfeb'); os.write(2, b'\\xe2\\x82'); None", stdout: "a\x00\ufffd\ufffdb", stderr: "\ufffd\ufffd"},
		{name: "100 MB", code: "import os\nb = b'x' * 65536\nfor i in range(1600): n = os.write(1, b)", timeout: 10000, stdout: cut},
		{name: "100 MB on both", code: "import os\nb = b'x' * 65536\nfor i in range(800): n = os.write(1, b); n = os.write(2, b)", timeout: 10000, stdout: cut, stderr: cut},
		{name: "exactly the limit", code: "import sys; n = sys.stdout.write('x' * 1000000)", stdout: strings.Repeat("x", 1000000)},
		{name: "a character at the limit", code: "import sys; n = sys.stdout.write('x' * 999999 + 'é')", stdout: strings.Repeat("x", 999999) + "\n...[truncated]"},
		{name: "forged frames", code: `import os, struct
n = os.write(1, b"X" + struct.pack(">I", 5) + b"hello" + b"Z\0\0\0\0")`, stdout: "X\x00\x00\x00\x05helloZ\x00\x00\x00\x00"},
		{name: "a huge exception", code: "raise Exception('x' * 5000000)", exit: "1", stderr: "~\n...[truncated]"},
		{name: "closed stdout", code: "import os; os.close(1); os.close(2)"},
		{name: "everything closed", code: "import os; os.closerange(0, 1000)"},
		{name: "stdout and stderr gone", code: "import sys; sys.stdout = sys.stderr = None"},
		{name: "surrogate", code: `print("\ud800")`, exit: "1", stderr: "~UnicodeEncodeError"},
		{name: "stdin", code: "print(input(), input())", stdin: "a\nb\n", stdout: "a b\n"},
		{name: "stdin not read", code: "print(1)", stdin: strings.Repeat("x", 1000000), stdout: "1\n"},
		{name: "stdin read whole", code: "import sys; print(len(sys.stdin.read()))", stdin: strings.Repeat("x", 1000000), stdout: "1000000\n"},
		{name: "stdin closed", code: "import os; os.close(0); print('ok')", stdin: strings.Repeat("x", 1000000), stdout: "ok\n"},
		{name: "stdin empty", code: "input()", exit: "1", stderr: "~EOFError"},
	}
}

// leftovers leave something behind, or reach for what is not theirs.
func leftovers() []program {
	return []program{
		{name: "daemon holding stdout", code: `import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(100)
    os._exit(0)
print("parent")`, stdout: "parent\n"},
		{name: "stopped child", code: `import os, signal
if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)
print("parent")`, stdout: "parent\n"},
		{name: "signals to the supervisor", code: "import os\nfor s in range(1, 65): os.kill(1, s)\nprint('ok')", stdout: "ok\n"},
		{name: "stop to the supervisor", code: "import os\nos.kill(1, 19); print('ok')", stdout: "ok\n"},
		{name: "deschedule the supervisor", code: `import os, time
core = {min(os.sched_getaffinity(0))}
for call in (lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)), lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
             lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19), lambda: os.sched_setaffinity(1, core)):
    try: call(); print("done")
    except OSError as e: print(e.errno)
for i in range(45):
    if os.fork() == 0:
        os.sched_setaffinity(0, core)
        while True: pass
time.sleep(100)`, timeout: 1000, exit: "null", reason: "timeout", stdout: "1\n1\n1\n1\n"},
		{name: "limits of the supervisor", code: `import resource
for limit in (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_AS):
    try: resource.prlimit(1, limit, (0, 0)); print("done")
    except OSError as e: print(type(e).__name__)`, stdout: "PermissionError\nPermissionError\nPermissionError\n"},
		{name: "priorities of its own", code: "import os\nos.nice(5); os.sched_setaffinity(0, os.sched_getaffinity(0)); print(os.getpriority(os.PRIO_PROCESS, 0))", stdout: "5\n"},
		{name: "the workspace closed", code: `import os
open('r', 'w').write('x')
try: os.chmod('/workspace', 0)
except PermissionError: pass  # it is not the program's, where a container serves many runs
print('hi')`, stdout: "hi\n", files: "r"},
		{name: "output read by the program itself", code: "import os\nfd = os.open('/proc/self/fd/1', os.O_RDONLY | os.O_NONBLOCK)\nfor i in range(2000):\n  n = os.write(1, b'x')\n  try: os.read(fd, 1)\n  except BlockingIOError: pass\nos._exit(7)", exit: "7", stdout: "~"},
		{name: "kill everybody", code: "import os\nos.kill(-1, 9)", exit: "1", stderr: "~No such process"},
		{name: "the supervisor's memory and streams", code: `import os
for name in ("fd/0", "fd/1", "mem", "environ", "maps", "cwd"):
    try: os.open("/proc/1/" + name, os.O_RDONLY); print("opened", name)
    except OSError as e: print(e.errno)`, stdout: strings.Repeat("13\n", 6)},
		{name: "ptrace of the supervisor", code: "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint(libc.ptrace(16, 1, 0, 0), ctypes.get_errno())", stdout: "-1 1\n"},
		{name: "links, pipes and odd names", code: `import os
os.symlink("/etc/passwd", "l"); os.symlink("/etc", "d"); os.mkfifo("f")
os.makedirs("a/b"); open("a/b/c", "w").write("1"); os.link("a/b/c", "h")
open("bad\nname", "w"); open(b"\xff\xfe", "w"); open("a\\b", "w"); open("sparse", "wb").truncate(1 << 40)
None`, files: "a/b/c h", skipped: 7},
		{name: "socket", code: "import socket; socket.socket(socket.AF_UNIX).bind('s')", skipped: 1},
		{name: "no permission", code: "import os\nopen('a', 'w').write('x'); os.chmod('a', 0); os.mkdir('d'); open('d/x', 'w'); os.chmod('d', 0)", skipped: 2},
		{name: "5,000 files", code: "for i in range(5000): open(f'{i:04}', 'w').close()", timeout: 10000, files: firstHundred(), skipped: 101},
		{name: "deep folders", code: "import os\nfor i in range(100): os.mkdir('d'); os.chdir('d')\nopen('x', 'w').close()", skipped: 1},
		{name: "remove the workspace", code: "import shutil, os\nos.chdir('/')\nshutil.rmtree('/workspace')", exit: "1", stderr: "~Read-only file system"},
		{name: "modules cleared", code: "import sys; sys.modules.clear()"},
	}
}

func firstHundred() string {
	var names []string
	for i := range 100 {
		names = append(names, "00"+string(rune('0'+i/10))+string(rune('0'+i%10)))
	}
	return strings.Join(names, " ")
}

// ordinary programs behave as under python3.
func ordinary() []program {
	return []program{
		{name: "last expression", code: "'a'\nx = 5\nx", stdout: "5\n"},
		{name: "None displays nothing", code: "None"},
		{name: "last expression, names of ours", code: "tree = 1\nast = 2\ntree + ast", stdout: "3\n"},
		{name: "future import", code: "from __future__ import annotations\ndef f(x: Undefined): pass\nf.__annotations__", stdout: "{'x': 'Undefined'}\n"},
		{name: "main", code: "import sys\nif __name__ == '__main__': print(__file__, sys.argv, sys.path[0])", stdout: "/workspace/__main__.py ['/workspace/__main__.py'] /workspace\n"},
		{name: "docstring", code: "'doc'\nprint(__doc__)", stdout: "doc\n"},
		{name: "unicode", code: "print('héllo ✓ 🎉')", stdout: "héllo ✓ 🎉\n"},
		{name: "file left open", code: "f = open('o', 'w'); f.write('data'); None", files: "o"},
		{name: "file left open in a cycle", code: "class A: pass\na = A(); a.a = a; a.f = open('o', 'w'); a.f.write('data'); None", files: "o"},
		{name: "atexit", code: "import atexit; atexit.register(print, 'bye'); None", stdout: "bye\n"},
		{name: "destructor", code: "class A:\n  def __del__(self): print('del')\na = A()", stdout: "del\n"},
		{name: "thread outlives main", code: "import threading, time\ndef f():\n  time.sleep(0.1); print('thread')\nthreading.Thread(target=f).start()\nprint('main')", stdout: "main\nthread\n"},
		{name: "daemon thread", code: "import threading, time\nn = 0\ndef f():\n  global n\n  while True: n += 1; time.sleep(0.0001)\nthreading.Thread(target=f, daemon=True).start()\ntime.sleep(0.1); print('main')", stdout: "main\n"},
		{name: "excepthook", code: "import sys\nsys.excepthook = lambda *a: print('hooked')\n1/0", exit: "1", stdout: "hooked\n"},
		{name: "dataclass", code: "from dataclasses import dataclass\n@dataclass\nclass P: x: int\nP(1)", stdout: "P(x=1)\n"},
		{name: "pickle", code: "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))))", stdout: "<class '__main__.A'>\n"},
		{name: "multiprocessing", code: "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n  with m.Pool(2) as p: print(p.map(f, [1, 2, 3]))", timeout: 10000, stdout: "[1, 4, 9]\n"},
		{name: "inspect.getsource", code: "import inspect\ndef f():\n  return 1\nprint(inspect.getsource(f), end='')", stdout: "def f():\n  return 1\n"},
		{name: "asyncio", code: "import asyncio\nasync def f(): await asyncio.sleep(0.01); print('a')\nasyncio.run(f())", stdout: "a\n"},
		{name: "await", code: "import asyncio\nasync def f(x):\n  await asyncio.sleep(0.01); return x\nx = await f(1)\nfor i in range(2): x += await f(i)\nprint(x)\ndef g(): return 5\ng()", stdout: "2\n5\n"},
		{name: "await in the last expression", code: "import asyncio\nasync def f(): return 'x'\nawait f()", stdout: "'x'\n"},
		{name: "one event loop", code: "import asyncio\nloop = asyncio.get_running_loop()\nq = asyncio.Queue()\nt = asyncio.create_task(q.get())\nawait q.put(1)\nprint(asyncio.get_running_loop() is loop)\nawait t", stdout: "True\n1\n"},
		{name: "async for and with", code: "import contextlib\nasync def n():\n  yield 1; yield 2\n@contextlib.asynccontextmanager\nasync def c():\n  yield 3\nasync for i in n(): print(i)\nasync with c() as x: print(x)\n[i async for i in n()]", stdout: "1\n2\n3\n[1, 2]\n"},
		{name: "exception after await", code: "import asyncio\nawait asyncio.sleep(0)\n1/0", exit: "1", stderr: "Traceback (most recent call last):\n  File \"/workspace/__main__.py\", line 3, in <module>\n    1/0\n    ~^~\nZeroDivisionError: division by zero\n"},
		{name: "exit after await", code: "import asyncio, sys\nawait asyncio.sleep(0)\nsys.exit(3)", exit: "3"},
		{name: "await in a plain function", code: "async def g(): pass\ndef f():\n  await g()", exit: "1", stderr: "~SyntaxError: 'await' outside async function"},
		{name: "no asyncio without await", code: "import sys; 'asyncio' in sys.modules", stdout: "False\n"},
		{name: "names of the standard library", code: "tree = 1; ast = 2; display = 3; sys = 4; await_ = 5\ntree + ast + display + sys + await_", stdout: "15\n"},
		{name: "display", code: "display(1, 'a')\ndisplay(None)\nprint('display' in globals())\ndisplay([2])", stdout: "1\n'a'\nNone\nFalse\n[2]\n"},
		{name: "display of pictures and HTML", code: `import os
class P:
  def _repr_png_(self): return b"png"
  def __repr__(self): return "P"
class H:
  def _repr_html_(self): return "<b>é"
  def __repr__(self): return "H"
open("figure-2.png", "w").close(); os.chdir("/tmp")
display(P(), H()); display(P())
H()`, stdout: "P\nH\nP\nH\n", files: "figure-1.png figure-2.png figure-3.png output-1.html output-2.html"},
		{name: "pictures that cannot be had", code: `class P:
  def __init__(self, f): self._f = f
  def _repr_png_(self): return self._f()
  def __repr__(self): return "P"
class A:
  def __getattr__(self, name): return lambda: b"x"
  def __repr__(self): return "A"
display(P(lambda: 1/0), P(lambda: None), P(lambda: (b"png", {})), P, A())
P(lambda: 1/0)`, stdout: "P\nP\nP\n<class '__main__.P'>\nA\nP\n", files: "figure-1.png"},
		{name: "display with a pandas that is none", code: "import sys, types\nsys.modules['pandas'] = types.SimpleNamespace(DataFrame=3)\ndisplay(1)", stdout: "1\n"},
		{name: "display with await", code: "import asyncio\nclass P:\n  def _repr_png_(self): return b'x'\n  def __repr__(self): return 'P'\nawait asyncio.sleep(0, P())", stdout: "P\n", files: "figure-1.png"},
		{name: "broken repr", code: "class A:\n  def __repr__(self): return 1/0\nA()", exit: "1", stderr: "Traceback (most recent call last):\n  File \"/workspace/__main__.py\", line 3, in <module>\n    A()\n    ~^^\n  File \"/workspace/__main__.py\", line 2, in __repr__\n    def __repr__(self): return 1/0\n                               ~^~\nZeroDivisionError: division by zero\n"},
		{name: "dataclass pickled", code: "import pickle\nfrom dataclasses import dataclass\n@dataclass\nclass P: x: int\npickle.loads(pickle.dumps(P(1)))", stdout: "P(x=1)\n"},
		{name: "multiprocessing by fork", code: "import multiprocessing as m\ndef f(q): q.put(6 * 7)\nc = m.get_context('fork'); q = c.Queue(); p = c.Process(target=f, args=(q,))\np.start(); print(q.get()); p.join(); p.exitcode", timeout: 10000, stdout: "42\n0\n"},
		{name: "line numbers of a traceback", code: "def f():\n  return 1/0\n\n\nf()", exit: "1", stderr: "~line 5, in <module>\n    f()\n    ~^^\n  File \"/workspace/__main__.py\", line 2, in f\n    return 1/0\n"},
		{name: "subprocess", code: "import subprocess; print(subprocess.run(['echo', 'hi'], capture_output=True, text=True).stdout)", stdout: "hi\n\n"},
		{name: "descriptors and session", code: "import os; print(sorted(os.listdir('/proc/self/fd')), os.getsid(0) == os.getpid())", stdout: "['0', '1', '2', '3', '63'] True\n"},
	}
}
