package integration

import (
	"strings"
	"testing"
)

// own are functions with which a program compares what it knows of a process with what /proc
// shows of it.
const own = `import multiprocessing, os, subprocess, sys, threading
def field(pid, name):
    with open(f"/proc/{pid}/status") as lines:
        return int(next(line.split()[1] for line in lines if line.startswith(name + ":")))
def agrees(parent=True):
    pid = os.getpid()
    with open(f"/proc/{pid}/stat") as stat:
        shown = int(stat.read().split()[0])
    return (pid == shown == int(os.readlink("/proc/self")) == field(pid, "Pid") and os.path.samefile(f"/proc/{pid}/cwd", ".")
            and os.readlink("/proc/thread-self") == f"{pid}/task/{threading.get_native_id()}" and (not parent or field(pid, "PPid") == os.getppid()))
def say(*args): print(*args, agrees(), flush=True)
def forked(then):
    pid = os.fork()
    if pid == 0:
        code = 1
        try: code = 0 if then() else 1
        finally: os._exit(code)
    return os.waitpid(pid, 0)[1] == 0
`

// processes are programs of several processes and threads. Each says whether /proc shows its
// processes under the numbers that they know.
func processes() []program {
	return []program{
		{name: "the first process", code: `import signal
signal.signal(signal.SIGUSR1, lambda *_: print("signal"))
print(agrees(parent=False), os.path.basename(os.readlink(f"/proc/{os.getpid()}/exe"))[:6])
signal.raise_signal(signal.SIGUSR1)`, stdout: "True python\nsignal\n"},
		{name: "children and their children", code: `print([forked(lambda: agrees() and forked(lambda: agrees() and forked(agrees))) for _ in range(3)], agrees(parent=False))`, stdout: "[True, True, True] True\n"},
		{name: "a child as its parent sees it", code: `r, w = os.pipe()
pid = os.fork()
if pid == 0: os.close(w); os.read(r, 1); os._exit(0)
print(field(pid, "PPid") == os.getpid(), str(pid) in os.listdir("/proc"))
os.kill(pid, 9); os.waitpid(pid, 0)
print(os.path.exists(f"/proc/{pid}"))`, stdout: "True True\nFalse\n"},
		{name: "many children", code: `print({forked(agrees) for _ in range(350)})`, stdout: "{True}\n"},
		{name: "children that were refused", code: `import resource, time
def crowd():
    try:
        while True:
            if os.fork() == 0: os.read(r, 1); os._exit(0)
    except OSError: return
r, w = os.pipe()
if (pid := os.fork()) == 0:
    os.close(w); resource.setrlimit(resource.RLIMIT_NPROC, (3, 3)); crowd(); os._exit(0)
os.waitpid(pid, 0); os.close(w)
print(forked(agrees))`, stdout: "True\n"},
		{name: "threads", code: `def run(): said.append(agrees(parent=False))
said = []
for thread in (threads := [threading.Thread(target=run) for _ in range(8)]): thread.start()
for thread in threads: thread.join()
print(said.count(True), forked(agrees))`, stdout: "8 True\n"},
		{name: "multiprocessing", code: `if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process(target=say, args=(method,))
        child.start(); child.join()`, stdout: "fork True\nspawn True\nforkserver True\n"},
		{name: "other programs", code: `child = subprocess.Popen(["sh", "-c", 'read -r pid rest < /proc/self/stat; read -r shown rest < /proc/$$/stat; echo $$ $pid $shown; sleep 100'], stdout=subprocess.PIPE, text=True)
print(set(child.stdout.readline().split()) == {str(child.pid)}, field(child.pid, "PPid") == os.getpid())
child.kill()`, stdout: "True True\n"},
	}
}

// processesOfRuns are those that agree where many runs are in one sandbox. In a pod nobody can give a namespace its next
// number: only the first process has the right one.
func processesOfRuns() []program {
	if inPods() {
		return processes()[:1]
	}
	return processes()
}

// The numbers that processes know are those that /proc shows.
func TestProcessNumbers(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		t.Helper()
		list := processes()
		if strings.HasSuffix(t.Name(), "/run") {
			list = processesOfRuns()
		}
		for _, p := range list {
			t.Run(p.name, func(t *testing.T) {
				for range 2 {
					p.check(t, mustRun(t, s, request{"code": own + p.code, "timeout_ms": 20000}))
				}
			})
		}
	})
	t.Run("two zygotes", func(t *testing.T) {
		s, _ := alone(t, "PRELOAD_MODULES=calendar")
		for i, p := range processesOfRuns() {
			t.Run(p.name, func(t *testing.T) {
				for j := range 3 {
					if (i+j)%2 == 0 { // the other zygote's turn
						p.code += "\n# calendar"
					}
					p.check(t, mustRun(t, s, request{"code": own + p.code, "timeout_ms": 20000}))
				}
			})
		}
	})
	t.Run("session", func(t *testing.T) {
		s := startSession(t, shared.server, request{})
		for _, p := range processes() {
			t.Run(p.name, func(t *testing.T) {
				p.check(t, s.call(t, "/execute", request{"code": own + p.code, "timeout_ms": 20000}))
			})
		}
		program{stdout: strings.Repeat("True\n", 2)}.check(t, s.bash(t, `python3 -c 'import os; print(os.getpid() == int(os.readlink("/proc/self")))'
read -r pid rest < /proc/self/stat; [ $$ = $pid ] && echo True`))
	})
}
