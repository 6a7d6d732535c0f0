// Package docker is the [execution.Backend] on a Docker Engine: sandboxes are
// containers, started with every restriction that the engine offers, and reached
// through one attached stream each. It also pulls, imports and builds images.
//
// It leaves to the caller what runs in a container, and the protocol with it.
package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	dockerclient "github.com/docker/docker/client"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/seccomp"
)

// connectTime bounds the first exchange with the engine, and a look at an image.
const connectTime = 10 * time.Second

// Options configure a [Backend].
type Options struct {
	// Command returns the command line of PID 1. Nil means the image's own.
	Command func(execution.Spec) []string
	// Environment is PID 1's environment.
	Environment []string
	// Workspace is the folder in which programs run. It must be absolute.
	Workspace string
	// Extra are additions to the containers.
	Extra Extra
	// Lifetime is the age at which the sweep of any server removes a container,
	// running or not. Zero means a day.
	Lifetime time.Duration
	// Context names a context of the Docker CLI, or is empty for its current
	// one. DOCKER_HOST, which the client reads itself, comes before both.
	Context string
	// ConfigDir is the Docker CLI's folder (~/.docker). Empty: no contexts.
	ConfigDir string
	// Host is DOCKER_HOST, or empty.
	Host string
	// Provide builds a missing image if there is a recipe for it, and reports
	// whether there is. Nil means that all images are pulled.
	Provide func(ctx context.Context, b *Backend, image string) (ours bool, err error)
	// Progress receives the output of pulls and builds. Nil discards it.
	Progress io.Writer
}

// Backend starts sandboxes on a Docker Engine. It is safe for concurrent use.
type Backend struct {
	client   *dockerclient.Client
	opts     Options
	id       string          // of this server, on its containers
	seccomp  map[bool]string // profiles, by whether a container serves many runs
	progress io.Writer

	negotiation chan struct{} // holds one token; its holder may negotiate
	negotiated  atomic.Bool   // the client uses the engine's version

	users    hardening.Users
	remapped atomic.Bool  // the engine maps users, and knows few
	confined atomic.Bool  // the engine has AppArmor or SELinux confine containers
	memory   atomic.Int64 // bytes of its machine, when negotiated
	cores    atomic.Int64 // of its machine, when negotiated

	mu    sync.Mutex
	alive map[string]int // the users of containers that this server holds, by id
}

// New makes a Backend. It does not talk to the engine yet.
func New(opts Options) (*Backend, error) {
	if opts.Lifetime == 0 {
		opts.Lifetime = 24 * time.Hour
	}
	connection, err := address(opts)
	if err != nil {
		return nil, err
	}
	client, err := dockerclient.NewClientWithOpts(connection...)
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	profiles := make(map[bool]string)
	for _, many := range []bool{true, false} {
		if profiles[many], err = seccomp.Profile(many); err != nil {
			return nil, fmt.Errorf("docker: %w", err)
		}
	}
	b := &Backend{
		client: client, opts: opts, id: newID(), seccomp: profiles,
		progress: opts.Progress, negotiation: make(chan struct{}, 1), alive: make(map[string]int),
	}
	if b.progress == nil {
		b.progress = io.Discard
	}
	return b, nil
}

// newID returns an identifier that is unique and cannot be guessed.
func newID() string { return strings.ToLower(rand.Text()[:16]) }

// InstanceID is the value of the label vivarium.instance on this server's
// containers.
func (b *Backend) InstanceID() string { return b.id }

// Host is the engine's address.
func (b *Backend) Host() string { return b.client.DaemonHost() }

// Close closes idle connections to the engine.
func (b *Backend) Close() error { return b.client.Close() }

// connect negotiates the version of the API when the engine first answers. The client's own way of doing so (WithAPIVersionNegotiation) is a
// data race where requests are made concurrently, as of v28.5.2.
func (b *Backend) connect(ctx context.Context) error {
	if b.negotiated.Load() {
		return nil
	}
	select {
	case b.negotiation <- struct{}{}:
		defer func() { <-b.negotiation }()
	case <-ctx.Done():
		return b.unavailable(context.Cause(ctx))
	}
	if b.negotiated.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	ping, err := b.client.Ping(ctx)
	if err != nil {
		return b.unavailable(err)
	}
	b.client.NegotiateAPIVersionPing(ping)
	info, err := b.client.Info(ctx)
	if err != nil {
		return b.unavailable(err)
	}
	b.remapped.Store(hasOption(info.SecurityOptions, "userns", "rootless"))
	b.confined.Store(hasOption(info.SecurityOptions, "apparmor", "selinux"))
	b.memory.Store(info.MemTotal)
	b.cores.Store(int64(info.NCPU))
	b.negotiated.Store(true)
	return nil
}

// hasOption reports whether one of the names is among an engine's security options. These are
// name=NAME, and further fields behind a comma.
func hasOption(options []string, names ...string) bool {
	return slices.ContainsFunc(options, func(option string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(option, "name="), ",")
		return slices.Contains(names, name)
	})
}

// Health reports whether the engine answers.
func (b *Backend) Health(ctx context.Context) error {
	if err := b.connect(ctx); err != nil {
		return err
	}
	if _, err := b.client.Ping(ctx); err != nil {
		return b.unavailable(err)
	}
	return nil
}

// Machine returns the memory and the cores of the engine's machine, as far as the engine
// names them.
func (b *Backend) Machine(ctx context.Context) (execution.Machine, error) {
	if err := b.connect(ctx); err != nil {
		return execution.Machine{}, err
	}
	return execution.Machine{Memory: b.memory.Load(), Cores: int(b.cores.Load())}, nil
}

// Version returns the engine's version.
func (b *Backend) Version(ctx context.Context) (string, error) {
	if err := b.connect(ctx); err != nil {
		return "", err
	}
	version, err := b.client.ServerVersion(ctx)
	if err != nil {
		return "", b.unavailable(err)
	}
	return version.Version, nil
}

// unavailable explains an error of the engine to the user.
func (b *Backend) unavailable(err error) error {
	message := "Docker Engine refused the request"
	if unreachable(err) {
		message = fmt.Sprintf("Docker Engine does not answer at %s", b.Host())
	}
	return &execution.Error{Code: execution.Unavailable, Message: message, Err: execution.WithCause(engineCause(err), err)}
}

// unreachable reports whether the engine could not be reached. An error that the
// engine itself reports is another matter.
func unreachable(err error) bool {
	var operation *net.OpError
	return dockerclient.IsErrConnectionFailed(err) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &operation) && operation.Op == "dial"
}

// takeUser returns the user of a new container, which is unique if the engine allows
// that.
func (b *Backend) takeUser() int {
	if b.remapped.Load() {
		return hardening.User
	}
	return b.users.Take()
}

// hold notes a container that the sweep must leave alone, and its user, which is 0 where
// another server has chosen it.
func (b *Backend) hold(id string, user int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alive[id] = user
}

// drop forgets a container.
func (b *Backend) drop(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users.Release(b.alive[id])
	delete(b.alive, id)
}

func (b *Backend) holds(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, held := b.alive[id]
	return held
}
