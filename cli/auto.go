package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/execution/local"
	"github.com/vivarium-sandbox/vivarium/image"
)

// engineTime is how long an engine may take to answer before it counts as absent.
const engineTime = 3 * time.Second

// autoBackend is the backend of EXECUTOR_BACKEND=auto: Docker if an engine answers
// and has the image, and this machine otherwise.
//
// It decides on its first use, not before: the decision may take engineTime, and
// `vivarium stdio` must answer initialize at once. Then it keeps to its decision,
// so that answers never change under a client. While neither backend is available,
// each use fails and the next one decides again.
type autoBackend struct {
	engine *docker.Backend
	here   *local.Backend
	image  string
	// runArgs are flags for containers.
	runArgs string
	// engineOnly is set if a setting needs an engine.
	engineOnly bool
	log        *slog.Logger

	deciding chan struct{} // holds one token; its holder may decide
	decision atomic.Pointer[backend]
}

func newAuto(c config.Config, engine *docker.Backend, here *local.Backend, log *slog.Logger) *autoBackend {
	return &autoBackend{
		engine: engine, here: here, image: c.Image, runArgs: c.RunArgs.Text, engineOnly: c.NeedsEngine(), log: log, deciding: make(chan struct{}, 1),
	}
}

// get returns the backend, and decides which if that has not been done.
func (a *autoBackend) get(ctx context.Context) (backend, error) {
	if known := a.decision.Load(); known != nil {
		return *known, nil
	}
	select {
	case a.deciding <- struct{}{}:
		defer func() { <-a.deciding }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if known := a.decision.Load(); known != nil {
		return *known, nil
	}
	made, err := a.decide(ctx)
	if err != nil {
		return nil, err
	}
	a.decision.Store(&made)
	return made, nil
}

func (a *autoBackend) decide(ctx context.Context) (backend, error) {
	engineErr := a.checkEngine(ctx)
	if engineErr == nil || a.engineOnly {
		return a.engine, nil
	}
	if err := a.here.Health(ctx); err != nil {
		return nil, &execution.Error{
			Code: execution.Unavailable,
			Message: fmt.Sprintf("no sandbox is available: neither with an engine (%s) nor without one (%s)",
				execution.AsError(engineErr).Explain(), execution.AsError(err).Explain()),
			Err: errors.Join(engineErr, err),
		}
	}
	a.log.InfoContext(ctx, "sandboxes run on this machine without an engine; to use containers, start a Docker Engine and run `vivarium image build`",
		"reason", engineErr, "limits", a.here.Walls())
	warnRunArgs(a.runArgs, a.log)
	return a.here, nil
}

// checkEngine returns why the engine cannot be used, or nil.
func (a *autoBackend) checkEngine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	_, there, err := a.engine.Label(ctx, a.image, image.RecipeLabel)
	if err == nil && !there {
		return &execution.Error{Code: execution.Unavailable, Message: fmt.Sprintf("the image %s is not built", a.image)}
	}
	return err
}

// decided returns the backend that b stands for: for an autoBackend the one that it
// decided on, if it has, and b itself otherwise.
func decided(b backend) backend {
	if a, ok := b.(*autoBackend); ok {
		if known := a.decision.Load(); known != nil {
			return *known
		}
	}
	return b
}

// InstanceID returns the name of this server.
func (a *autoBackend) InstanceID() string {
	if known := a.decision.Load(); known != nil {
		return (*known).InstanceID()
	}
	return a.engine.InstanceID()
}

// Machine returns the engine's machine, if an engine answers, and this machine otherwise. It
// decides nothing.
func (a *autoBackend) Machine(ctx context.Context) (execution.Machine, error) {
	machine, err := a.engine.Machine(ctx)
	if err == nil || a.engineOnly {
		return machine, err
	}
	return a.here.Machine(ctx)
}

// Close closes both backends.
func (a *autoBackend) Close() error { return errors.Join(a.engine.Close(), a.here.Close()) }

// forward calls the backend that a decides on.
func forward[T any](ctx context.Context, a *autoBackend, call func(backend) (T, error)) (T, error) {
	b, err := a.get(ctx)
	if err != nil {
		var none T
		return none, err
	}
	return call(b)
}

// Resolve implements [execution.Backend].
func (a *autoBackend) Resolve(ctx context.Context, image string) (string, error) {
	return forward(ctx, a, func(b backend) (string, error) { return b.Resolve(ctx, image) })
}

// Start implements [execution.Backend].
func (a *autoBackend) Start(ctx context.Context, spec execution.Spec) (execution.Instance, error) {
	return forward(ctx, a, func(b backend) (execution.Instance, error) { return b.Start(ctx, spec) })
}

// Sweep implements [execution.Backend].
func (a *autoBackend) Sweep(ctx context.Context) (int, error) {
	return forward(ctx, a, func(b backend) (int, error) { return b.Sweep(ctx) })
}

// Health implements [execution.Backend].
func (a *autoBackend) Health(ctx context.Context) error {
	_, err := forward(ctx, a, func(b backend) (struct{}, error) { return struct{}{}, b.Health(ctx) })
	return err
}

// Attach implements [execution.SessionBackend].
func (a *autoBackend) Attach(ctx context.Context, id string) (execution.Instance, error) {
	return forward(ctx, a, func(b backend) (execution.Instance, error) { return b.Attach(ctx, id) })
}

// Find implements [execution.SessionBackend].
func (a *autoBackend) Find(ctx context.Context, id string) (execution.SessionInfo, error) {
	return forward(ctx, a, func(b backend) (execution.SessionInfo, error) { return b.Find(ctx, id) })
}

// Owned implements [execution.SessionBackend].
func (a *autoBackend) Owned(ctx context.Context, owner execution.Owner) ([]execution.SessionInfo, error) {
	return forward(ctx, a, func(b backend) ([]execution.SessionInfo, error) { return b.Owned(ctx, owner) })
}

// Count implements [execution.SessionBackend].
func (a *autoBackend) Count(ctx context.Context, owner execution.Owner, except []string) (own, all int, err error) {
	b, err := a.get(ctx)
	if err != nil {
		return 0, 0, err
	}
	return b.Count(ctx, owner, except)
}

// Announce implements [execution.SessionBackend].
func (a *autoBackend) Announce(ctx context.Context, session execution.SessionInfo) error {
	_, err := forward(ctx, a, func(b backend) (struct{}, error) { return struct{}{}, b.Announce(ctx, session) })
	return err
}

// End implements [execution.SessionBackend].
func (a *autoBackend) End(ctx context.Context, id string) error {
	_, err := forward(ctx, a, func(b backend) (struct{}, error) { return struct{}{}, b.End(ctx, id) })
	return err
}
