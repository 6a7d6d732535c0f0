package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/image"
)

func doctorCommand(system System) *cobra.Command {
	var engineOnly bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say whether sandboxes can be had here, and what to change if not",
		Long:  "Check the engine and the sandbox image. The exit code is 1 when something is missing.",
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
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	finding := func(good bool, format string, args ...any) {
		mark := "ok     "
		if !good {
			mark = "missing"
			err = exitError(exitFailure)
		}
		_, _ = fmt.Fprintf(system.Stdout, mark+"  "+format+"\n", args...)
	}
	version, fault := backend.Version(ctx)
	if fault != nil {
		finding(false, "%s", execution.AsError(fault).Explain())
		return err
	}
	finding(true, "Docker Engine %s answers at %s", version, backend.Host())
	if !engineOnly {
		examineImage(ctx, backend, c.Image, finding)
	}
	return err
}

func examineImage(ctx context.Context, backend *docker.Backend, ref string, finding func(bool, string, ...any)) {
	recipe, there, err := backend.Label(ctx, ref, image.RecipeLabel)
	_, ours := image.ByTag(ref)
	switch {
	case err != nil:
		finding(false, "the image %s: %s", ref, execution.AsError(err).Explain())
	case !there && ours:
		finding(false, "the image %s is not built: vivarium image build", ref)
	case !there:
		finding(false, "the image %s is not here: docker pull %s", ref, ref)
	case ours && recipe != image.Recipe():
		finding(true, "the image %s is here, built from another recipe than this version's: vivarium image build", ref)
	default:
		finding(true, "the image %s is here", ref)
	}
}
