package runner

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// lostExitCode is the exit code of a program whose sandbox ended under it, as
// Docker gives it for a container that was killed.
const lostExitCode = 128 + int(syscall.SIGKILL)

// maxMicroseconds is the longest time that a [time.Duration] holds.
const maxMicroseconds = math.MaxInt64 / 1000

// facts are what the supervisor measured of a run.
type facts struct {
	exitCode         int
	signal           syscall.Signal // 0: it exited
	timedOut         bool
	lost             bool // the sandbox ended first; known to this side alone
	lostToMemory     bool // it was ended for memory; known to the backend alone
	wall             time.Duration
	kill             time.Duration // from the main process's end to that of all others
	usage            execution.Usage
	memoryKills      int64  // processes that the kernel killed for memory
	excess           string // what the kernel would have kept too much of, if that ended the program
	refusedProcesses int64
	workspaceFull    bool
	tempFull         bool
	stateLost        bool // a session's interpreter has ended
	lostForMemory    bool // the kernel has killed something for memory by then
}

func (f *facts) parse(payload []byte) error {
	values := parseFields(payload)
	var err error
	number := func(name string, limit int64) int64 {
		n, fault := values.number(name, limit)
		if err == nil {
			err = fault
		}
		return n
	}
	f.exitCode = int(number("exit_code", 255))
	f.signal = syscall.Signal(number("signal", 64))
	f.timedOut = number("timed_out", 1) == 1
	f.wall = time.Duration(number("wall_us", maxMicroseconds)) * time.Microsecond
	f.kill = time.Duration(number("kill_us", maxMicroseconds)) * time.Microsecond
	f.usage.CPU = time.Duration(number("cpu_us", maxMicroseconds)) * time.Microsecond
	f.usage.PeakMemoryBytes = number("peak_kb", math.MaxInt64>>10) << 10
	f.memoryKills = number("memory_kills", math.MaxInt64)
	f.refusedProcesses = number("refused_processes", math.MaxInt64)
	f.excess = values["excess"]
	full := number("full", 3)
	f.workspaceFull, f.tempFull = full&1 != 0, full&2 != 0
	f.stateLost = values["state_lost"] == "1"
	before, _ := values.number("memory_kills_before", math.MaxInt64) // since the last call; sessions alone say so
	f.lostForMemory = f.stateLost && f.memoryKills+before > 0
	return err
}

// cpuSlack is what a run may have used beyond its cores' time: before it began, its
// process has waited, and quotas are kept by periods.
const cpuSlack = time.Second

// clamp lowers what cannot be true: a supervisor that is not ours any more may claim
// anything. A run has taken no longer than this side has waited since it was sent, no
// more CPU time than all cores have in that, and no more memory than there is.
func (f *facts) clamp(waited time.Duration, limits execution.Limits) {
	f.wall, f.kill = min(f.wall, waited), min(f.kill, waited)
	cores := max(limits.CPUs, float64(runtime.NumCPU())) // without cgroups there is no quota
	f.usage.CPU = min(f.usage.CPU, time.Duration(float64(waited)*cores)+cpuSlack)
	if limits.MemoryBytes > 0 {
		f.usage.PeakMemoryBytes = min(f.usage.PeakMemoryBytes, limits.MemoryBytes)
	}
}

const stoppedForMemory = "the kernel stopped it: more memory than the sandbox has"

// memoryMessage returns why a program was stopped that took too much memory. The numbers
// are the supervisor's (KernelWatch).
func (f *facts) memoryMessage() string {
	const stopped = "stopped: it had more %s, which the kernel keeps outside of the sandbox's memory"
	switch f.excess {
	case "sockets":
		return fmt.Sprintf(stopped, "than 512 sockets open")
	case "unread":
		return fmt.Sprintf(stopped, "than 32 MB of unread data in sockets")
	case "locks":
		return fmt.Sprintf(stopped, "than 10000 locks on files")
	case "ptys":
		return "stopped: it had more terminals open than PTY_LIMIT allows"
	}
	return stoppedForMemory
}

// end returns why a run ended, given the facts. What certainly ended the program
// comes first; then, for one that failed, the limit that it reached.
func (f *facts) end(timeout time.Duration, limits execution.Limits) execution.End {
	end := execution.End{Reason: execution.Exited}
	if f.signal != 0 {
		end = execution.End{Reason: execution.Signal, Signal: signalName(f.signal)}
	}
	failed := f.exitCode != 0
	switch {
	case f.lostToMemory:
		// Its exit code is that of a program that the kernel has killed.
		end = execution.End{Reason: execution.MemoryLimit, Signal: signalName(syscall.SIGKILL), Message: stoppedForMemory}
	case f.lost:
		end.Reason = execution.SandboxLost
	case f.timedOut:
		end = execution.End{
			Reason:  execution.Timeout,
			Message: fmt.Sprintf("stopped after %d ms", timeout.Milliseconds()),
		}
	case f.outOfCPU(limits):
		end.Reason = execution.CPULimit
		end.Message = fmt.Sprintf("stopped after %.1f s of CPU time (limit %d s)", f.usage.CPU.Seconds(), limits.CPUTime/time.Second)
	case failed && f.memoryKills > 0:
		end.Reason = execution.MemoryLimit
		end.Message = f.memoryMessage()
	case failed && f.refusedProcesses > 0:
		end.Reason = execution.ProcessLimit
		end.Message = "it failed after the kernel refused it more processes or threads"
	case failed && (f.workspaceFull || f.tempFull):
		end.Reason = execution.WorkspaceLimit
		end.Message = "it failed with no room left in " + strings.Join(f.fullPlaces(limits), " and ")
	}
	return end
}

// signalName names a signal, the nameless ones of real time by their number.
func signalName(signal syscall.Signal) string {
	if name := unix.SignalName(signal); name != "" {
		return name
	}
	return fmt.Sprintf("SIG%d", int(signal))
}

// outOfCPU reports whether the kernel ended the program for its CPU time: by
// SIGXCPU at the limit, or by SIGKILL a second later when it caught that.
func (f *facts) outOfCPU(limits execution.Limits) bool {
	return f.signal == syscall.SIGXCPU || f.signal == syscall.SIGKILL && f.memoryKills == 0 && f.usage.CPU >= limits.CPUTime-limits.CPUTime/tickError
}

// tickError is the part of a time by which the kernel's two clocks differ at most. The
// limit holds for what it counts by ticks, in which a process ran or did not. The usage
// is what the scheduler measured, which may be less.
const tickError = 10

// reconcile raises the usage of a program that was ended at a limit to that limit: the
// kernel has counted so much.
func (f *facts) reconcile(limits execution.Limits) {
	if f.outOfCPU(limits) && !f.timedOut {
		f.usage.CPU = max(f.usage.CPU, limits.CPUTime)
	}
}

func (f *facts) fullPlaces(limits execution.Limits) []string {
	var places []string
	if f.workspaceFull {
		places = append(places, fmt.Sprintf("the workspace (WORKSPACE_LIMIT_MB is %d)", limits.WorkspaceBytes>>20))
	}
	if f.tempFull {
		places = append(places, "/tmp (TMP_LIMIT_MB)")
	}
	return places
}
