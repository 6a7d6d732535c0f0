// Package kubernetes is the [execution.Backend] on a Kubernetes cluster: sandboxes are pods. A
// Deployment keeps blank pods ready. A server claims one with a patch of its labels, for which the
// Deployment makes another one, and connects to its PID 1 directly (package link). Of a run
// nothing passes through the apiserver. The controller agent-sandbox may take the Deployment's place.
//
// What servers share is in the pods' labels and annotations, and in a Lease for each server.
package kubernetes

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

const (
	// connectTime bounds the first exchange with the apiserver, the first lists included.
	connectTime = 10 * time.Second
	// blankTime bounds the wait for the first blank. Nodes that have the image take seconds.
	blankTime = time.Minute
	// networkOfPod is the network of a sandbox that has that of its pod.
	networkOfPod = "pod"
	// digestPrefix is in front of the version of the template in a digest.
	digestPrefix = "pool/"
)

// Options configure a [Backend].
type Options struct {
	// Kubeconfig is KUBECONFIG: paths of files, separated as in PATH. Empty means
	// ~/.kube/config, or without that the cluster that this process is a pod of.
	Kubeconfig string
	// Context names a context of Kubeconfig. Empty means its current one.
	Context string
	// Namespace is where the sandboxes are. Empty means that of the context, or of this pod.
	Namespace string
	// Pool names the Deployment of blank pods, or their SandboxWarmPool.
	Pool string
	// AgentSandbox has the controller agent-sandbox keep blank pods ready, instead of a Deployment.
	AgentSandbox bool
	// Port is where PID 1 of a pod listens.
	Port int
	// Image is the image that the pool must have. Empty means any.
	Image string
	// Settings are those of sandboxes, which the template of the pool must suit.
	Settings execution.Settings
	// Lifetime is the greatest age of a sandbox for runs from its claim on. Zero means a day.
	Lifetime time.Duration
	// Peer is the address at which other servers reach this one. It may be empty.
	Peer string
	// Dial connects to PID 1 of a pod, whose key has the pin.
	Dial func(ctx context.Context, address, pin string) (net.Conn, error)
	// End has PID 1 of a pod exit, and returns when it has. Nil leaves that to the kubelet.
	End func(ctx context.Context, address, pin string) error
	// Trusted returns why pods that trust only these certificates, as PEM, would reject this
	// server. Nil means that it is not asked.
	Trusted func(authorities []byte) error
	// Boot returns what PID 1 of a blank with these facts becomes.
	Boot func(execution.Spec, link.Facts) (link.Boot, error)
	// UserAgent names this program to the apiserver.
	UserAgent string
	// Log receives what goes wrong in the background. Nil discards it.
	Log *slog.Logger
}

// Backend starts sandboxes in a cluster. It is safe for concurrent use.
type Backend struct {
	opts    Options
	id      string // of this server, on its pods
	api     *api
	claimer claimer
	log     *slog.Logger

	index  *index
	leases *leases
	misses *rate.Limiter // of questions for sessions that the index does not have

	looking chan struct{} // holds one token; its holder may look at the pool

	mu       sync.Mutex
	pool     *pool           // as it was found last
	held     map[string]bool // the uids of pods that this server uses
	unwanted map[string]*pod // those that it could not delete, by uid
	expected map[string]bool // the names of SandboxClaims whose pods this server waits for
	doubted  map[string]*pod // sessions that this server may have lost, by uid
	resolved string          // what Resolve has returned last
	stop     func()          // ends the tasks in the background; nil before they start
	closed   bool
	tasks    sync.WaitGroup
}

