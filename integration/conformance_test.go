package integration

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/execution/executiontest"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// The Docker backend does what every backend must, with either isolation.
func TestDockerConformance(t *testing.T) {
	for _, isolation := range []execution.Isolation{execution.IsolationRun, execution.IsolationContainer} {
		t.Run(string(isolation), func(t *testing.T) { executiontest.Run(t, dockerExecutor(t, isolation)) })
	}
}

// dockerExecutor puts the parts together as cli does, without a process
// between the test and them.
func dockerExecutor(t *testing.T, isolation execution.Isolation) *execution.Executor {
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
	launcher := runner.NewLauncher(backend, slog.New(slog.DiscardHandler))
	sandboxes, err := pool.New(launcher.Launch, pool.Options{Target: 2, Max: 6})
	if err != nil {
		t.Fatal(err)
	}
	digests, err := pool.NewDigests(backend, 1)
	if err != nil {
		t.Fatal(err)
	}
	keeper := &pool.Keeper{Pool: sandboxes, Digests: digests, Image: slimImage, Settings: execution.Settings{
		Isolation: isolation, Network: "none", MemoryBytes: 256 * megabyte, CPUs: 1, Processes: 64,
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
