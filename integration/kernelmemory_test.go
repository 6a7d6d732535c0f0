package integration

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

//go:embed testdata/hoard/*.py
var hoardParts embed.FS

// hoard returns the program that tries every way: its parts, in the order of their names.
func hoard(t *testing.T) string {
	t.Helper()
	names, err := fs.Glob(hoardParts, "testdata/hoard/*.py")
	if err != nil || len(names) == 0 {
		t.Fatalf("%q, %v", names, err)
	}
	var all []string
	for _, name := range names {
		part, err := hoardParts.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(part))
	}
	return strings.Join(all, "\n\n")
}

const (
	hoardLimit = 256 // megabytes of a sandbox
	// hoardSlack is by how many megabytes the host's memory may differ from what is counted:
	// other processes take some, and there is a second count for the page cache.
	hoardSlack = 96
	// hoardMost is how many megabytes the host may lack before a program is ended: on a loaded
	// machine the supervisor looks late. Nothing else bounds these ways.
	hoardMost = 1024
)

// hoarding returns a program that has the kernel keep memory in a way, or in all that do
// not end the program, for some time each.
func hoarding(t *testing.T, way string, each time.Duration) string {
	t.Helper()
	counted, ended := "True", ""
	if shared.eachProcess {
		counted = "False"
	}
	if inPods() {
		ended = "terminals"
	}
	return fmt.Sprintf("ONLY, ENDED, SLACK, COUNTED, LIMIT, SECONDS = %q, %q, %d, %s, %d, %f\n%s", way, ended, hoardSlack, counted, hoardLimit, each.Seconds(), hoard(t))
}

func startHoarding(t *testing.T, isolation string) *server {
	t.Helper()
	return startServer(t, "ISOLATION="+isolation, "POOL_SIZE=1", fmt.Sprintf("MEMORY_LIMIT_MB=%d", hoardLimit),
		"MAX_EXEC_TIMEOUT_MS=120000", "CPU_TIME_LIMIT_SEC=60")
}

// Whatever a program has the kernel keep is counted by its cgroup, bounded, or denied.
func TestKernelMemory(t *testing.T) {
	for _, isolation := range []string{"run", "container"} {
		t.Run(isolation, func(t *testing.T) {
			s := startHoarding(t, isolation)
			a := mustRun(t, s, request{"code": hoarding(t, "", time.Second), "timeout_ms": 120000})
			t.Log("\n" + a.Stdout)
			if a.End.Reason != "exited" || a.exitCode() != "0" || strings.Contains(a.Stdout, "UNBOUNDED") || strings.Count(a.Stdout, "\n") < 30 {
				t.Errorf("it ended with %+v, %s: %s", a.End, a.exitCode(), a.Stderr)
			}
		})
	}
}

// A program that has the kernel keep what no cgroup counts is ended in time, and its memory
// is free then.
func TestKernelMemoryIsWatched(t *testing.T) {
	for isolation, ways := range map[string][]string{
		"run":       {"netlink", "udp", "udp_corked", "tcp", "tcp_unaccepted", "tcp_unaccepted_empty", "sockets", "locks"},
		"container": {"tcp_unaccepted", "locks"},
	} {
		if inPods() {
			ways = append(ways, "terminals")
		}
		s := startHoarding(t, isolation)
		for _, way := range ways {
			t.Run(isolation+"/"+way, func(t *testing.T) {
				most := watchMemory(t)
				a := mustRun(t, s, request{"code": hoarding(t, way, patience/2), "timeout_ms": 120000})
				ended := a.End.Reason == "memory_limit" && a.exitCode() == "137" && strings.Contains(a.End.Message, "stopped")
				// With cgroups of version 1 there is another limit, and without cgroups a process has few files.
				if way == "udp" || way == "tcp" || shared.eachProcess {
					ended = ended || a.exitCode() == "0" && !strings.Contains(a.Stdout, "UNBOUNDED")
				}
				if grown := most(); !ended || grown > hoardMost {
					t.Errorf("the host lacked %d MB more; it ended with %s, %+v: %s %s", grown, a.exitCode(), a.End, a.Stdout, a.Stderr)
				}
				program{stdout: "1\n"}.check(t, mustRun(t, s, request{"code": "print(1)"}))
			})
		}
	}
}

// In a session what a call has the kernel keep is bounded as in a run, and so is what goes
// on between calls.
func TestSessionKernelMemory(t *testing.T) {
	s := startHoarding(t, "run")
	session := startSession(t, s, request{})
	most := watchMemory(t)
	a := session.python(t, `import os, socket, struct, time
def take():
    time.sleep(0.3)  # until the call has ended
    request, kept = struct.pack("IHHII", 16 + 4096, 0x7f0, 5, 1, 0) + bytes(4096), []
    while len(kept) < 100:
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.setblocking(False); kept.append(s)
        try:
            for _ in range(2000): s.send(request)
        except OSError: pass
    time.sleep(60)
for _ in range(8):
    if os.fork() == 0: take()
kept = os.getpid()`)
	if a.exitCode() != "0" {
		t.Fatalf("%+v", a)
	}
	deadline := time.Now().Add(patience)
	for a = session.python(t, "kept"); !a.StateLost && a.exitCode() == "0"; a = session.python(t, "kept") {
		if time.Now().After(deadline) {
			t.Fatalf("its processes go on: %+v", a)
		}
	}
	if grown := most(); grown > hoardMost {
		t.Errorf("the host lacked %d MB more", grown)
	}
}

// watchMemory begins to watch the host's memory. The function that it returns says by how
// many megabytes more was taken, at most, and ends the watch.
func watchMemory(t *testing.T) (most func() int) {
	t.Helper()
	before, peak := takenMemory(t), 0
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				peak = max(peak, takenMemory(t)-before)
			}
		}
	})
	return func() int {
		close(stop)
		watching.Wait()
		return peak
	}
}

// takenMemory returns the megabytes of the host's memory that are not available.
func takenMemory(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Error(err)
		return 0
	}
	kilobytes := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			kilobytes[fields[0]], _ = strconv.Atoi(fields[1])
		}
	}
	return (kilobytes["MemTotal:"] - kilobytes["MemAvailable:"]) >> 10
}

// Terminals are there where they are asked for, and no more of them.
func TestTerminals(t *testing.T) {
	s := startServer(t, "PTY_LIMIT=4", "POOL_SIZE=1")
	program{stdout: "hello\r\n"}.check(t, mustRun(t, s, request{"code": `import os, pty
pid, fd = pty.fork()
if pid == 0: os.execvp("echo", ["echo", "hello"])
print(os.read(fd, 100).decode(), end="")`}))
	a := mustRun(t, s, request{"timeout_ms": 30000, "code": `import os, time
kept = []
try:
    while True: kept.append(os.openpty()); time.sleep(0.2)
except OSError: print(len(kept))`})
	refused := a.Stdout == "4\n" && a.exitCode() == "0"
	ended := a.End.Reason == "memory_limit" && strings.Contains(a.End.Message, "PTY_LIMIT")
	if !refused && !ended {
		t.Errorf("it ended with %s, %+v: %s%s", a.exitCode(), a.End, a.Stdout, a.Stderr)
	}
}
