package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/build"
	dockerimage "github.com/docker/docker/api/types/image"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Resolve returns an image's digest. A missing image is built if package image has
// its recipe, and pulled otherwise.
func (b *Backend) Resolve(ctx context.Context, ref string) (string, error) {
	if err := b.connect(ctx); err != nil {
		return "", err
	}
	digest, err := b.digest(ctx, ref)
	if !errdefs.IsNotFound(err) {
		return digest, b.explainImage(ref, err)
	}
	ours := false
	if b.opts.Provide != nil {
		ours, err = b.opts.Provide(ctx, b, ref)
	}
	if !ours {
		err = b.Pull(ctx, ref)
	}
	if err == nil {
		digest, err = b.digest(ctx, ref)
	}
	return digest, b.explainImage(ref, err)
}

func (b *Backend) explainImage(ref string, err error) error {
	var domain *execution.Error
	switch {
	case err == nil || errors.As(err, &domain):
		return err
	case unreachable(err):
		return b.unavailable(err)
	}
	message := fmt.Sprintf("image %q is not available", ref)
	if errdefs.IsInvalidArgument(err) {
		message = fmt.Sprintf("%q is not an image reference", ref)
	}
	return &execution.Error{Code: execution.Unavailable, Message: message, Err: err}
}

func (b *Backend) digest(ctx context.Context, ref string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	found, err := b.client.ImageInspect(ctx, ref)
	if err != nil {
		return "", err
	}
	return found.ID, nil
}

// Label returns the value of an image's label, and whether the image is there.
func (b *Backend) Label(ctx context.Context, ref, label string) (value string, there bool, err error) {
	if err := b.connect(ctx); err != nil {
		return "", false, err
	}
	found, err := b.client.ImageInspect(ctx, ref)
	switch {
	case errdefs.IsNotFound(err):
		return "", false, nil
	case err != nil:
		return "", false, b.explainImage(ref, err)
	case found.Config == nil:
		return "", true, nil
	}
	return found.Config.Labels[label], true, nil
}

// Pull fetches an image from its registry.
func (b *Backend) Pull(ctx context.Context, ref string) error {
	stream, err := b.client.ImagePull(ctx, ref, dockerimage.PullOptions{})
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	return b.follow("pull "+ref, stream)
}

// Import makes an image of a root file system.
func (b *Backend) Import(ctx context.Context, ref string, rootfs io.Reader) error {
	stream, err := b.client.ImageImport(ctx, dockerimage.ImportSource{Source: rootfs, SourceName: "-"}, ref,
		dockerimage.ImportOptions{Changes: []string{`CMD ["/bin/bash"]`}})
	if err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	return b.follow("import "+ref, stream)
}

// Build describes an image to build.
type Build struct {
	// Tag is the name of the image.
	Tag string
	// Context is the build context: the Dockerfile and the files that it copies.
	Context fs.FS
	// Target is the stage to build, or empty for the last.
	Target string
	// Args are the values of the Dockerfile's ARGs.
	Args map[string]string
	// Labels are put on the image.
	Labels map[string]string
}

// Build builds an image with the engine's own builder, which every engine has.
func (b *Backend) Build(ctx context.Context, recipe Build) error {
	var buildContext bytes.Buffer
	w := tar.NewWriter(&buildContext)
	if err := errors.Join(w.AddFS(recipe.Context), w.Close()); err != nil {
		return fmt.Errorf("build %s: %w", recipe.Tag, err)
	}
	args := make(map[string]*string, len(recipe.Args))
	for name, value := range recipe.Args {
		args[name] = &value
	}
	response, err := b.client.ImageBuild(ctx, &buildContext, build.ImageBuildOptions{
		Version: build.BuilderV1, Tags: []string{recipe.Tag}, Target: recipe.Target,
		BuildArgs: args, Labels: recipe.Labels, Remove: true, ForceRemove: true,
	})
	if err != nil {
		return fmt.Errorf("build %s: %w", recipe.Tag, err)
	}
	return b.follow("build "+recipe.Tag, response.Body)
}

// follow passes the engine's progress on until it is done.
func (b *Backend) follow(what string, stream io.ReadCloser) error {
	defer func() { _ = stream.Close() }()
	decoder := json.NewDecoder(stream)
	for {
		var message struct {
			Stream, Status, ID, Error string
			ProgressDetail            struct{ Current int64 }
		}
		if err := decoder.Decode(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if message.Error != "" {
			return fmt.Errorf("%s: %s", what, message.Error)
		}
		if message.Stream != "" {
			_, _ = io.WriteString(b.progress, message.Stream)
		} else if message.Status != "" && message.ProgressDetail.Current == 0 {
			_, _ = fmt.Fprintln(b.progress, strings.TrimSpace(message.ID+" "+message.Status))
		}
	}
}
