package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/execution/launch"
	"github.com/vivarium-sandbox/vivarium/image"
)

func doctorCommand(system System) *cobra.Command {
	var engineOnly bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Report whether sandboxes are available, and what to change if not",
		Long:  "Check the engine and the sandbox image, or what is used without them, and how runs are isolated. The exit code is 1 if something is missing.",
		Example: `  vivarium doctor
  vivarium doctor --engine`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return examine(cmd.Context(), system, engineOnly)
		},
	}
	cmd.Flags().BoolVar(&engineOnly, "engine", false, "check only the engine")
	return cmd
}

// mark is the result of one check.
type mark string

const (
	good    mark = "ok"
	slower  mark = "slower"  // it does not work, and a slower way is used
	absent  mark = "absent"  // it is optional, and not there
	missing mark = "missing" // no sandbox works without it
	open    mark = "open"    // a limit does not hold on this machine
)

// finder prints a finding.
type finder func(m mark, format string, args ...any)

func examine(ctx context.Context, system System, engineOnly bool) (err error) {
	c, _, err := settings(ctx, system)
	if err != nil {
		return err
	}
	finding := func(m mark, format string, args ...any) {
		if m == missing {
			err = exitError(exitFailure)
		}
		_, _ = fmt.Fprintf(system.Stdout, "%-7s  "+format+"\n", append([]any{m}, args...)...)
	}
	if !engineOnly {
		if err := examineFiles(ctx, c, finding); err != nil {
			return err
		}
	}
	if c.Backend == backendLocal && !engineOnly {
		fault := examineLocal(ctx, c, finding)
		return errors.Join(fault, err) // a finding may have set err meanwhile
	}
	if c.Backend == backendKubernetes && !engineOnly {
		fault := examineCluster(ctx, c, finding)
		return errors.Join(fault, err)
	}
	engine, err := newDocker(c, system)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	if engineOnly {
		examineEngine(ctx, engine, finding)
		return err
	}
	if c.Backend == backendAuto && !c.NeedsEngine() {
		return errors.Join(examineAuto(ctx, engine, c, finding), err)
	}
	if examineEngine(ctx, engine, finding) && examineImage(ctx, engine, c.Image, finding) {
		examineIsolation(ctx, engine, c, finding)
	}
	return err
}

// examineAuto examines the engine, and the backend without one if the engine or the
// image is missing.
func examineAuto(ctx context.Context, engine *docker.Backend, c config.Config, finding finder) error {
	optional := func(m mark, format string, args ...any) {
		if m == missing {
			m = absent
		}
		finding(m, format, args...)
	}
	if examineEngine(ctx, engine, optional) && examineImage(ctx, engine, c.Image, optional) {
		examineIsolation(ctx, engine, c, finding)
		return nil
	}
	return examineLocal(ctx, c, finding)
}

// examineFiles examines the file store.
func examineFiles(ctx context.Context, c config.Config, finding finder) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	files, err := openFiles(ctx, c, slog.New(slog.DiscardHandler))
	if err != nil {
		finding(missing, "no files can be stored: %s", oneLine(err))
		return nil
	}
	return files.Close()
}

// examineEngine reports whether the engine answers.
func examineEngine(ctx context.Context, engine *docker.Backend, finding finder) bool {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	version, err := engine.Version(ctx)
	if err != nil {
		domain := execution.AsError(err)
		finding(missing, "%s (%v); to change that, %s", domain.Explain(), domain.Err, remedy(err))
		return false
	}
	finding(good, "Docker Engine %s answers at %s", version, engine.Host())
	return true
}

