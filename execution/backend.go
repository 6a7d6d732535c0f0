package execution

import (
	"context"
	"io"
	"time"
)

// Backend starts sandboxes and the supervisor in them. The runner speaks the
// supervisor's protocol.
type Backend interface {
	// Resolve returns the current digest of an image reference. It pulls a
	// missing image, or builds it if it is one of this project.
	Resolve(ctx context.Context, image string) (digest string, err error)
	// Start starts a sandbox and connects to its supervisor.
	Start(ctx context.Context, spec Spec) (Instance, error)
	// Sweep removes the sandboxes that earlier servers, or this one, left behind,
	// and returns how many it removed.
	Sweep(ctx context.Context) (removed int, err error)
	// Health returns an error that explains why no sandbox is available, or nil.
	Health(ctx context.Context) error
}

// Machine is the machine that a backend's sandboxes run on.
type Machine struct {
	Memory int64 // that all sandboxes may take together, in bytes; zero means that it is not known
	Cores  int   // that they may use; zero means that it is not known
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
	// more than once, and succeeds if the sandbox is already gone.
	Destroy(ctx context.Context) error
	// Kill is Destroy for a sandbox that does not answer: it does not wait for PID 1
	// to leave by itself.
	Kill(ctx context.Context) error
	// Detach closes the stream. The sandbox of a session goes on without it; any
	// other ends.
	Detach()
}

// Resetter is an [Instance] whose sandbox can start anew in place, which may be much faster
// than to start another one.
type Resetter interface {
	// Reset ends the stream, which may be being read, and has the sandbox start anew. It
	// returns an Instance of the same sandbox, whose stream begins as at the start. The old
	// Instance is spent then: its methods that end or detach it do nothing. After an error
	// it must still be destroyed.
	Reset(ctx context.Context) (Instance, error)
}

// Postmortem is an [Instance] that can find out why its sandbox ended.
type Postmortem interface {
	// Postmortem returns why the sandbox ended, in words, and whether it was ended for
	// memory. Nothing is known where both are zero. It is asked after the stream has
	// ended unexpectedly, and may wait until ctx ends.
	Postmortem(ctx context.Context) (why string, memory bool)
}

// Doomed is an [Instance] that can tell that its sandbox is to go soon, as when its machine
// is drained.
type Doomed interface {
	// Doomed is closed when the sandbox is to go soon. Until then it works as before.
	Doomed() <-chan struct{}
}

// Classed is an [Instance] whose backend has machines of several classes. Sandboxes of one
// template are equal on machines of one class only.
type Classed interface {
	// Class names what a machine's sandboxes depend on, such as its kernel, its processor
	// and the OCI runtime.
	Class() string
}

// Spec is the kind of sandbox to start. It is comparable: sandboxes of equal
// specs are interchangeable.
type Spec struct {
	// Image is a digest that Resolve returned.
	Image string
	Settings
	// Bare has the sandbox preload nothing, so that it is ready sooner.
	Bare bool
	// Session is the session that the sandbox is for, with
	// [IsolationSession]. Such a sandbox ends when the session expires, not with
	// the stream.
	Session SessionInfo
}

// Isolation is what separates two runs.
type Isolation string

const (
	// IsolationRun means that a container serves many runs, each in a fresh inner
	// sandbox.
	IsolationRun Isolation = "run"
	// IsolationContainer means that each run has a container of its own.
	IsolationContainer Isolation = "container"
	// IsolationSession means that a session has a container of its own. Its calls
	// are not separated from each other.
	IsolationSession Isolation = "session"
	// IsolationAuto is IsolationRun where that is available, else
	// IsolationContainer.
	IsolationAuto Isolation = "auto"
)

// Settings are the limits of a sandbox, and what it prepares before a run.
type Settings struct {
	// Isolation is [IsolationRun], [IsolationSession] or [IsolationContainer]. A
	// backend treats any other value as [IsolationContainer]: its caller decides
	// what "auto" means.
	Isolation Isolation
	// Preload names the modules that are imported before the first run where a
	// container serves many, separated by commas; "auto" means those that the image
	// names.
	Preload string
	// Network is the name of the network that programs reach, or "none".
	Network string
	// Runtime is the OCI runtime, "" for the engine's default.
	Runtime string
	// MemoryBytes bounds all memory, including the files of the workspace.
	MemoryBytes int64
	// CPUs is a quota in cores.
	CPUs float64
	// Processes bounds processes and threads.
	Processes int64
	// Ptys bounds pseudo-terminals. Zero means none.
	Ptys int64
	// WorkspaceBytes and TempBytes are the sizes of the workspace and of /tmp.
	WorkspaceBytes, TempBytes int64
}

// Sandbox is a warm sandbox that waits for a program.
type Sandbox interface {
	// Run runs a program. An error that wraps [ErrNotStarted] means that it
	// can be tried in another sandbox. When ctx ends, the sandbox cannot be used
	// again.
	Run(ctx context.Context, req Request, limits Limits) (*Result, error)
	// Reusable reports whether the sandbox may run another program after the one
	// that it runs or has run. It does not change from false to true.
	Reusable() bool
	// Bare reports whether modules were not preloaded because of Spec.Bare.
	Bare() bool
	// Renew waits, after a run, until the sandbox is as fresh as at its start. After
	// an error the sandbox must be closed.
	Renew(ctx context.Context) error
	// Resettable reports whether the sandbox can be reset after the run that it runs or
	// has run. It does not change from false to true.
	Resettable() bool
	// Reset has the sandbox start anew in place, and returns it as another Sandbox, which
	// is as fresh as at its start. This one is spent then. After an error it must be
	// closed.
	Reset(ctx context.Context) (Sandbox, error)
	// Check waits until the sandbox, which must be idle, has shown that it is alive.
	// After an error the sandbox must be closed.
	Check(ctx context.Context) error
	// Silent reports whether the sandbox was given up because it showed no sign of
	// life.
	Silent() bool
	// Doomed is closed when the sandbox is to go soon, so that it should begin no further
	// run. It is nil if that cannot happen.
	Doomed() <-chan struct{}
	// Done is closed when the sandbox has ended, by itself or by Close, or is
	// silent.
	Done() <-chan struct{}
	// Close ends the sandbox and returns when it is gone.
	Close() error
}