// New makes a Backend. It does not talk to the cluster yet.
func New(opts Options) (*Backend, error) {
	if opts.Lifetime == 0 {
		opts.Lifetime = 24 * time.Hour
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	connection, err := newAPI(opts)
	if err != nil {
		return nil, err
	}
	const questions = 5 // a second
	b := &Backend{
		opts: opts, id: strings.ToLower(rand.Text()[:16]), api: connection, log: opts.Log, index: newIndex(),
		misses: rate.NewLimiter(questions, questions), looking: make(chan struct{}, 1),
		held: make(map[string]bool), unwanted: make(map[string]*pod), doubted: make(map[string]*pod), expected: make(map[string]bool),
	}
	b.leases, b.claimer = newLeases(b.index.wake), deploymentClaimer{b}
	if opts.AgentSandbox {
		b.claimer = agentClaimer{b}
	}
	return b, nil
}

// InstanceID returns the name of this server: the label vivarium.dev/holder of its pods.
func (b *Backend) InstanceID() string { return b.id }

// Host returns the apiserver's address.
func (b *Backend) Host() string { return b.api.host }

// Namespace returns where the sandboxes are.
func (b *Backend) Namespace() string { return b.api.namespace }

// Machine returns nothing: a cluster has many machines, and may get more.
func (b *Backend) Machine(context.Context) (execution.Machine, error) {
	return execution.Machine{}, nil
}

// Close ends what runs in the background, and releases this server's Lease. Sessions go on, and
// other servers take them over.
func (b *Backend) Close() error {
	b.mu.Lock()
	stop := b.stop
	b.closed = true
	b.mu.Unlock()
	if stop != nil {
		stop()
	}
	b.tasks.Wait()
	b.api.http.CloseIdleConnections()
	return nil
}

var errClosed = errors.New("the backend is closed")

// start begins to watch the pods and the Leases of a pool, and to renew this server's Lease. Only
// the first call does something.
func (b *Backend) start(label string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return errClosed
	case b.stop != nil:
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	selector := labelPool + "=" + label
	b.tasks.Go(func() { mirror(ctx, b.api.pods, examplePod(), selector, b.index, b.index.attempted) })
	b.tasks.Go(func() { mirror(ctx, b.api.leases, exampleLease(), selector, b.leases, b.leases.attempted) })
	b.tasks.Go(func() { b.keepLease(ctx, label) })
	b.tasks.Go(func() { b.watchPool(ctx) })
	return nil
}

// ready waits until this server knows the pool and its pods. It fails if the pool does not fit.
func (b *Backend) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTime, errSlow)
	defer cancel()
	found, err := b.current(ctx)
	if err != nil {
		return err
	}
	if fault := found.fault(b.api.namespace); fault != nil {
		return unavailable(fault.Error(), nil)
	}
	if err := b.start(found.label); err != nil { //nolint:contextcheck // it outlasts this call
		return unavailable("the server is shutting down", err)
	}
	var there bool
	if err := b.index.wait(ctx, func() bool {
		there, err = b.watches()
		return there || err != nil
	}); err != nil {
		return b.explain("watch pods and leases", err)
	}
	if there { // the index goes on while the apiserver does not answer
		return nil
	}
	return err
}

// watches returns whether the first lists are there, and why there is no list or watch at the
// moment.
func (b *Backend) watches() (there bool, err error) {
	pods, _, podFault := b.index.state()
	leases, leaseFault := b.leases.state()
	return pods && leases, cmp.Or(b.explain("list and watch pods", podFault), b.explain("list and watch leases", leaseFault))
}

// Check reports whether the apiserver answers, and whether the pool is there and fits.
func (b *Backend) Check(ctx context.Context) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	if _, err := b.watches(); err != nil {
		return err
	}
	return b.leases.renewal()
}

// Health reports whether there are sandboxes, or blanks for some. The sandboxes that this server
// has need no apiserver: while it does not answer, they serve.
func (b *Backend) Health(ctx context.Context) error {
	if b.holdsAny() {
		return nil
	}
	if err := b.Check(ctx); err != nil {
		return err
	}
	if b.index.hash() != "" {
		return nil
	}
	return b.noBlank(ctx, want{})
}

// Resolve returns the version of the pool's template as a digest. The pool has one image, whatever
// is asked for. While no blank is there, it is the version of the last one: sandboxes that are
// there serve on. The first call waits until a blank is there.
func (b *Backend) Resolve(ctx context.Context, _ string) (string, error) {
	if err := b.ready(ctx); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, blankTime)
	defer cancel()
	var hash string
	err := b.index.wait(ctx, func() bool {
		hash = b.resolve()
		return hash != ""
	})
	if err != nil {
		return "", b.noBlank(ctx, want{})
	}
	return digestPrefix + hash, nil
}

// resolve returns the version of the template that blanks have, or the last one had, or that new ones will have, or "".
func (b *Backend) resolve() string {
	hash, next := b.index.hash(), b.lastPool().hash
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resolved = cmp.Or(hash, b.resolved, next)
	return b.resolved
}

// hashOf returns the version of the template in a digest.
func hashOf(digest string) string { return strings.TrimPrefix(digest, digestPrefix) }

// hold notes that this server uses a pod, which the sweep must leave alone.
func (b *Backend) hold(uid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[uid] = true
}

// drop notes that this server does not use a pod any more.
func (b *Backend) drop(uid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, uid)
	delete(b.unwanted, uid)
}

// disown notes a pod that could not be deleted, for the sweep.
func (b *Backend) disown(p *pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, p.uid)
	b.unwanted[p.uid] = p
}

func (b *Backend) holds(uid string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held[uid]
}

func (b *Backend) holdsAny() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.held) > 0
}

func portText(port int) string { return strconv.Itoa(port) }