// examineLocal examines the backend without an engine.
func examineLocal(ctx context.Context, c config.Config, finding finder) error {
	here, err := newLocal(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := here.Health(ctx); err != nil {
		domain := execution.AsError(err)
		why := domain.Explain()
		if domain.Err != nil {
			why += fmt.Sprintf(" (%v)", domain.Err)
		}
		finding(missing, "without an engine: %s", why)
		return nil
	}
	finding(good, "sandboxes run on this machine without an engine; their memory and processes are limited by %s", here.Walls())
	if python, err := here.Interpreter(ctx); err == nil {
		finding(good, "programs run with %s", python)
	}
	if _, err := here.Owned(ctx, ""); err != nil {
		finding(missing, "sessions are not available: %s", execution.AsError(err).Explain())
	}
	examineIsolation(ctx, here, c, finding)
	return here.Close()
}

// examineCluster examines the backend of a cluster.
func examineCluster(ctx context.Context, c config.Config, finding finder) error {
	cluster, err := newCluster(c, slog.New(slog.DiscardHandler))
	if err != nil {
		finding(missing, "%s", oneLine(err))
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	examinePods(bounded, cluster, finding)
	if err := cluster.Health(bounded); err != nil {
		finding(missing, "%s", execution.AsError(err).Explain())
		return cluster.Close()
	}
	examineIsolation(ctx, cluster, c, finding)
	return cluster.Close()
}

// examineIsolation starts a sandbox with the settings. If it is to serve many runs,
// it also runs the probe in it.
func examineIsolation(ctx context.Context, backend backend, c config.Config, finding finder) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	digest, err := backend.Resolve(ctx, c.Image)
	if err != nil {
		finding(missing, "%s", execution.AsError(err).Explain())
		return
	}
	launcher := launch.NewLauncher(backend, slog.New(slog.DiscardHandler))
	if c, err = fit(ctx, c, backend, slog.New(slog.DiscardHandler)); err != nil {
		finding(missing, "%s", oneLine(err))
		return
	}
	finding(good, "a sandbox has %d MB of memory (MEMORY_LIMIT_MB), of which files take at most %d MB (WORKSPACE_LIMIT_MB) and %d MB (TMP_LIMIT_MB)",
		c.MemoryLimitMB, c.WorkspaceLimitMB, c.TmpLimitMB)
	spec := execution.Spec{Image: digest, Settings: sandboxSettings(c)}
	var refusal error
	if spec.Isolation != execution.IsolationContainer {
		if refusal = probe(ctx, launcher, spec, finding); refusal == nil {
			finding(good, "a sandbox can serve many runs, each in a fresh inner one")
			examineLimits(ctx, launcher, spec, finding)
			return
		}
	}
	// The cause may keep every sandbox from starting.
	if err := startOne(ctx, launcher, spec); err != nil {
		finding(missing, "no sandbox can be started: %s", oneLine(nameSetting(c, err)))
		return
	}
	defer examineLimits(ctx, launcher, spec, finding)
	switch spec.Isolation {
	case execution.IsolationContainer:
		finding(good, "ISOLATION=container: each run gets a sandbox of its own")
	case execution.IsolationRun:
		finding(missing, "ISOLATION=run is not available: %s; to change that, %s", oneLine(refusal), remedy(refusal))
	default:
		finding(slower, "each run gets a sandbox of its own, which is slow: a sandbox cannot serve many runs here (%s); to change that, %s",
			oneLine(refusal), remedy(refusal))
	}
}

// probe prints what holds in a sandbox that serves many runs. It fails if there is
// no such sandbox, or something does not hold.
func probe(ctx context.Context, launcher *launch.Launcher, spec execution.Spec, finding finder) error {
	findings, err := launcher.Probe(ctx, spec)
	lacking := slower
	if spec.Isolation == execution.IsolationRun {
		lacking = missing
	}
	for _, f := range findings {
		if f.Holds {
			finding(good, "in a sandbox that serves many runs: %s", f.Name)
		} else {
			finding(lacking, "does not hold in a sandbox that serves many runs: %s", f.Name)
		}
	}
	return err
}

// examineLimits prints which of the limits hold that no cgroup enforces.
func examineLimits(ctx context.Context, launcher *launch.Launcher, spec execution.Spec, finding finder) {
	findings, err := launcher.Limits(ctx, spec)
	for _, f := range findings {
		if f.Holds {
			finding(good, "limits: %s", f.Name)
		} else {
			finding(open, "limits: this does not hold: %s (docs/security.md)", f.Name)
		}
	}
	if err != nil {
		finding(open, "limits could not be examined: %s", oneLine(err))
	}
}

// startOne starts a sandbox that serves one run.
func startOne(ctx context.Context, launcher *launch.Launcher, spec execution.Spec) error {
	spec.Isolation = execution.IsolationContainer
	sandbox, err := launcher.Launch(ctx, spec)
	if err != nil {
		return err
	}
	return sandbox.Close()
}

// oneLine returns an error's text on one line. It may contain output of a sandbox.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// examineImage reports whether the image is there.
func examineImage(ctx context.Context, backend *docker.Backend, ref string, finding finder) bool {
	recipe, there, err := backend.Label(ctx, ref, image.RecipeLabel)
	_, ours := image.ByTag(ref)
	switch {
	case err != nil:
		finding(missing, "the image %s: %s", ref, execution.AsError(err).Explain())
	case !there && ours:
		finding(missing, "the image %s is not built; to build it: `vivarium image build`", ref)
	case !there:
		finding(missing, "the image %s is not here; to fetch it: `docker pull %s`", ref, ref)
	case ours && recipe != image.Recipe():
		finding(good, "the image %s is here, but was built from the recipe of another version; to rebuild it: `vivarium image build`", ref)
	default:
		finding(good, "the image %s is here", ref)
	}
	return err == nil && there
}
