package integration

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	dockerclient "github.com/docker/docker/client"
)

// dockerHost is a Docker Engine, whose sandboxes are containers.
type dockerHost struct{ engine *dockerclient.Client }

var _ host = dockerHost{}

func (h dockerHost) environment(image string) []string {
	return []string{"EXECUTOR_BACKEND=docker", "PYTHON_EXECUTOR_DOCKER_IMAGE=" + image}
}

func (h dockerHost) sandboxes(instance string) ([]sandbox, error) {
	return h.list("vivarium.instance=" + instance)
}

func (h dockerHost) session(id string) ([]sandbox, error) { return h.list("vivarium.session=" + id) }

// list lists the containers with a label, running or not.
func (h dockerHost) list(label string) ([]sandbox, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := h.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label))})
	found := make([]sandbox, 0, len(list))
	for _, c := range list {
		found = append(found, sandbox{c.ID, c.State == container.StateRunning})
	}
	return found, err
}

func (h dockerHost) commands(sandbox string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	top, err := h.engine.ContainerTop(ctx, sandbox, nil)
	if err != nil {
		return nil, err
	}
	commands := make([]string, 0, len(top.Processes))
	for _, process := range top.Processes {
		commands = append(commands, process[len(process)-1])
	}
	return commands, nil
}

func (h dockerHost) exists(sandbox, path string) (bool, error) {
	status, err := h.run(sandbox, "test", "-e", path)
	return status == 0, err
}

// run runs a command in a container and gives its exit status.
func (h dockerHost) run(sandbox string, command ...string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	made, err := h.engine.ContainerExecCreate(ctx, sandbox, container.ExecOptions{Cmd: command})
	if err != nil {
		return 0, err
	}
	if err := h.engine.ContainerExecStart(ctx, made.ID, container.ExecStartOptions{}); err != nil {
		return 0, err
	}
	for {
		seen, err := h.engine.ContainerExecInspect(ctx, made.ID)
		if err != nil || !seen.Running {
			return seen.ExitCode, err
		}
	}
}

func (h dockerHost) cpuTime(sandbox string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stats, err := h.engine.ContainerStatsOneShot(ctx, sandbox)
	if err != nil {
		return 0, err
	}
	data, err := io.ReadAll(stats.Body)
	if err := errors.Join(err, stats.Body.Close()); err != nil {
		return 0, err
	}
	var read container.StatsResponse
	err = json.Unmarshal(data, &read)
	return time.Duration(read.CPUStats.CPUUsage.TotalUsage), err
}

func (h dockerHost) kill(sandbox string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.engine.ContainerKill(ctx, sandbox, "KILL")
}

func (h dockerHost) freeze(sandbox string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.engine.ContainerPause(ctx, sandbox)
}

func (h dockerHost) thaw(sandbox string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.engine.ContainerUnpause(ctx, sandbox)
}

func (h dockerHost) endSession(id string) {
	left, _ := h.session(id)
	for _, s := range left {
		_ = h.engine.ContainerRemove(context.Background(), s.id, container.RemoveOptions{Force: true}) // it may be going
	}
}

func (h dockerHost) bury(string) {}

func (h dockerHost) traces(string) []string { return nil } // a container has none beside itself
