package execution

import "time"

// Reason is why a run ended. The values are part of the HTTP contract.
type Reason string

// The reasons. In all cases except [Exited] and [Signal] the sandbox or the server
// ended the program.
const (
	Exited         Reason = "exited"          // the program ended by itself
	Signal         Reason = "signal"          // a signal ended it
	Timeout        Reason = "timeout"         // it reached its timeout
	CPULimit       Reason = "cpu_limit"       // a process used up its CPU time
	MemoryLimit    Reason = "memory_limit"    // the kernel killed for memory
	ProcessLimit   Reason = "process_limit"   // it failed after processes were refused
	WorkspaceLimit Reason = "workspace_limit" // it failed with its disk full
	SandboxLost    Reason = "sandbox_lost"    // the sandbox ended under it
)

// End is how and why a run ended.
type End struct {
	Reason Reason
	// Signal names the signal that ended the program ("SIGSEGV"), if one did.
	Signal string
	// Message explains in a sentence what happened, where the reason alone does
	// not.
	Message string
}

// Usage is the resources that a run used.
type Usage struct {
	// CPU is the time all of the run's processes spent, system and user.
	CPU time.Duration
	// PeakMemoryBytes is the largest resident size of one of them.
	PeakMemoryBytes int64
}

// Stages are the times that the stages of a run took.
type Stages struct {
	Admit   time.Duration // until the request was validated and admitted
	Lease   time.Duration // until a sandbox was leased
	Send    time.Duration // until the program was started
	Run     time.Duration // the program's own time
	Kill    time.Duration // until all its processes were gone
	Collect time.Duration // until its report was complete
	// Clean and Prepare are what the sandbox did before the request arrived: it
	// deleted the leftovers of the previous run and forked the next program's
	// process. They are zero in a sandbox's first run.
	Clean, Prepare time.Duration
}

// SkippedFile is a file that the run created or changed and that is not returned.
type SkippedFile struct {
	// Path is relative to the workspace. Bytes that are not UTF-8 are escaped.
	Path string
	// Reason is the reason in words.
	Reason string
}

// Representation is one form of a value that a program displayed.
type Representation struct {
	// Type is a media type, such as "text/html".
	Type string
	// Data is the value in this form. Images are binary, except SVG.
	Data []byte
}

// Result is the outcome of a run. A program that failed has a Result like any other:
// an error means that the service could not run it.
type Result struct {
	// Stdout and Stderr are valid UTF-8, cut at the output limit.
	Stdout, Stderr string
	// ExitCode is 128+N for a program that signal N ended, and nil for a program
	// that timed out.
	ExitCode *int
	// End is why the run ended.
	End End
	// Started is when the program was started.
	Started time.Time
	// Duration is the program's own wall-clock time.
	Duration time.Duration
	// Queue is the time from the request's arrival to the program's start.
	Queue time.Duration
	// Usage is the resources that the run used.
	Usage Usage
	// Stages are the times that the stages took.
	Stages Stages
	// Displayed are the values that the program displayed, the last statement's value
	// included. Each has at least one form. Together they are bounded like output; a
	// form that does not fit is missing.
	Displayed [][]Representation
	// StateLost means that a session's interpreter ended during the call or since
	// the previous one: its variables are lost, files are not.
	StateLost bool
	// Session is the session in which the program ran, as it was after the call. Zero
	// for a run that belongs to none.
	Session SessionInfo
	// Files are the regular files that the run created or changed.
	Files []File
	// Skipped are those that could not be returned.
	Skipped []SkippedFile
}

// TimedOut reports whether the run reached its timeout.
func (r *Result) TimedOut() bool { return r.End.Reason == Timeout }

// Failed reports whether the program ended in any other way than with exit status 0.
func (r *Result) Failed() bool { return r.ExitCode == nil || *r.ExitCode != 0 }
