package execution

import "time"

// Reason says why a run ended. The values are part of the HTTP contract.
type Reason string

// The reasons. All but [Exited] and [Signal] are ends that the sandbox or the
// server brought about.
const (
	Exited         Reason = "exited"          // the program ended by itself
	Signal         Reason = "signal"          // a signal ended it
	Timeout        Reason = "timeout"         // its wall-clock time was up
	CPULimit       Reason = "cpu_limit"       // a process used up its CPU time
	MemoryLimit    Reason = "memory_limit"    // the kernel killed for memory
	ProcessLimit   Reason = "process_limit"   // it failed after processes were refused
	WorkspaceLimit Reason = "workspace_limit" // it failed with its disk full
	SandboxLost    Reason = "sandbox_lost"    // the sandbox ended under it
)

// End says how and why a run ended.
type End struct {
	Reason Reason
	// Signal names the signal that ended the program ("SIGSEGV"), if one did.
	Signal string
	// Message says what happened in a sentence, where the reason alone does
	// not.
	Message string
}

// Usage is what a run consumed.
type Usage struct {
	// CPU is the time all of the run's processes spent, system and user.
	CPU time.Duration
	// PeakMemoryBytes is the largest resident size of one of them.
	PeakMemoryBytes int64
}

// Stages are the parts of a run's way through the service.
type Stages struct {
	Admit   time.Duration // until the request was validated and admitted
	Lease   time.Duration // until a sandbox was there
	Send    time.Duration // until the program was let go
	Run     time.Duration // the program's own time
	Kill    time.Duration // until nothing of it was left
	Collect time.Duration // until its report was complete
	// Clean and Prepare are what the sandbox did before the request came: it
	// deleted what the last run had left and forked the next program's process.
	// They are zero in one that had no run before.
	Clean, Prepare time.Duration
}

// SkippedFile is a file that the run made or changed and that is not returned.
type SkippedFile struct {
	// Path is relative to the workspace. Bytes that are no UTF-8 are escaped.
	Path string
	// Reason says why, in words.
	Reason string
}

// Result is what came of a run. A program that failed has a Result like any
// other: an error says that the service could not run it.
type Result struct {
	// Stdout and Stderr are valid UTF-8, cut at the output limit.
	Stdout, Stderr string
	// ExitCode is 128+N for a program that signal N ended, and nil for one
	// that timed out.
	ExitCode *int
	// End says why the run ended.
	End End
	// Started is when the program was let go.
	Started time.Time
	// Duration is the program's own wall-clock time.
	Duration time.Duration
	// Queue is the time from the request's arrival to the program's start.
	Queue time.Duration
	// Usage is what the run consumed.
	Usage Usage
	// Stages say where the time went.
	Stages Stages
	// StateLost says that a session's interpreter has ended during the call or
	// since the one before it: what it had is lost, files are not.
	StateLost bool
	// Files are the regular files that the run made or changed.
	Files []File
	// Skipped are those that could not be returned.
	Skipped []SkippedFile
}

// TimedOut says whether the run ended because its time was up.
func (r *Result) TimedOut() bool { return r.End.Reason == Timeout }

// Failed says whether the program came to any other end than exit status 0.
func (r *Result) Failed() bool { return r.ExitCode == nil || *r.ExitCode != 0 }
