// Package launch starts sandboxes and decides which isolation they have: whether one may
// serve many runs, each in a fresh inner sandbox, or serves one run.
package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// Starter starts instances, as [execution.Backend] does.
type Starter interface {
	Start(ctx context.Context, spec execution.Spec) (execution.Instance, error)
}

// sandbox is an open sandbox, as [runner.Open] returns it.
type sandbox interface {
	execution.Sandbox
	// PreloadFault returns what could not be imported ahead, and why. Empty where all could.
	PreloadFault() string
}

// readyTime bounds the start of a supervisor, which may import modules that take
// their time on a slow machine.
const readyTime = time.Minute

// Launcher starts sandboxes. Where the isolation is left to it, it decides:
// before the first container of a kind may serve many runs, programs in it must
// find every wall standing. Where they do not, each run gets a container of its
// own. It is safe for concurrent use.
type Launcher struct {
	backend Starter
	open    func(ctx context.Context, instance execution.Instance) (sandbox, error)
	log     *slog.Logger

	probing chan struct{} // holds one token; whoever has it may probe

	mu       sync.Mutex
	verdicts map[verdictKey]Verdict
}

// NewLauncher makes a Launcher. It tells log what it decides.
func NewLauncher(backend Starter, log *slog.Logger) *Launcher {
	open := func(ctx context.Context, instance execution.Instance) (sandbox, error) {
		return runner.Open(ctx, instance, log)
	}
	return &Launcher{
		backend: backend, open: open, log: log, probing: make(chan struct{}, 1), verdicts: make(map[verdictKey]Verdict),
	}
}

// Launch starts a sandbox and waits until it is ready.
func (l *Launcher) Launch(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	if spec.Isolation == execution.IsolationContainer {
		return l.start(ctx, spec)
	}
	if isolation, known := l.known(spec); known {
		return l.start(ctx, withIsolation(isolation, spec))
	}
	select { // one probe is enough: the others wait for what it finds
	case l.probing <- struct{}{}:
		defer func() { <-l.probing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if isolation, known := l.known(spec); known {
		return l.start(ctx, withIsolation(isolation, spec))
	}
	return l.launchUnknown(ctx, spec)
}

// launchUnknown probes, and decides.
func (l *Launcher) launchUnknown(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	opened, _, refusal := l.try(ctx, withIsolation(execution.IsolationRun, spec))
	switch {
	case refusal == nil:
		l.decide(ctx, spec, Verdict{Isolation: execution.IsolationRun})
		return opened, nil
	case ctx.Err() != nil:
		return nil, refusal
	case spec.Isolation == execution.IsolationRun:
		return nil, fmt.Errorf("ISOLATION=run cannot be had: %w", refusal)
	}
	// What keeps every container from starting says nothing about the isolation.
	single, err := l.start(ctx, withIsolation(execution.IsolationContainer, spec))
	if err != nil {
		return nil, err
	}
	verdict := Verdict{Isolation: execution.IsolationContainer, Refusal: refusal.Error()}
	if !errors.Is(refusal, errRefused) {
		verdict.doubted = time.Now().Add(doubtTime)
	}
	l.decide(ctx, spec, verdict)
	return single, nil
}

func withIsolation(isolation execution.Isolation, spec execution.Spec) execution.Spec {
	spec.Isolation = isolation
	return spec
}

func (l *Launcher) start(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	instance, err := l.backend.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return l.ready(ctx, instance)
}

// ready waits until the supervisor of an instance is ready.
func (l *Launcher) ready(ctx context.Context, instance execution.Instance) (sandbox, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTime, fmt.Errorf("it was not ready within %v", readyTime))
	defer cancel()
	opened, err := l.open(ctx, instance)
	if err != nil {
		return nil, err
	}
	if fault := opened.PreloadFault(); fault != "" {
		l.log.WarnContext(ctx, "not every module could be imported ahead", "reason", fault)
	}
	return opened, nil
}
