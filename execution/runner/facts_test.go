package runner

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// written gives facts as the supervisor writes them, with some changed.
func written(changes map[string]string) []byte {
	values := map[string]string{
		"exit_code": "0", "signal": "0", "timed_out": "0", "wall_us": "1", "kill_us": "0", "cpu_us": "2", "peak_kb": "3",
		"memory_kills": "0", "refused_processes": "0", "full": "0",
	}
	maps.Copy(values, changes)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if values[name] != "left out" {
			b.WriteString(name + "=" + values[name] + "\n")
		}
	}
	return []byte(b.String())
}

func TestFactsParse(t *testing.T) {
	for name, test := range map[string]struct {
		changes map[string]string
		want    facts
	}{
		"zeros": {
			map[string]string{"wall_us": "0", "kill_us": "0", "cpu_us": "0", "peak_kb": "0"}, facts{},
		},
		"everything": {
			map[string]string{
				"exit_code": "137", "signal": "9", "timed_out": "1", "wall_us": "1500000", "cpu_us": "250",
				"peak_kb": "2048", "memory_kills": "4", "refused_processes": "5", "full": "3",
			},
			facts{
				exitCode: 137, signal: syscall.SIGKILL, timedOut: true, wall: 1500 * time.Millisecond,
				usage:       execution.Usage{CPU: 250 * time.Microsecond, PeakMemoryBytes: 2 << 20},
				memoryKills: 4, refusedProcesses: 5, workspaceFull: true, tempFull: true,
			},
		},
		"a full workspace": {
			map[string]string{"wall_us": "0", "kill_us": "0", "cpu_us": "0", "peak_kb": "0", "full": "1"}, facts{workspaceFull: true},
		},
		"a full /tmp": {
			map[string]string{"wall_us": "0", "kill_us": "0", "cpu_us": "0", "peak_kb": "0", "full": "2"}, facts{tempFull: true},
		},
		"a field of tomorrow": {
			map[string]string{"wall_us": "0", "kill_us": "0", "cpu_us": "0", "peak_kb": "0", "colour": "red"}, facts{},
		},
		"the largest numbers": {
			map[string]string{
				"exit_code": "255", "signal": "64", "wall_us": "9223372036854775", "cpu_us": "9223372036854775",
				"peak_kb": "9007199254740991", "memory_kills": "9223372036854775807",
				"refused_processes": "9223372036854775807",
			},
			facts{
				exitCode: 255, signal: 64, wall: 9223372036854775 * time.Microsecond,
				usage:       execution.Usage{CPU: 9223372036854775 * time.Microsecond, PeakMemoryBytes: 9007199254740991 << 10},
				memoryKills: 1<<63 - 1, refusedProcesses: 1<<63 - 1,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got facts
			if err := got.parse(written(test.changes)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(facts{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFactsParseRefuses(t *testing.T) {
	for name, tooLarge := range map[string]string{
		"exit_code": "256", "signal": "65", "timed_out": "2", "wall_us": "9223372036854776", "cpu_us": "9223372036854776",
		"peak_kb": "9007199254740992", "memory_kills": "9223372036854775808", "refused_processes": "9223372036854775808", "full": "4",
	} {
		for _, value := range []string{tooLarge, "-1", "", "1.5", "nan", "99999999999999999999", "left out"} {
			var f facts
			if err := f.parse(written(map[string]string{name: value})); !errors.Is(err, errFrame) {
				t.Errorf("%s=%s: the error is %v", name, value, err)
			}
		}
	}
}

func TestFactsEnd(t *testing.T) {
	limits := execution.Limits{CPUTime: 5 * time.Second, WorkspaceBytes: 64 << 20}
	usedUp := execution.Usage{CPU: 6 * time.Second}
	for name, test := range map[string]struct {
		facts facts
		want  execution.End
	}{
		"success":             {facts{}, execution.End{Reason: execution.Exited}},
		"failure":             {facts{exitCode: 3}, execution.End{Reason: execution.Exited}},
		"crash":               {facts{exitCode: 139, signal: syscall.SIGSEGV}, execution.End{Reason: execution.Signal, Signal: "SIGSEGV"}},
		"killed":              {facts{exitCode: 137, signal: syscall.SIGKILL}, execution.End{Reason: execution.Signal, Signal: "SIGKILL"}},
		"exit code of a kill": {facts{exitCode: 137}, execution.End{Reason: execution.Exited}},
		"lost":                {facts{lost: true}, execution.End{Reason: execution.SandboxLost}},
		"lost to memory":      {facts{lost: true, lostToMemory: true}, execution.End{Reason: execution.MemoryLimit, Signal: "SIGKILL", Message: stoppedForMemory}},
		"time is up": {
			facts{exitCode: 137, signal: syscall.SIGKILL, timedOut: true},
			execution.End{Reason: execution.Timeout, Message: "stopped after 1500 ms"},
		},
		"time is up, and all else": {
			facts{exitCode: 137, signal: syscall.SIGXCPU, timedOut: true, memoryKills: 1, refusedProcesses: 1, workspaceFull: true},
			execution.End{Reason: execution.Timeout, Message: "stopped after 1500 ms"},
		},
		"CPU time is up": {
			facts{exitCode: 152, signal: syscall.SIGXCPU, usage: usedUp},
			execution.End{Reason: execution.CPULimit, Signal: "SIGXCPU", Message: "stopped after 6.0 s of CPU time (limit 5 s)"},
		},
		"CPU time is up, first signal caught": {
			facts{exitCode: 137, signal: syscall.SIGKILL, usage: usedUp},
			execution.End{Reason: execution.CPULimit, Signal: "SIGKILL", Message: "stopped after 6.0 s of CPU time (limit 5 s)"},
		},
		"CPU time is up, by the kernel's ticks": {
			facts{exitCode: 152, signal: syscall.SIGXCPU, usage: execution.Usage{CPU: 4800 * time.Millisecond}},
			execution.End{Reason: execution.CPULimit, Signal: "SIGXCPU", Message: "stopped after 5.0 s of CPU time (limit 5 s)"},
		},
		"CPU time is up by ticks, first signal caught": {
			facts{exitCode: 137, signal: syscall.SIGKILL, usage: execution.Usage{CPU: 4800 * time.Millisecond}},
			execution.End{Reason: execution.CPULimit, Signal: "SIGKILL", Message: "stopped after 5.0 s of CPU time (limit 5 s)"},
		},
		"killed long before CPU time is up": {
			facts{exitCode: 137, signal: syscall.SIGKILL, usage: execution.Usage{CPU: 4 * time.Second}},
			execution.End{Reason: execution.Signal, Signal: "SIGKILL"},
		},
		"killed for memory after much CPU time": {
			facts{exitCode: 137, signal: syscall.SIGKILL, usage: usedUp, memoryKills: 1},
			execution.End{Reason: execution.MemoryLimit, Signal: "SIGKILL", Message: "the kernel stopped it: more memory than the sandbox has"},
		},
		"a child killed for memory": {
			facts{exitCode: 1, memoryKills: 2},
			execution.End{Reason: execution.MemoryLimit, Message: "the kernel stopped it: more memory than the sandbox has"},
		},
		"a child killed for memory, survived": {facts{memoryKills: 2}, execution.End{Reason: execution.Exited}},
		"no more processes": {
			facts{exitCode: 1, refusedProcesses: 9},
			execution.End{Reason: execution.ProcessLimit, Message: "it failed after the kernel refused it more processes or threads"},
		},
		"no more processes, survived": {facts{refusedProcesses: 9}, execution.End{Reason: execution.Exited}},
		"a full workspace": {
			facts{exitCode: 1, workspaceFull: true},
			execution.End{Reason: execution.WorkspaceLimit, Message: "it failed with no room left in the workspace (WORKSPACE_LIMIT_MB is 64)"},
		},
		"a full /tmp": {
			facts{exitCode: 1, tempFull: true},
			execution.End{Reason: execution.WorkspaceLimit, Message: "it failed with no room left in /tmp (TMP_LIMIT_MB)"},
		},
		"both full": {
			facts{exitCode: 1, workspaceFull: true, tempFull: true},
			execution.End{Reason: execution.WorkspaceLimit, Message: "it failed with no room left in the workspace (WORKSPACE_LIMIT_MB is 64) and /tmp (TMP_LIMIT_MB)"},
		},
		"both full, survived": {facts{workspaceFull: true, tempFull: true}, execution.End{Reason: execution.Exited}},
		"memory comes before processes": {
			facts{exitCode: 1, memoryKills: 1, refusedProcesses: 1, workspaceFull: true},
			execution.End{Reason: execution.MemoryLimit, Message: "the kernel stopped it: more memory than the sandbox has"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			test.facts.reconcile(limits)
			if diff := cmp.Diff(test.want, test.facts.end(1500*time.Millisecond, limits)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
