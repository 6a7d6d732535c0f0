package executiontest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Sandbox is an [execution.Sandbox] in memory. Make it with [NewSandbox].
type Sandbox struct {
	program Program
	done    chan struct{}
	end     sync.Once

	mu     sync.Mutex
	spent  bool
	closed int
}

// Reusable returns false: the sandbox runs one program.
func (s *Sandbox) Reusable() bool { return false }

// Renew fails: see Reusable.
func (s *Sandbox) Renew(context.Context) error {
	return errors.New("the sandbox has run its one program")
}

// Resettable returns false: see Reusable.
func (s *Sandbox) Resettable() bool { return false }

// Reset fails: see Reusable.
func (s *Sandbox) Reset(context.Context) (execution.Sandbox, error) {
	return nil, errors.New("the sandbox cannot start anew")
}

// Check fails where the sandbox has ended.
func (s *Sandbox) Check(context.Context) error {
	select {
	case <-s.done:
		return errors.New("the sandbox has ended")
	default:
		return nil
	}
}

// Bare reports false: the sandbox has no modules to leave out.
func (s *Sandbox) Bare() bool { return false }

// Silent reports false: the sandbox cannot freeze.
func (s *Sandbox) Silent() bool { return false }

var _ execution.Sandbox = (*Sandbox)(nil)

// NewSandbox returns a sandbox that waits for its one run.
func NewSandbox(program Program) *Sandbox {
	return &Sandbox{program: program, done: make(chan struct{})}
}

// Run runs the program. In a sandbox that has ended, or has run a program, it returns
// an error that wraps [execution.ErrNotStarted].
func (s *Sandbox) Run(ctx context.Context, req execution.Request, _ execution.Limits) (*execution.Result, error) {
	if !s.spend() {
		return nil, execution.ErrNotStarted
	}
	programCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := time.Now()
	over := make(chan Outcome, 1)
	go func() { over <- s.program.run(programCtx, req) }()
	result := &execution.Result{Started: started, End: execution.End{Reason: execution.Exited}}
	select {
	case outcome := <-over:
		result.Stdout, result.Stderr = outcome.Stdout, outcome.Stderr
		result.ExitCode = &outcome.ExitCode
		keepAll(ctx, req, outcome.Files, result)
	case <-s.done:
		killed := 137
		result.ExitCode, result.End.Reason = &killed, execution.SandboxLost
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	result.Duration = time.Since(started)
	return result, nil
}

// spend reports whether the sandbox may run a program. It may once.
func (s *Sandbox) spend() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done:
		return false
	default:
	}
	fresh := !s.spent
	s.spent = true
	return fresh
}

// Die ends the sandbox from within, as one that the kernel killed.
func (s *Sandbox) Die() { s.end.Do(func() { close(s.done) }) }

// Doomed returns nil: the sandbox has no machine that could go.
func (s *Sandbox) Doomed() <-chan struct{} { return nil }

// Done is closed when the sandbox has ended.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// Close ends the sandbox.
func (s *Sandbox) Close() error {
	s.Die()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

// Closed returns how often Close was called.
func (s *Sandbox) Closed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
