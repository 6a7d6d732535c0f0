package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/image"
)

func imageCommand(system System) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "Manage the sandbox images",
		Example: "  vivarium image build",
	}
	cmd.AddCommand(imageBuildCommand(system))
	return cmd
}

func imageBuildCommand(system System) *cobra.Command {
	var variants []string
	var ifMissing bool
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the sandbox images through the engine",
		Long: `Build the sandbox images through the engine, from the recipe in this binary. The base
image is pulled from a registry or, if none answers, made with debootstrap as root.

The variants, with their sizes:
` + describeVariants(),
		Example: `  vivarium image build
  vivarium image build --variant lean
  vivarium image build --if-missing`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return buildImages(cmd.Context(), system, variants, ifMissing)
		},
	}
	cmd.Flags().StringSliceVar(&variants, "variant", []string{"data"}, "variants to build: "+variantNames())
	cmd.Flags().BoolVar(&ifMissing, "if-missing", false, "skip images that were built from the same recipe")
	return cmd
}

func buildImages(ctx context.Context, system System, names []string, ifMissing bool) (err error) {
	c, _, err := settings(ctx, system)
	if err != nil {
		return err
	}
	backend, err := newDocker(c, system)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	for _, name := range names {
		variant, err := variantNamed(name)
		if err != nil {
			return err
		}
		if ifMissing {
			recipe, _, err := backend.Label(ctx, variant.Tag, image.RecipeLabel)
			if err != nil {
				return err
			}
			if recipe == image.Recipe() {
				_, _ = fmt.Fprintf(system.Stderr, "%s is up to date.\n", variant.Tag)
				continue
			}
		}
		if err := image.Make(ctx, builder{backend}, variant, system.Stderr); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(system.Stderr, "Built %s.\n", variant.Tag)
	}
	return nil
}

// builder is the engine that package image builds with.
type builder struct{ *docker.Backend }

// Build implements [image.Engine].
func (b builder) Build(ctx context.Context, recipe image.Build) error {
	return b.Backend.Build(ctx, docker.Build(recipe))
}

func variantNamed(name string) (image.Variant, error) {
	for _, v := range image.Variants() {
		if v.Name == name {
			return v, nil
		}
	}
	return image.Variant{}, fmt.Errorf("--variant is %q: must be one of %s\n%s", name, variantNames(), describeVariants())
}

// variantNames returns the names of all variants.
func variantNames() string {
	var names []string
	for _, v := range image.Variants() {
		names = append(names, v.Name)
	}
	return strings.Join(names, ", ")
}

// describeVariants returns a line for each variant.
func describeVariants() string {
	lines := make([]string, 0, len(image.Variants()))
	for _, v := range image.Variants() {
		lines = append(lines, fmt.Sprintf("  %s  %5d MB  %-24s %s", v.Name, v.MB, v.Tag, v.Content))
	}
	return strings.Join(lines, "\n")
}
