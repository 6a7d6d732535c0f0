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
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
	"github.com/vivarium-sandbox/vivarium/image"
)

// engineTime is how long an engine gets to answer before sandboxes are made
// without it.
const engineTime = 3 * time.Second

// Names of backends, as EXECUTOR_BACKEND has them.
const (
	backendAuto   = "auto"
	backendDocker = "docker"
	backendLocal  = "local"
)

// backend is where sandboxes come from.
type backend interface {
	execution.SessionBackend
	// InstanceID names this server.
	InstanceID() string
	Close() error
}

// newBackend makes the backend that the settings name. It asks nobody yet.
func newBackend(c config.Config, system System, log *slog.Logger) (backend, error) {
	switch c.Backend {
	case backendDocker:
		return newDocker(c, system)
	case backendLocal:
		return newLocal(c)
	}
	engine, err := newDocker(c, system)
	if err != nil {
		return nil, err
	}
	here, err := newLocal(c)
	if err != nil {
		return nil, err
	}
	return newChoice(c, engine, here, log), nil
}

// newDocker connects to the engine that the settings name. What pulls and
// builds say goes to stderr.
func newDocker(c config.Config, system System) (*docker.Backend, error) {
	home, _ := system.Lookup("HOME")
	command, err := supervisor.NewCommand()
	if err != nil {
		return nil, err
	}
	return docker.New(docker.Options{
		Command: command.Line, Environment: supervisor.Environment(), Workspace: supervisor.Workspace,
		Lifetime: lifetime(c), Host: c.DockerHost, Context: c.DockerContext, ConfigDir: c.DockerConfigDir(home),
		Provide: provide(system.Stderr), Progress: system.Stderr,
	})
}

// newLocal makes the backend that needs no engine.
func newLocal(c config.Config) (*local.Backend, error) {
	command, err := supervisor.NewCommand()
	if err != nil {
		return nil, err
	}
	return local.New(local.Options{
		Command: command, Environment: supervisor.Environment(), Workspace: supervisor.Workspace,
		Python: c.LocalPython, Rootfs: c.LocalRootfs,
	})
}

// choice is the backend of EXECUTOR_BACKEND=auto: Docker where an engine answers
// and the image is there, this machine otherwise. It chooses when it is first asked
// for something, and then keeps to it, so that answers never change under a client.
// Where neither can be had it says so, and looks again the next time.
type choice struct {
	engine *docker.Backend
	here   *local.Backend
	image  string
	// engineOnly is set where the settings ask for what an engine alone has.
	engineOnly bool
	log        *slog.Logger

	choosing chan struct{} // holds one token; whoever has it may choose
	chosen   atomic.Pointer[chosen]
}

// chosen holds a backend, for it to be set at once.
type chosen struct{ backend }

func newChoice(c config.Config, engine *docker.Backend, here *local.Backend, log *slog.Logger) *choice {
	return &choice{
		engine: engine, here: here, image: c.Image, engineOnly: c.NeedsEngine(), log: log, choosing: make(chan struct{}, 1),
	}
}

// get gives the backend, and chooses it if that has not been done.
func (c *choice) get(ctx context.Context) (backend, error) {
	if known := c.chosen.Load(); known != nil {
		return known, nil
	}
	select {
	case c.choosing <- struct{}{}:
		defer func() { <-c.choosing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if known := c.chosen.Load(); known != nil {
		return known, nil
	}
	made, err := c.choose(ctx)
	if err != nil {
		return nil, err
	}
	c.chosen.Store(made)
	return made, nil
}

func (c *choice) choose(ctx context.Context) (*chosen, error) {
	lacking := c.engineFault(ctx)
	if lacking == nil || c.engineOnly {
		return &chosen{c.engine}, nil
	}
	if err := c.here.Health(ctx); err != nil {
		return nil, &execution.Error{
			Code: execution.Unavailable,
			Message: fmt.Sprintf("no sandbox can be had: neither with an engine (%s) nor without one (%s)",
				execution.AsError(lacking).Explain(), execution.AsError(err).Explain()),
			Err: errors.Join(lacking, err),
		}
	}
	c.log.InfoContext(ctx, "sandboxes are made on this machine, without an engine; to have containers, start a Docker Engine and run `vivarium image build`",
		"reason", lacking, "limits", c.here.Walls())
	return &chosen{c.here}, nil
}

// engineFault says why the engine is not chosen, or nil.
func (c *choice) engineFault(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	_, there, err := c.engine.Label(ctx, c.image, image.RecipeLabel)
	if err == nil && !there {
		return &execution.Error{Code: execution.Unavailable, Message: fmt.Sprintf("the image %s is not built", c.image)}
	}
	return err
}

// InstanceID names this server.
func (c *choice) InstanceID() string {
	if known := c.chosen.Load(); known != nil {
		return known.InstanceID()
	}
	return c.engine.InstanceID()
}

// Close closes both.
func (c *choice) Close() error { return errors.Join(c.engine.Close(), c.here.Close()) }

// Resolve implements [execution.Backend].
func (c *choice) Resolve(ctx context.Context, image string) (string, error) {
	b, err := c.get(ctx)
	if err != nil {
		return "", err
	}
	return b.Resolve(ctx, image)
}

// Start implements [execution.Backend].
func (c *choice) Start(ctx context.Context, spec execution.Spec) (execution.Instance, error) {
	b, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	return b.Start(ctx, spec)
}

// Sweep implements [execution.Backend].
func (c *choice) Sweep(ctx context.Context) (int, error) {
	b, err := c.get(ctx)
	if err != nil {
		return 0, err
	}
	return b.Sweep(ctx)
}

// Health implements [execution.Backend].
func (c *choice) Health(ctx context.Context) error {
	b, err := c.get(ctx)
	if err != nil {
		return err
	}
	return b.Health(ctx)
}

// Attach implements [execution.SessionBackend].
func (c *choice) Attach(ctx context.Context, id string) (execution.Instance, error) {
	b, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	return b.Attach(ctx, id)
}

// Sessions implements [execution.SessionBackend].
func (c *choice) Sessions(ctx context.Context) ([]execution.SessionInfo, error) {
	b, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	return b.Sessions(ctx)
}

// End implements [execution.SessionBackend].
func (c *choice) End(ctx context.Context, id string) error {
	b, err := c.get(ctx)
	if err != nil {
		return err
	}
	return b.End(ctx, id)
}

// nameOf names a backend as EXECUTOR_BACKEND does, "" as long as it is not chosen.
func nameOf(b backend) string {
	switch taken(b).(type) {
	case *docker.Backend:
		return backendDocker
	case *local.Backend:
		return backendLocal
	}
	return ""
}

// engineOf gives the engine that is used, if one is.
func engineOf(b backend) (*docker.Backend, bool) {
	engine, ok := taken(b).(*docker.Backend)
	return engine, ok
}

// taken gives the backend that was chosen, or b where there is no choice, or none
// has been made.
func taken(b backend) backend {
	if c, ok := b.(*choice); ok {
		if known := c.chosen.Load(); known != nil {
			return known.backend
		}
	}
	return b
}
