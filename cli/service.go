package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/execution/launch"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
	"github.com/vivarium-sandbox/vivarium/execution/session"
	"github.com/vivarium-sandbox/vivarium/image"
)

const (
	// sweepEvery is how often stray sandboxes are removed.
	sweepEvery = time.Minute
	// startTime bounds the start of one sandbox.
	startTime = time.Minute
	// closeTime bounds the end of all sandboxes at shutdown.
	closeTime = 15 * time.Second
	// healthTime bounds a question to the engine.
	healthTime = 5 * time.Second
	// rememberedImages is how many digests are kept.
	rememberedImages = 16
)

// service runs programs. All commands that do so share it.
type service struct {
	backend  backend
	launcher *launch.Launcher
	pool     *pool.Pool
	keeper   *pool.Keeper
	executor *execution.Executor
	sessions *session.Manager
	peers    *peers // nil if no other server shares the sessions
	log      *slog.Logger
	// config has the settings, of which some follow the machine that the sandboxes run on.
	config config.Config
}

// newService builds the service. It starts nothing. It contacts no engine yet, except to ask
// for its machine, which settings follow.
func newService(ctx context.Context, c config.Config, system System, log *slog.Logger) (*service, error) {
	warnIgnored(c, log)
	backend, err := newBackend(c, system, log)
	if err != nil {
		return nil, err
	}
	c, err = fit(ctx, c, backend, log)
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	launcher := launch.NewLauncher(backend, log)
	start := func(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
		ctx, cancel := context.WithTimeout(ctx, startTime)
		defer cancel()
		sandbox, err := launcher.Launch(ctx, spec)
		return sandbox, nameSetting(c, err)
	}
	sandboxes, err := pool.New(start, pool.Options{
		Target: c.PoolSize, Max: c.MaxSandboxes, Starts: c.PoolStarts, AtWork: c.AtWork(),
		IdleAfter: seconds(c.PoolIdleSec), MaxAge: seconds(c.SandboxMaxAge), MaxRuns: c.SandboxMaxRuns, Log: log,
	})
	if err != nil {
		return nil, err
	}
	digests, err := pool.NewDigests(backend, rememberedImages)
	if err != nil {
		return nil, err
	}
	peers, err := newPeers(c, backend)
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	keeper := &pool.Keeper{Pool: sandboxes, Digests: digests, Image: c.Image, Settings: sandboxSettings(c)}
	return &service{
		backend: backend, launcher: launcher, pool: sandboxes, keeper: keeper, log: log, config: c,
		executor: execution.NewExecutor(keeper, execution.Options{Limits: limits(c), MaxInFlight: c.MaxSandboxes + c.QueueSize}),
		sessions: newSessions(c, backend, digests, peers, log), peers: peers,
	}, nil
}

func newSessions(c config.Config, backend backend, digests *pool.Digests, peers *peers, log *slog.Logger) *session.Manager {
	opts := session.Options{
		Host: runner.NewSessions(backend, log), Limits: limits(c), Max: c.MaxSessions, MaxAge: seconds(c.SessionMaxAge), Log: log,
		Spec: func(ctx context.Context) (execution.Spec, error) {
			digest, err := digests.Get(ctx, c.Image)
			return execution.Spec{Image: digest, Settings: sandboxSettings(c)}, err
		},
	}
	if _, many := backend.(execution.Holders); many { // connections are over a network, and to many machines
		opts.LinkIdle = seconds(c.SessionLinkIdle)
	}
	if peers != nil {
		opts.Handover = peers
	}
	return session.New(opts)
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// lifetime returns the highest age of a container: idle until it is replaced, also while
// starts fail, then one run, and a margin.
func lifetime(c config.Config) time.Duration {
	return seconds(c.SandboxMaxAge) + milliseconds(c.MaxExecTimeoutMS) + pool.AgeGrace + 5*time.Minute
}

func sandboxSettings(c config.Config) execution.Settings {
	return execution.Settings{
		Isolation: execution.Isolation(c.Isolation), Preload: c.PreloadModules,
		Network: c.Network, Runtime: c.Runtime, MemoryBytes: int64(c.MemoryLimitMB) << 20, CPUs: c.CPULimit,
		Processes: int64(c.PidsLimit), Ptys: int64(c.PtyLimit), WorkspaceBytes: int64(c.WorkspaceLimitMB) << 20, TempBytes: int64(c.TmpLimitMB) << 20,
	}
}

func limits(c config.Config) execution.Limits {
	return execution.Limits{
		MaxTimeout: milliseconds(c.MaxExecTimeoutMS), CPUTime: seconds(c.CPUTimeLimitSec), OutputBytes: c.MaxOutputBytes,
		WorkspaceBytes: int64(c.WorkspaceLimitMB) << 20, ResultFiles: c.MaxResultFiles,
		ResultFileBytes: int64(c.MaxFileSizeMB) << 20, ResultBytes: int64(c.MaxResultMB) << 20,
		CPUs: c.CPULimit, MemoryBytes: int64(c.MemoryLimitMB) << 20,
	}
}

// provide returns a function that builds missing images, if package image has their recipe.
func provide(progress io.Writer) func(context.Context, *docker.Backend, string) (bool, error) {
	return func(ctx context.Context, b *docker.Backend, ref string) (bool, error) {
		variant, ours := image.ByTag(ref)
		if !ours {
			return false, nil
		}
		return true, image.Make(ctx, builder{b}, variant, progress)
	}
}

// health returns why no sandbox is available, or nil.
func (s *service) health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	if err := s.backend.Health(ctx); err != nil {
		return err
	}
	return s.keeper.Health()
}

