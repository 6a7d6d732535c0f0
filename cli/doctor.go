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
	"github.com/vivarium-sandbox/vivarium/execution/runner"
	"github.com/vivarium-sandbox/vivarium/image"
)

func doctorCommand(system System) *cobra.Command {
	var engineOnly bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say whether sandboxes can be had here, and what to change if not",
		Long:  "Check the engine, the sandbox image, and how far runs can be apart. The exit code is 1 when something is missing.",
		Example: `  vivarium doctor
  vivarium doctor --engine`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return examine(cmd.Context(), system, engineOnly)
		},
	}
	cmd.Flags().BoolVar(&engineOnly, "engine", false, "check the engine alone")
	return cmd
}

// mark is the doctor's verdict on one thing.
type mark string

const (
	good    mark = "ok"
	slower  mark = "slower"  // there is a way around it, which is what happens
	missing mark = "missing" // nothing goes without it
)

// finder writes a finding down.
type finder func(m mark, format string, args ...any)

func examine(ctx context.Context, system System, engineOnly bool) (err error) {
	c, _, err := settings(ctx, system)
	if err != nil {
		return err
	}
	backend, err := newBackend(c, system)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	brief, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	finding := func(m mark, format string, args ...any) {
		if m == missing {
			err = exitError(exitFailure)
		}
		_, _ = fmt.Fprintf(system.Stdout, "%-7s  "+format+"\n", append([]any{m}, args...)...)
	}
	version, fault := backend.Version(brief)
	if fault != nil {
		domain := execution.AsError(fault)
		finding(missing, "%s (%v); to change that, %s", domain.Explain(), domain.Err, remedy(fault))
		return err
	}
	finding(good, "Docker Engine %s answers at %s", version, backend.Host())
	if !engineOnly && examineImage(brief, backend, c.Image, finding) {
		examineIsolation(ctx, backend, c, finding)
	}
	return err
}

// examineIsolation starts a sandbox as the settings have it. Where a container
// is to serve many runs, programs look around in it.
func examineIsolation(ctx context.Context, backend *docker.Backend, c config.Config, finding finder) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	digest, err := backend.Resolve(ctx, c.Image)
	if err != nil {
		finding(missing, "the image %s: %s", c.Image, execution.AsError(err).Explain())
		return
	}
	launcher := runner.NewLauncher(backend, slog.New(slog.DiscardHandler))
	spec := execution.Spec{Image: digest, Settings: sandboxSettings(c)}
	var refusal error
	if spec.Isolation != execution.IsolationContainer {
		if refusal = probe(ctx, launcher, spec, finding); refusal == nil {
			finding(good, "a container can serve many runs, each in a fresh inner sandbox")
			return
		}
	}
	// What keeps a container from serving many runs may keep every container from starting.
	if err := startOne(ctx, launcher, spec); err != nil {
		finding(missing, "no sandbox can be started: %s", oneLine(nameSetting(c, err)))
		return
	}
	switch spec.Isolation {
	case execution.IsolationContainer:
		finding(good, "ISOLATION=container: each run gets a container of its own")
	case execution.IsolationRun:
		finding(missing, "ISOLATION=run cannot be had: %s; to change that, %s", oneLine(refusal), remedy(refusal))
	default:
		finding(slower, "each run gets a container of its own, which is slow: a container cannot serve many here (%s); to change that, %s",
			oneLine(refusal), remedy(refusal))
	}
}

// probe says what holds in a sandbox that serves many runs. The error says why
// there is none, or what does not hold.
func probe(ctx context.Context, launcher *runner.Launcher, spec execution.Spec, finding finder) error {
	findings, err := launcher.Probe(ctx, spec)
	lacking := slower
	if spec.Isolation == execution.IsolationRun {
		lacking = missing
	}
	for _, f := range findings {
		if f.Holds {
			finding(good, "in a container that serves many runs: %s", f.Name)
		} else {
			finding(lacking, "does not hold in a container that serves many runs: %s", f.Name)
		}
	}
	return err
}

// startOne starts a sandbox that serves one run.
func startOne(ctx context.Context, launcher *runner.Launcher, spec execution.Spec) error {
	spec.Isolation = execution.IsolationContainer
	sandbox, err := launcher.Launch(ctx, spec)
	if err != nil {
		return err
	}
	return sandbox.Close()
}

// oneLine is an error's text, which may have a sandbox's last words in it.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// examineImage says whether the image is there.
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
		finding(good, "the image %s is here, built from another recipe than this version's; to build it: `vivarium image build`", ref)
	default:
		finding(good, "the image %s is here", ref)
	}
	return err == nil && there
}
