package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	dockerclient "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/docker/go-units"

	"github.com/vivarium-sandbox/vivarium/config"
)

// Labels of the containers of the bare side. The second tells apart benchmarks
// that run at the same time: each removes its own.
const (
	labelBench = "vivarium.bench"
	labelRun   = "vivarium.bench.run"
)

// cleanupTime bounds the removal of what is left at the end.
const cleanupTime = 30 * time.Second

// bare runs programs on the engine with nothing in between.
type bare struct {
	client   *dockerclient.Client
	settings config.Config
	image    string // its digest, as the server uses it
	id       string // of this benchmark, on its containers
}

// connect connects to the engine, and returns its version too.
func connect(ctx context.Context) (*dockerclient.Client, string, error) {
	client, err := dockerclient.NewClientWithOpts(dockerclient.FromEnv, dockerclient.WithAPIVersionNegotiation())
	if err != nil {
		return nil, "", fmt.Errorf("engine: %w", err)
	}
	version, err := client.ServerVersion(ctx)
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("engine: %w", err), client.Close())
	}
	return client, version.Version, nil
}

// newBare makes sure that the image is there.
func newBare(ctx context.Context, client *dockerclient.Client, settings config.Config) (*bare, error) {
	image, err := client.ImageInspect(ctx, settings.Image)
	if err != nil {
		return nil, fmt.Errorf("image %s (make it with `vivarium image build`): %w", settings.Image, err)
	}
	return &bare{client: client, settings: settings, image: image.ID, id: newName()}, nil
}

// run does one run by hand: create, attach, start, read the output to its end,
// wait for the exit code, remove. Attaching was measured to be no slower than
// reading the log afterwards, and gives the output sooner.
func (b *bare) run(ctx context.Context, p program) (timing, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	began := time.Now()
	made, err := b.client.ContainerCreate(ctx, b.config(p), b.hostConfig(), nil, nil, "")
	if err != nil {
		return timing{}, b.refused(ctx, "create", err)
	}
	if err := b.runIn(ctx, made.ID, p); err != nil {
		return timing{}, err
	}
	took := time.Since(began) // a server too cleans up after its answer
	if err := b.remove(ctx, made.ID); err != nil {
		return timing{}, b.refused(ctx, "remove", err)
	}
	return timing{took: took}, nil
}

// runIn does the part between creation and removal.
func (b *bare) runIn(ctx context.Context, id string, p program) error {
	stream, err := b.client.ContainerAttach(ctx, id, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return b.refused(ctx, "attach", err)
	}
	defer stream.Close()
	if err := b.client.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return b.refused(ctx, "start", err)
	}
	stdout, stderr, err := readOutput(ctx, stream)
	if err != nil {
		return b.refused(ctx, "read", err)
	}
	exitCode, err := b.wait(ctx, id)
	if err != nil {
		return b.refused(ctx, "wait", err)
	}
	return p.check(exitCode, stdout, stderr)
}

// readOutput reads an attached container's output to its end. The stream knows
// nothing of ctx, so its end closes the stream.
func readOutput(ctx context.Context, stream types.HijackedResponse) (stdout, stderr string, err error) {
	defer context.AfterFunc(ctx, stream.Close)()
	var out, diagnostics bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &diagnostics, stream.Reader)
	return out.String(), diagnostics.String(), err
}

func (b *bare) wait(ctx context.Context, id string) (exitCode int, err error) {
	ended, failed := b.client.ContainerWait(ctx, id, container.WaitConditionNotRunning)
	select {
	case end := <-ended:
		if end.Error != nil {
			return 0, errors.New(end.Error.Message)
		}
		return int(end.StatusCode), nil
	case err := <-failed:
		return 0, err
	}
}

func (b *bare) remove(ctx context.Context, id string) error {
	return b.client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
}

// refused returns the engine's failure as a refusal, unless the benchmark has ended.
func (b *bare) refused(ctx context.Context, step string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	return &refusal{fmt.Errorf("engine: %s: %w", step, err)}
}

// config has the restrictions of execution/docker/container.go, except the seccomp
// profile: the engine's own is used, which it need not parse.
func (b *bare) config(p program) *container.Config {
	return &container.Config{
		Hostname: "sandbox", User: "65532:65532", Image: b.image, WorkingDir: "/workspace",
		Entrypoint:   []string{"python3", "-c", p.code},
		AttachStdout: true, AttachStderr: true,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		Labels:      map[string]string{labelBench: "1", labelRun: b.id},
	}
}

func (b *bare) hostConfig() *container.HostConfig {
	s := b.settings
	memory, processes := int64(s.MemoryLimitMB)<<20, int64(s.PidsLimit)
	return &container.HostConfig{
		NetworkMode:    container.NetworkMode(s.Network),
		ReadonlyRootfs: true,
		CapDrop:        []string{"ALL"},
		SecurityOpt:    []string{"no-new-privileges"},
		IpcMode:        container.IPCModePrivate,
		CgroupnsMode:   container.CgroupnsModePrivate,
		Runtime:        s.Runtime,
		LogConfig:      container.LogConfig{Type: "none"},
		ShmSize:        16 << 20,
		Tmpfs: map[string]string{
			"/workspace": tmpfs(s.WorkspaceLimitMB, "0700", "exec"),
			"/tmp":       tmpfs(s.TmpLimitMB, "1777", "noexec"),
		},
		Resources: container.Resources{
			Memory: memory, MemorySwap: memory, PidsLimit: &processes,
			NanoCPUs: int64(math.Round(s.CPULimit * 1e9)),
			Ulimits: []*units.Ulimit{
				{Name: "core", Soft: 0, Hard: 0},
				{Name: "nofile", Soft: 1024, Hard: 1024},
			},
		},
	}
}

func tmpfs(megabytes int, mode, exec string) string {
	size := megabytes << 20
	return fmt.Sprintf("rw,nosuid,nodev,%s,size=%d,nr_inodes=%d,mode=%s,uid=65532,gid=65532",
		exec, size, max(1024, size/4096), mode)
}

// settle implements [bareSide]: each run has removed its container.
func (b *bare) settle(context.Context) error { return nil }

// close implements [bareSide]: runs that failed or were cut short leave something behind.
func (b *bare) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	left, err := b.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", labelBench+"=1"), filters.Arg("label", labelRun+"="+b.id))})
	if err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	var failures []error
	for _, c := range left {
		if err := b.remove(ctx, c.ID); err != nil && !errdefs.IsNotFound(err) {
			failures = append(failures, fmt.Errorf("cleaning up: %w", err))
		}
	}
	return errors.Join(failures...)
}

// runLine returns the command line that runs a program, whose code follows, as run does.
func (b *bare) runLine() []string {
	return []string{"docker", "run", "--rm", "--network=none", "--label=" + labelBench + "=1", b.image, "python3", "-c"}
}