// backendName returns the name of the backend, or "" while it is undecided.
func (s *service) backendName() string { return nameOf(s.backend) }

// isolation returns how runs are isolated, "" while that is unknown, and why not
// better.
func (s *service) isolation() (isolation, reason string) {
	spec, known := s.keeper.Known()
	if !known {
		return "", ""
	}
	spec.Bare = true // the first ones may be
	verdict := s.launcher.Verdict(spec)
	return string(verdict.Isolation), verdict.Refusal
}

// require fails if the settings ask for a sandbox that this machine cannot have. It
// does not fail for what may still change: an engine may start, and an image may be
// built. In that case each start of a sandbox fails until then.
func (s *service) require(ctx context.Context, c config.Config) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if cluster, ok := s.backend.(interface {
		Check(ctx context.Context) error
	}); ok {
		if err := cluster.Check(ctx); err != nil {
			return err
		}
		if err := s.backend.Health(ctx); err != nil { // blank pods may still come
			s.log.WarnContext(ctx, "no sandbox is available yet", "error", err)
		}
	} else if c.Backend != backendDocker {
		if err := s.backend.Health(ctx); err != nil && nameOf(s.backend) != backendDocker {
			return err
		}
	}
	if c.Isolation != string(execution.IsolationRun) || !s.isReady(ctx, c) {
		return nil
	}
	digest, err := s.backend.Resolve(ctx, c.Image)
	if err != nil {
		return err
	}
	_, err = s.launcher.Probe(ctx, execution.Spec{Image: digest, Settings: sandboxSettings(c)})
	if err != nil {
		return fmt.Errorf("ISOLATION is \"run\", which is not available here (%s); \"auto\" would fall back to \"container\": %w",
			remedy(err), nameSetting(c, err))
	}
	return nil
}

// isReady reports whether sandboxes can start at once.
func (s *service) isReady(ctx context.Context, c config.Config) bool {
	if s.backend.Health(ctx) != nil {
		return false
	}
	engine, ok := engineOf(s.backend)
	if !ok {
		return true
	}
	_, there, err := engine.Label(ctx, c.Image, image.RecipeLabel)
	return err == nil && there
}

// background runs tasks. It returns a function that stops them and waits for them;
// it may be called more than once.
func (s *service) background(ctx context.Context, tasks ...func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, task := range tasks {
		running.Go(func() { task(ctx) })
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// warm prepares sandboxes until one attempt succeeds: the engine may be down, or
// the image not there yet. It calls tell with the outcome of each attempt.
func (s *service) warm(tell func(ctx context.Context, err error)) func(ctx context.Context) {
	const pause = 10 * time.Second
	return func(ctx context.Context) {
		for {
			err := s.keeper.Warm(ctx)
			if ctx.Err() != nil {
				return
			}
			tell(ctx, err)
			if err == nil {
				return
			}
			s.log.WarnContext(ctx, "no sandbox is available yet", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}
}

// sweep removes stray sandboxes regularly until ctx ends.
func (s *service) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	failing := false
	for {
		removed, err := s.backend.Sweep(ctx)
		switch {
		case err != nil && !failing && ctx.Err() == nil: // one warning for each series of failures
			s.log.WarnContext(ctx, "removing stray sandboxes failed", "error", err)
		case removed > 0:
			s.log.WarnContext(ctx, "removed stray sandboxes", "count", removed)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// close ends the service. Running programs may finish within grace. Then all
// sandboxes end, except those of sessions, which the next server finds.
func (s *service) close(grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var calls sync.WaitGroup
	calls.Go(func() {
		if err := s.sessions.Close(ctx); err != nil {
			s.log.Warn("cancelling calls of sessions that still run", "error", err)
		}
	})
	if err := s.executor.Close(ctx); err != nil {
		s.log.Warn("stopping programs that still run", "error", err)
	}
	calls.Wait()
	ctx, cancel = context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return errors.Join(s.pool.Close(ctx), s.backend.Close())
}
