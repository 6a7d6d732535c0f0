// Package launch starts sandboxes and decides their isolation: whether a sandbox may serve
// many runs, each in a fresh inner sandbox, or serves one run.
//
// Where the setting leaves the choice open, the decision is a [Verdict]. It is made once for
// each image, runtime and class of machines, by a probe: programs in the first sandbox check
// that each barrier between runs holds. Which class a sandbox's machine has is known once it
// has started. A verdict stands for the life of the server, except for a refusal that
// may be temporary, such as an error of the engine: after a minute the next start probes
// again. Where the setting demands many runs, a refusal is an error and not a verdict, so
// each start probes again.
package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// Starter starts instances. An [execution.Backend] is one.
type Starter interface {
	Start(ctx context.Context, spec execution.Spec) (execution.Instance, error)
}

// sandbox is an open sandbox, as [runner.Open] returns it.
type sandbox interface {
	execution.Sandbox
	// PreloadFault returns which modules could not be preloaded, and why. It is empty if
	// all could.
	PreloadFault() string
}

// readyTime bounds the start of a supervisor, which may have to preload modules on a slow
// machine.
const readyTime = time.Minute

// Launcher starts sandboxes and decides their isolation. It is safe for concurrent use.
type Launcher struct {
	backend Starter
	open    func(ctx context.Context, instance execution.Instance) (sandbox, error)
	log     *slog.Logger

	probing *semaphore.Weighted // of one: its holder may probe

	mu       sync.Mutex // guards verdicts
	verdicts map[verdictKey]Verdict
}

// NewLauncher returns a Launcher that starts instances with backend. It logs each new
// verdict.
func NewLauncher(backend Starter, log *slog.Logger) *Launcher {
	open := func(ctx context.Context, instance execution.Instance) (sandbox, error) {
		return runner.Open(ctx, instance, log)
	}
	return &Launcher{
		backend: backend, open: open, log: log, probing: semaphore.NewWeighted(1), verdicts: make(map[verdictKey]Verdict),
	}
}

// Launch starts a sandbox and waits until it is ready. With [execution.IsolationContainer]
// the sandbox serves one run. With [execution.IsolationRun] it serves many, or Launch fails.
// With any other isolation the verdict decides, and if there is none yet, Launch probes.
func (l *Launcher) Launch(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	if spec.Isolation == execution.IsolationContainer {
		return l.start(ctx, spec)
	}
	if opened, decided, err := l.launchDecided(ctx, spec); decided {
		return opened, err
	}
	// One probe is enough: concurrent calls wait for its verdict.
	if l.probing.Acquire(ctx, 1) != nil {
		return nil, context.Cause(ctx)
	}
	defer l.probing.Release(1)
	if opened, decided, err := l.launchDecided(ctx, spec); decided {
		return opened, err
	}
	return l.launchUndecided(ctx, spec)
}

// launchDecided starts a sandbox of the isolation that was decided on. It reports false if
// none was, or not for machines of the class that the sandbox was started on.
func (l *Launcher) launchDecided(ctx context.Context, spec execution.Spec) (_ execution.Sandbox, decided bool, _ error) {
	isolation, known := l.known(spec)
	if !known {
		return nil, false, nil
	}
	instance, err := l.backend.Start(ctx, withIsolation(isolation, spec))
	if err != nil {
		return nil, true, err
	}
	class := l.see(spec, instance)
	if isolation == execution.IsolationContainer || class.Isolation == execution.IsolationRun {
		opened, err := l.ready(ctx, instance)
		return opened, true, err
	}
	if err := instance.Destroy(ctx); err != nil {
		return nil, true, err
	}
	if class.Isolation == "" {
		return nil, false, nil
	}
	opened, err := l.start(ctx, withIsolation(execution.IsolationContainer, spec))
	return opened, true, err
}

// launchUndecided probes, decides, and returns a sandbox of the isolation decided on.
func (l *Launcher) launchUndecided(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	opened, class, _, refusal := l.try(ctx, withIsolation(execution.IsolationRun, spec))
	switch {
	case refusal == nil:
		spec.Bare = opened.Bare()
		l.decide(ctx, keyOf(spec, class), Verdict{Isolation: execution.IsolationRun})
		return opened, nil
	case ctx.Err() != nil:
		return nil, refusal
	case spec.Isolation == execution.IsolationRun:
		return nil, fmt.Errorf("ISOLATION=run is not available here: %w", refusal)
	}
	// If no sandbox starts at all, the refusal does not show that one for many runs is impossible.
	single, err := l.start(ctx, withIsolation(execution.IsolationContainer, spec))
	if err != nil {
		return nil, err
	}
	spec.Bare = false // what refuses a bare one refuses all
	verdict := Verdict{Isolation: execution.IsolationContainer, Refusal: refusal.Error()}
	if !errors.Is(refusal, errRefused) {
		verdict.expires = time.Now().Add(temporaryTime)
	}
	l.decide(ctx, keyOf(spec, class), verdict)
	return single, nil
}

func withIsolation(isolation execution.Isolation, spec execution.Spec) execution.Spec {
	spec.Isolation = isolation
	return spec
}

// start starts a sandbox of a known isolation.
func (l *Launcher) start(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	instance, err := l.backend.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return l.ready(ctx, instance)
}

// ready waits until the supervisor of an instance is ready.
func (l *Launcher) ready(ctx context.Context, instance execution.Instance) (sandbox, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTime, fmt.Errorf("the sandbox was not ready within %v", readyTime))
	defer cancel()
	opened, err := l.open(ctx, instance)
	if err != nil {
		return nil, err
	}
	if fault := opened.PreloadFault(); fault != "" {
		l.log.WarnContext(ctx, "some modules could not be preloaded", "reason", fault)
	}
	return opened, nil
}
