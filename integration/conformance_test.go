package integration

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/blank"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/execution/executiontest"
	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
	"github.com/vivarium-sandbox/vivarium/execution/launch"
	"github.com/vivarium-sandbox/vivarium/execution/link"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// The Docker backend does what every backend must, with either isolation.
func TestDockerConformance(t *testing.T) {
	conformBare(t, func(t *testing.T, command supervisor.Command) instanceBackend {
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

// The Kubernetes backend does what every backend must, with either isolation.
func TestKubernetesConformance(t *testing.T) {
	cluster := shared.host.(*kubernetesHost)
	credentials, err := link.LoadCredentials(cluster.link)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := cluster.poolFor(poolLimits{image: slimImage, memory: "256", workspace: "32", temp: "32"})
	if err != nil {
		t.Fatal(err)
	}
	maker, err := blank.NewMaker()
	if err != nil {
		t.Fatal(err)
	}
	conform(t, func(t *testing.T, _ supervisor.Command) instanceBackend {
		t.Helper()
		backend, err := kubernetes.New(kubernetes.Options{
			Kubeconfig: cluster.kubeconfig, Namespace: sandboxNamespace(), Pool: pool, Port: link.Port,
			Settings: conformanceSettings(execution.IsolationRun),
			Dial: func(ctx context.Context, address, pin string) (net.Conn, error) {
				conn, err := credentials.Dial(ctx, address, pin)
				if err != nil {
					return nil, err // a nil *link.Conn would be a net.Conn that is not nil
				}
				return conn, nil
			},
			End: credentials.End, Boot: maker.Boot,
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

// conformBare runs conform, and what backends do that start sandboxes with fewer modules.
func conformBare(t *testing.T, open newBackend) {
	t.Helper()
	conform(t, open)
	t.Run("bare", func(t *testing.T) { checkBare(t, open) })
}

// checkBare checks that a bare sandbox preloads nothing, and says whether it lacks anything.
func checkBare(t *testing.T, open newBackend) {
	t.Helper()
	backend, launcher := newLauncher(t, open)
	digest, err := backend.Resolve(t.Context(), slimImage)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		preload     string
		asked, bare bool
		output      string
	}{
		{"xml.dom", true, true, "False\n"},
		{"xml.dom", false, false, "True\n"},
		{"none", true, false, "False\n"},
	} {
		spec := execution.Spec{Image: digest, Settings: conformanceSettings(execution.IsolationRun), Bare: test.asked}
		spec.Preload = test.preload
		sandbox, err := launcher.Launch(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		result, err := sandbox.Run(t.Context(), execution.Request{Code: "import sys; print('xml.dom' in sys.modules)", Timeout: patience}, conformanceLimits())
		if err != nil {
			t.Fatal(err)
		}
		if sandbox.Bare() != test.bare || result.Stdout != test.output {
			t.Errorf("%+v: bare is %v, and the program prints %q", test, sandbox.Bare(), result.Stdout)
		}
		if err := sandbox.Close(); err != nil {
			t.Error(err)
		}
	}
}

const megabyte = 1 << 20

func conformanceSettings(isolation execution.Isolation) execution.Settings {
	return execution.Settings{
		Isolation: isolation, Network: "none", MemoryBytes: 256 * megabyte, CPUs: 1, Processes: 64,
		WorkspaceBytes: 32 * megabyte, TempBytes: 32 * megabyte,
	}
}

func conformanceLimits() execution.Limits {
	return execution.Limits{
		MaxTimeout: time.Minute, CPUTime: 10 * time.Second, OutputBytes: 100_000, WorkspaceBytes: 32 * megabyte,
		ResultFiles: 20, ResultFileBytes: megabyte, ResultBytes: 4 * megabyte,
	}
}

// newLauncher returns a backend and what starts its sandboxes. The backend is closed at the end
// of the test, and must have left nothing then.
func newLauncher(t *testing.T, open newBackend) (instanceBackend, *launch.Launcher) {
	t.Helper()
	command, err := supervisor.NewCommand()
	if err != nil {
		t.Fatal(err)
	}
	backend := open(t, command)
	t.Cleanup(func() {
		if left := awaitSandboxes(backend.InstanceID(), 0); left != 0 {
			t.Errorf("%d sandboxes are left", left)
		}
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
		if left := shared.host.traces(backend.InstanceID()); len(left) != 0 {
			t.Errorf("the backend has left %q", left)
		}
	})
	return backend, launch.NewLauncher(backend, slog.New(slog.DiscardHandler))
}

// newExecutor puts the parts together as cli does, without a process between the
// test and them.
func newExecutor(t *testing.T, open newBackend, isolation execution.Isolation) *execution.Executor {
	t.Helper()
	backend, launcher := newLauncher(t, open)
	sandboxes, err := pool.New(launcher.Launch, pool.Options{Target: 2, Max: 6})
	if err != nil {
		t.Fatal(err)
	}
	digests, err := pool.NewDigests(backend, 1)
	if err != nil {
		t.Fatal(err)
	}
	keeper := &pool.Keeper{Pool: sandboxes, Digests: digests, Image: slimImage, Settings: conformanceSettings(isolation)}
	executor := execution.NewExecutor(keeper, execution.Options{MaxInFlight: 100, Limits: conformanceLimits()})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := executor.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := sandboxes.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return executor
}
