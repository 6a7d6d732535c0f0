package integration

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/execution/executiontest"
	"github.com/vivarium-sandbox/vivarium/execution/launch"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// The Docker backend does what every backend must, with either isolation.
func TestDockerConformance(t *testing.T) {
	conform(t, func(t *testing.T, command supervisor.Command) instanceBackend {
		t.Helper()
		backend, err := docker.New(docker.Options{
			Command: command.Line, Environment: supervisor.Environment(), Workspace: supervisor.Workspace,
		})
		if err != nil {
			t.Fatal(err)
		}
		return backend
	})
}

// instanceBackend is a backend that names itself, and is closed in the end.
type instanceBackend interface {
	execution.Backend
	InstanceID() string
	Close() error
}

type newBackend func(t *testing.T, command supervisor.Command) instanceBackend

// conform runs what every backend must do, with either isolation. Nothing may be left.
func conform(t *testing.T, open newBackend) {
	t.Helper()
	for _, isolation := range []execution.Isolation{execution.IsolationRun, execution.IsolationContainer} {
		t.Run(string(isolation), func(t *testing.T) { executiontest.Run(t, newExecutor(t, open, isolation)) })
	}
}

// newExecutor puts the parts together as cli does, without a process between the
// test and them.
func newExecutor(t *testing.T, open newBackend, isolation execution.Isolation) *execution.Executor {
	t.Helper()
	const megabyte = 1 << 20
	command, err := supervisor.NewCommand()
	if err != nil {
		t.Fatal(err)
	}
	backend := open(t, command)
	launcher := launch.NewLauncher(backend, slog.New(slog.DiscardHandler))
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
		if left := awaitSandboxes(backend.InstanceID(), 0); left != 0 {
			t.Errorf("%d sandboxes are left", left)
		}
		if left := shared.host.traces(backend.InstanceID()); len(left) != 0 {
			t.Errorf("the backend has left %q", left)
		}
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	})
	return executor
}
