package execution

import (
	"context"
	"io"
	"time"
)

// Backend is where sandboxes come from. It starts the supervisor in them; what
// the supervisor says is the runner's business.
type Backend interface {
	// Resolve gives the digest that an image reference stands for now. An
	// image that is missing is pulled, or built where it is our own.
	Resolve(ctx context.Context, image string) (digest string, err error)
	// Start starts a sandbox and connects to its supervisor.
	Start(ctx context.Context, spec Spec) (Instance, error)
	// Sweep removes what earlier servers, or this one, left behind, and says
	// how many sandboxes that were.
	Sweep(ctx context.Context) (removed int, err error)
	// Health returns an error that says what is wrong while no sandbox can be
	// had.
	Health(ctx context.Context) error
}

// Instance is a started sandbox: a stream to and from its supervisor.
// Closing its writing side asks the supervisor to end.
type Instance interface {
	io.Reader
	io.Writer
	// SetWriteDeadline bounds writes, as for a net.Conn.
	SetWriteDeadline(t time.Time) error
	// Diagnostics is what the supervisor wrote to its stderr, which is nothing
	// unless it failed. Read it after the stream has ended.
	Diagnostics() string
	// Destroy ends the sandbox and waits until it is gone. It may be called
	// more than once; that the sandbox is already gone is success.
	Destroy(ctx context.Context) error
	// Kill is Destroy for a sandbox that does not answer: it does not wait for PID 1
	// to leave by itself.
	Kill(ctx context.Context) error
	// Detach gives the stream up. The sandbox of a session goes on without it;
	// any other ends.
	Detach()
}

// Spec is the kind of sandbox to start. It is comparable: sandboxes of equal
// specs are interchangeable.
type Spec struct {
	// Image is a digest that Resolve gave.
	Image string
	Settings
	// Session is the session that the sandbox is for, with
	// [IsolationSession]. Such a sandbox does not end with the stream, but
	// when the session expires.
	Session SessionInfo
}

// Isolation says what stands between two runs.
type Isolation string

const (
	// IsolationRun has a container serve many runs, each in a fresh inner
	// sandbox.
	IsolationRun Isolation = "run"
	// IsolationContainer has a container of its own for each run.
	IsolationContainer Isolation = "container"
	// IsolationSession is a container of its own for a session, whose calls are
	// not kept apart.
	IsolationSession Isolation = "session"
	// IsolationAuto is the first where it can be had, else the second.
	IsolationAuto Isolation = "auto"
)

// Settings are the walls of a sandbox, and what it has prepared.
type Settings struct {
	// Isolation is [IsolationRun], [IsolationSession] or anything else, which a
	// backend takes for [IsolationContainer]: what "auto" means is decided before
	// it is asked.
	Isolation Isolation
	// Preload names the modules that are imported ahead where a container
	// serves many runs, with commas between; "auto" takes those that the image
	// names.
	Preload string
	// Network is the name of the network that programs reach, or "none".
	Network string
	// Runtime is the OCI runtime, "" for the engine's default.
	Runtime string
	// MemoryBytes bounds all memory, what lies in the workspace included.
	MemoryBytes int64
	// CPUs is a quota in cores.
	CPUs float64
	// Processes bounds processes and threads.
	Processes int64
	// Ptys bounds pseudo-terminals. Zero means that there are none.
	Ptys int64
	// WorkspaceBytes and TempBytes are the sizes of the workspace and of /tmp.
	WorkspaceBytes, TempBytes int64
}

// Sandbox is a warm sandbox that waits for a program.
type Sandbox interface {
	// Run runs a program. An error that wraps [ErrNotStarted] means that it
	// can be tried in another sandbox. When ctx ends, the sandbox is of no more
	// use.
	Run(ctx context.Context, req Request, limits Limits) (*Result, error)
	// Reusable says whether the sandbox may run another program after the one
	// that it runs or has run. It does not change from false to true.
	Reusable() bool
	// Renew waits, after a run, until the sandbox is as fresh as at its start.
	// After an error it must be closed.
	Renew(ctx context.Context) error
	// Check waits until the sandbox, which must be idle, has shown that it is alive.
	// After an error it must be closed.
	Check(ctx context.Context) error
	// Silent reports whether the sandbox was given up because it showed no sign of
	// life.
	Silent() bool
	// Done is closed when the sandbox has ended, by itself or by Close, or is
	// silent.
	Done() <-chan struct{}
	// Close ends the sandbox and returns when it is gone.
	Close() error
}
