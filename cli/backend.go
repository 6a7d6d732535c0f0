package cli

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
	"github.com/vivarium-sandbox/vivarium/execution/local"
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// Names of backends, as EXECUTOR_BACKEND has them.
const (
	backendAuto       = "auto"
	backendDocker     = "docker"
	backendLocal      = "local"
	backendKubernetes = "kubernetes"
)

// backend starts sandboxes.
type backend interface {
	execution.SessionBackend
	// InstanceID returns the name of this server.
	InstanceID() string
	// Machine returns the machine on which sandboxes run.
	Machine(ctx context.Context) (execution.Machine, error)
	Close() error
}

// newBackend returns the backend that the settings name. It contacts no engine yet.
func newBackend(c config.Config, system System, log *slog.Logger) (backend, error) {
	switch c.Backend {
	case backendDocker:
		return newDocker(c, system)
	case backendLocal:
		return newLocal(c)
	case backendKubernetes:
		return newCluster(c, log)
	}
	engine, err := newDocker(c, system)
	if err != nil {
		return nil, err
	}
	here, err := newLocal(c)
	if err != nil {
		return nil, err
	}
	return newAuto(c, engine, here, log), nil
}

// machineTime bounds the question what a machine has.
const machineTime = 2 * time.Second

// fit returns the settings for the machine on which sandboxes run. If that is not known
// because no engine answers yet, this machine stands in.
func fit(ctx context.Context, c config.Config, b backend, log *slog.Logger) (config.Config, error) {
	ctx, cancel := context.WithTimeout(ctx, machineTime)
	defer cancel()
	machine, err := b.Machine(ctx)
	if err != nil {
		machine = local.Machine()
		log.DebugContext(ctx, "settings follow this machine, since no engine answers", "error", err)
	}
	if c, err = c.ForMachine(config.Machine(machine)); err != nil {
		return c, fmt.Errorf("settings:\n%w", err)
	}
	return c, nil
}

// newDocker returns the backend of the engine that the settings name. The progress
// of pulls and builds goes to stderr.
func newDocker(c config.Config, system System) (*docker.Backend, error) {
	home, _ := system.Lookup("HOME")
	command, err := supervisor.NewCommand()
	if err != nil {
		return nil, err
	}
	return docker.New(docker.Options{
		Command: command.Line, Environment: supervisor.Environment(), Workspace: supervisor.Workspace,
		Lifetime: lifetime(c), Host: c.DockerHost, Context: c.DockerContext, ConfigDir: c.DockerConfigDir(home),
		Provide: provide(system.Stderr), Progress: system.Stderr, Extra: extra(c.RunArgs),
	})
}

// extra returns what flags of docker run add to containers.
func extra(a config.RunArgs) docker.Extra {
	limits := make([]docker.Ulimit, len(a.Ulimits))
	for i, limit := range a.Ulimits {
		limits[i] = docker.Ulimit(limit)
	}
	return docker.Extra{
		Environment: a.Env, Labels: a.Labels, DNS: a.DNS, DNSSearch: a.DNSSearch, DNSOptions: a.DNSOptions, Hosts: a.Hosts, Hostname: a.Hostname,
		SharedMemoryBytes: a.SharedMemoryBytes, CPUs: a.CPUs, MemoryNodes: a.MemoryNodes, CPUShares: a.CPUShares, Ulimits: limits,
	}
}

// warnIgnored logs settings of other servers that have no effect here.
func warnIgnored(c config.Config, log *slog.Logger) {
	if c.Bin != "" {
		log.Warn("PYTHON_EXECUTOR_DOCKER_BIN has no effect: the server talks to the engine without a docker command", "value", c.Bin)
	}
	if c.Backend == backendLocal || c.Backend == backendKubernetes {
		warnRunArgs(c.RunArgs.Text, log)
	}
	if c.KubernetesServiceAccount != "" || c.KubernetesLockdown != "" {
		log.Warn("KUBERNETES_EXECUTOR_SERVICE_ACCOUNT and KUBERNETES_EXECUTOR_NET_ADMIN_LOCKDOWN have no effect: the Deployment of the pods names their account, and sandboxes have a network of their own",
			"account", c.KubernetesServiceAccount, "lockdown", c.KubernetesLockdown)
	}
}

// warnRunArgs logs that flags of docker run have no effect, because sandboxes are not
// containers of an engine.
func warnRunArgs(flags string, log *slog.Logger) {
	if flags != "" {
		log.Warn("PYTHON_EXECUTOR_DOCKER_RUN_ARGS has no effect: sandboxes are made without Docker")
	}
}

// newLocal returns the backend that needs no engine.
func newLocal(c config.Config) (*local.Backend, error) {
	command, err := supervisor.NewCommand()
	if err != nil {
		return nil, err
	}
	return local.New(local.Options{
		Command: command, Environment: supervisor.Environment(), Workspace: supervisor.Workspace,
		Python: c.LocalPython, Rootfs: c.LocalRootfs,
	})
}

// nameOf returns the name of a backend as EXECUTOR_BACKEND has it, or "" while
// auto is undecided.
func nameOf(b backend) string {
	switch decided(b).(type) {
	case *docker.Backend:
		return backendDocker
	case *local.Backend:
		return backendLocal
	}
	if isCluster(b) {
		return backendKubernetes
	}
	return ""
}

// engineOf returns the engine that is used, if one is.
func engineOf(b backend) (*docker.Backend, bool) {
	engine, ok := decided(b).(*docker.Backend)
	return engine, ok
}
