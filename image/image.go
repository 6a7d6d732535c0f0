// Package image holds the recipe of the sandbox images and knows how to build
// them with nothing but an engine: the base is pulled where a registry answers
// and made with debootstrap where none does.
package image

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed Dockerfile files
var recipe embed.FS

// RecipeLabel is the label with the recipe that an image was built from.
const RecipeLabel = "vivarium.recipe"

const (
	repository = "vivarium/sandbox"
	suite      = "trixie"
	publicBase = "debian:trixie-slim"
	localBase  = "vivarium/base:" + suite
)

// pullPatience is how long the registry may take to send the base, which has
// 30 MB. After that the base is made with debootstrap.
const pullPatience = 2 * time.Minute

// Variant is one of the images.
type Variant struct {
	// Name is the stage of the Dockerfile.
	Name string
	// Tag is the image's full name.
	Tag string
	// MB is about how large it is, without what only a package index has.
	MB int
	// Content is what programs find in it.
	Content string
}

// Variants returns all images, the default first.
func Variants() []Variant {
	return []Variant{
		{
			Name: "data", Tag: repository + ":latest", MB: 1870,
			Content: "lean, plotly, opencv, xgboost, geopandas, ffmpeg, fonts, locales ...",
		},
		{
			Name: "lean", Tag: repository + ":lean", MB: 770,
			Content: "slim, numpy, pandas, matplotlib, scikit-learn, openpyxl ...",
		},
		{Name: "slim", Tag: repository + ":slim", MB: 210, Content: "Python with its standard library"},
	}
}

// ByTag returns the variant with a tag.
func ByTag(tag string) (Variant, bool) {
	for _, v := range Variants() {
		if v.Tag == tag || v.Tag == tag+":latest" {
			return v, true
		}
	}
	return Variant{}, false
}

// Recipe identifies the recipe that this binary holds: the Dockerfile and the files that it copies.
func Recipe() string {
	sum := sha256.New()
	err := fs.WalkDir(recipe, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := recipe.ReadFile(path)
		_, _ = fmt.Fprintf(sum, "%s %d\n%s", path, len(data), data)
		return err
	})
	if err != nil {
		panic(err) // it is in this binary
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// Engine is the part of a container engine that building needs.
type Engine interface {
	// Label returns an image's label, and whether the image is there.
	Label(ctx context.Context, ref, label string) (value string, there bool, err error)
	// Pull fetches an image from its registry.
	Pull(ctx context.Context, ref string) error
	// Import makes an image of a root file system, a tar stream.
	Import(ctx context.Context, ref string, rootfs io.Reader) error
	// Build builds a stage of a Dockerfile.
	Build(ctx context.Context, recipe Build) error
}

// Build describes an image to build.
type Build struct {
	// Tag is the name of the image.
	Tag string
	// Context is the build context: the Dockerfile and the files that it copies.
	Context fs.FS
	// Target is the stage to build, or empty for the last.
	Target string
	// Args are the values of the recipe's ARGs.
	Args map[string]string
	// Labels are put on the image.
	Labels map[string]string
}

// Make builds a variant. It reports to progress what it does.
func Make(ctx context.Context, engine Engine, variant Variant, progress io.Writer) error {
	base, err := findBase(ctx, engine, progress)
	if err != nil {
		return err
	}
	say(progress, "Building %s. This takes one to ten minutes.", variant.Tag)
	return engine.Build(ctx, Build{
		Tag: variant.Tag, Context: recipe, Target: variant.Name,
		Args:   map[string]string{"BASE": base},
		Labels: map[string]string{RecipeLabel: Recipe()},
	})
}

// findBase returns an image to build upon, and makes it if necessary.
func findBase(ctx context.Context, engine Engine, progress io.Writer) (string, error) {
	for _, base := range []string{publicBase, localBase} {
		if _, there, err := engine.Label(ctx, base, ""); err != nil {
			return "", err
		} else if there {
			return base, nil
		}
	}
	say(progress, "Fetching %s.", publicBase)
	pullCtx, cancel := context.WithTimeout(ctx, pullPatience)
	defer cancel()
	pullErr := engine.Pull(pullCtx, publicBase)
	if pullErr == nil {
		return publicBase, nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	say(progress, "No registry answers (%v). Making the base with debootstrap instead: 30 seconds.", pullErr)
	if err := bootstrap(ctx, engine, progress); err != nil {
		return "", fmt.Errorf("no base image: %w; and %w", pullErr, err)
	}
	return localBase, nil
}

// bootstrap makes the base from Debian's packages.
func bootstrap(ctx context.Context, engine Engine, progress io.Writer) (err error) {
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return fmt.Errorf("debootstrap is not installed (on Debian and Ubuntu: apt-get install debootstrap): %w", err)
	}
	if os.Geteuid() != 0 {
		return errors.New("debootstrap must run as root: run `vivarium image build` as root once")
	}
	work, err := os.MkdirTemp("", "vivarium-base-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	root := filepath.Join(work, "root")
	if err := command(ctx, progress, nil, "debootstrap", "--variant=minbase", suite, root); err != nil {
		return err
	}
	reader, writer := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := command(ctx, progress, writer, "tar", "-C", root, "--numeric-owner",
			"--exclude=./var/cache/apt/archives/*.deb", "--exclude=./dev/*", "-c", ".")
		writer.CloseWithError(err)
		packed <- err
	}()
	importErr := engine.Import(ctx, localBase, reader)
	_ = reader.Close() // so that tar ends if the engine stopped reading
	return errors.Join(importErr, <-packed)
}

// command runs a program. Its stdout goes to out, or to progress where out is nil.
func command(ctx context.Context, progress, out io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, progress
	if out == nil {
		cmd.Stdout = progress
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args[:2], " "), err)
	}
	return nil
}

func say(progress io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(progress, format+"\n", args...)
}
