package integration

import (
	"net/http"
	"strings"
	"testing"
)

// defaultLimits undoes smallLimits.
func defaultLimits(more ...string) []string {
	var all []string
	for _, setting := range smallLimits() {
		name, _, _ := strings.Cut(setting, "=")
		all = append(all, name+"=")
	}
	return append(all, more...)
}

// What programs with ordinary data need fits in the limits that are not set.
func TestDefaultLimits(t *testing.T) {
	s := startServer(t, defaultLimits("POOL_SIZE=1")...)
	for _, p := range []program{
		{name: "a computation as long as its timeout allows", timeout: 60000, stdout: "done\n", code: `import time
t = time.process_time()
while time.process_time() - t < 6: pass
print("done")`},
		{name: "a table of 46 MB", timeout: 60000, files: "x.csv", code: `line = "0.123456789012345678," * 8 + "\n"
with open("x.csv", "w") as file:
    for _ in range(300_000 * 46 // 51): file.write(line)`},
		{name: "a large file that stays", timeout: 60000, skipped: 1, code: `with open("x", "wb") as file:
    for _ in range(190): file.write(bytes(1 << 20))`},
		{name: "memory", timeout: 60000, stdout: "734003200\n", code: "print(len(b'x' * (700 << 20)))"},
		{name: "shared memory", timeout: 60000, stdout: "52428800\n", code: `from multiprocessing import shared_memory
s = shared_memory.SharedMemory(create=True, size=50 << 20)
s.buf[:] = b"x" * (50 << 20)
print(len(s.buf)); s.close(); s.unlink()`},
		{name: "more than there is", timeout: 60000, code: "x = bytearray(2 << 30)", exit: "137", reason: "memory_limit", signal: "SIGKILL"},
	} {
		t.Run(p.name, func(t *testing.T) {
			p.check(t, mustRun(t, s, request{"code": p.code, "timeout_ms": p.timeout}))
		})
	}
}

// Parallel work of libraries fits too.
func TestParallelWork(t *testing.T) {
	s := startServer(t, append(with(dataImage), defaultLimits("POOL_SIZE=1")...)...)
	program{stdout: "~0.9"}.check(t, mustRun(t, s, request{"timeout_ms": 60000, "code": `from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeClassifier
X, y = load_iris(return_X_y=True)
print(cross_val_score(DecisionTreeClassifier(), X, y, n_jobs=2))`}))
}

// Of a file that a session does not return the answer says that it stays, and it does.
func TestSessionKeepsWhatItDoesNotReturn(t *testing.T) {
	s := startSession(t, shared.server, request{})
	a := s.python(t, "n = open('big', 'wb').truncate(30 << 20); open('/tmp/x.csv', 'w').close()")
	if len(a.SkippedFiles) != 2 || a.SkippedFiles[0].Path != "big" || a.SkippedFiles[1].Path != "/tmp/x.csv" ||
		!strings.Contains(a.SkippedFiles[0].Reason, "MAX_RESULT_MB together, which is 20; it stays in the session") {
		t.Errorf("skipped are %+v", a.SkippedFiles)
	}
	if status, content := s.server.send(t, http.MethodGet, s.path("/files/big"), "", nil); status != http.StatusOK || len(content) != 30<<20 {
		t.Errorf("status %d, %d bytes", status, len(content))
	}
	if a := s.python(t, "1"); len(a.SkippedFiles) != 0 {
		t.Errorf("an earlier call's are named again: %+v", a.SkippedFiles)
	}
}

// Nothing in a session lowers its rank when memory runs out.
func TestSessionRank(t *testing.T) {
	s := startSession(t, shared.server, request{})
	const lower = `open('/proc/self/oom_score_adj', 'w').write('999')`
	if a := s.python(t, lower); !strings.Contains(a.Stderr, "PermissionError") {
		t.Errorf("a cell: %+v", a)
	}
	if a := s.bash(t, `echo 999 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj`); a.Stdout != "1000\n" {
		t.Errorf("a command: %+v", a)
	}
}
