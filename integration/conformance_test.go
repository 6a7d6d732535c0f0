package integration

import (
	"context"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/execution/executiontest"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// The Docker backend does what every backend must.
func TestDockerConformance(t *testing.T) {
	executiontest.Run(t, dockerExecutor(t))
}

// dockerExecutor puts the parts together as cli does, without a process
// between the test and them.
func dockerExecutor(t *testing.T) *execution.Executor {
	t.Helper()
	const megabyte = 1 << 20
	command, err := runner.NewCommand()
	if err != nil {
		t.Fatal(err)
	}
	backend, err := docker.New(docker.Options{
		Command: command, Environment: runner.Environment(), Workspace: runner.Workspace,
	})
	if err != nil {
		t.Fatal(err)
	}
	sandboxes, err := pool.New(func(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
		instance, err := backend.Start(ctx, spec)
		if err != nil {
			return nil, err
		}
		return runner.Open(ctx, instance)
	}, pool.Options{Target: 2, Max: 6})
	if err != nil {
		t.Fatal(err)
	}
	digests, err := pool.NewDigests(backend, 1)
	if err != nil {
		t.Fatal(err)
	}
	keeper := &pool.Keeper{Pool: sandboxes, Digests: digests, Image: slimImage, Settings: execution.Settings{
		Network: "none", MemoryBytes: 256 * megabyte, CPUs: 1, Processes: 64,
		WorkspaceBytes: 32 * megabyte, TempBytes: 32 * megabyte,
	}}
	executor := execution.NewExecutor(keeper, execution.Options{MaxInFlight: 100, Limits: execution.Limits{
		MaxTimeout: time.Minute, CPUTime: 10 * time.Second, OutputBytes: 100_000, WorkspaceBytes: 32 * megabyte,
		ResultFiles: 20, ResultFileBytes: megabyte, ResultBytes: 4 * megabyte,
	}})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := executor.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := sandboxes.Close(ctx); err != nil {
			t.Error(err)
		}
		if left := awaitContainers(backend.InstanceID(), 0); left != 0 {
			t.Errorf("%d containers are left", left)
		}
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	})
	return executor
}
