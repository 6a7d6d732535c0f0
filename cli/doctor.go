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
		finding(missing, "%s", execution.AsError(fault).Explain())
		return err
	}
	finding(good, "Docker Engine %s answers at %s", version, backend.Host())
	if !engineOnly && examineImage(brief, backend, c.Image, finding) {
		examineIsolation(ctx, backend, c, finding)
	}
	return err
}

// examineIsolation has programs look around in a sandbox that serves many runs.
func examineIsolation(ctx context.Context, backend *docker.Backend, c config.Config, finding finder) {
	asked := execution.Isolation(c.Isolation)
	if asked == execution.IsolationContainer {
		finding(good, "ISOLATION=container: each run gets a container of its own")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	digest, err := backend.Resolve(ctx, c.Image)
	if err != nil {
		finding(missing, "the image %s: %s", c.Image, execution.AsError(err).Explain())
		return
	}
	launcher := runner.NewLauncher(backend, slog.New(slog.DiscardHandler))
	findings, err := launcher.Probe(ctx, execution.Spec{Image: digest, Settings: sandboxSettings(c)})
	lacking := missing
	if asked == execution.IsolationAuto {
		lacking = slower
	}
	for _, f := range findings {
		if f.Holds {
			finding(good, "in a container that serves many runs: %s", f.Name)
		} else {
			finding(lacking, "does not hold in a container that serves many runs: %s", f.Name)
		}
	}
	switch {
	case err == nil:
		finding(good, "a container can serve many runs, each in a fresh inner sandbox")
	case asked == execution.IsolationAuto:
		finding(slower, "each run gets a container of its own, which is slow: a container cannot serve many here (%v); to change that, %s", err, remedy(err))
	default:
		finding(missing, "ISOLATION=run cannot be had: %v; to change that, %s", err, remedy(err))
	}
}

// remedy says what to change where a container cannot serve many runs, by what
// the supervisor says.
func remedy(err error) string {
	for _, known := range []struct{ symptom, remedy string }{
		{"unshare: Operation not permitted", "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 on Debian, kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu"},
		{"unshare: No space left on device", "allow user namespaces: sysctl user.max_user_namespaces must not be 0"},
		{"unshare: Function not implemented", "use a kernel that was built with user and pid namespaces"},
		{"which the image or engine mounts", "build the image without VOLUME"},
		{"seccomp filter is for", "run the server on the engine's kind of machine"},
	} {
		if strings.Contains(err.Error(), known.symptom) {
			return known.remedy
		}
	}
	return "see docs/security.md for what it takes"
}

// examineImage says whether the image is there.
func examineImage(ctx context.Context, backend *docker.Backend, ref string, finding finder) bool {
	recipe, there, err := backend.Label(ctx, ref, image.RecipeLabel)
	_, ours := image.ByTag(ref)
	switch {
	case err != nil:
		finding(missing, "the image %s: %s", ref, execution.AsError(err).Explain())
	case !there && ours:
		finding(missing, "the image %s is not built: vivarium image build", ref)
	case !there:
		finding(missing, "the image %s is not here: docker pull %s", ref, ref)
	case ours && recipe != image.Recipe():
		finding(good, "the image %s is here, built from another recipe than this version's: vivarium image build", ref)
	default:
		finding(good, "the image %s is here", ref)
	}
	return err == nil && there
}
