package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/blank"
	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
	"github.com/vivarium-sandbox/vivarium/execution/link"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// claims are what a server does with pods, without a server and HTTP.
func (o options) claims() []benchCase {
	return []benchCase{
		{name: "claim, a blank is there", pods: true, turn: o.claimOneByOne},
		{name: "claims at once, one more than blanks", pods: true, turn: claimTooMany},
		{name: "reset", pods: true, turn: o.resetAgainAndAgain},
	}
}

// claimant claims pods of a pool and boots their sandboxes, as a server does.
type claimant struct {
	pool    *cluster.Pool
	backend *kubernetes.Backend
	spec    execution.Spec
}

// phases are the parts of a claim: until the pod is this server's, until the connection is there,
// and until the supervisor is ready.
type phases struct{ patch, connect, boot time.Duration }

func (p phases) all() time.Duration { return p.patch + p.connect + p.boot }

// attempt is when a pod was dialled for a claim. It is in the context of the claim.
type attempt struct{ began, ended time.Time }

type attemptKey struct{}

func newClaimant(ctx context.Context, c *contender) (*claimant, error) {
	settings, err := config.Load(ctx, lookupIn(c.launcher.environment))
	if err != nil {
		return nil, err
	}
	if settings, err = settings.ForMachine(config.Machine{}); err != nil {
		return nil, err
	}
	credentials, err := link.LoadCredentials(settings.KubernetesLinkDir)
	if err != nil {
		return nil, err
	}
	maker, err := blank.NewMaker()
	if err != nil {
		return nil, err
	}
	sandboxes := execution.Settings{
		Isolation: execution.IsolationRun, Preload: settings.PreloadModules, Network: settings.Network,
		MemoryBytes: int64(settings.MemoryLimitMB) << 20, CPUs: settings.CPULimit, Processes: int64(settings.PidsLimit), Ptys: int64(settings.PtyLimit),
		WorkspaceBytes: int64(settings.WorkspaceLimitMB) << 20, TempBytes: int64(settings.TmpLimitMB) << 20,
	}
	dial := func(ctx context.Context, address, pin string) (net.Conn, error) {
		began := time.Now()
		conn, err := credentials.Dial(ctx, address, pin)
		if err != nil {
			return nil, err
		}
		if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
			*a = attempt{began, time.Now()}
		}
		return conn, nil
	}
	backend, err := kubernetes.New(kubernetes.Options{
		Kubeconfig: settings.Kubeconfig, Namespace: settings.KubernetesNamespace, Pool: settings.KubernetesPool, Port: settings.KubernetesLinkPort,
		Settings: sandboxes, Dial: dial, Boot: maker.Boot, UserAgent: "vivarium-bench",
	})
	if err != nil {
		return nil, err
	}
	digest, err := backend.Resolve(ctx, "")
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	return &claimant{c.pool, backend, execution.Spec{Image: digest, Settings: sandboxes}}, nil
}

// lookupIn reads the variables of an environment, of which the last of a name counts.
func lookupIn(environment []string) lookup {
	return func(name string) (value string, found bool) {
		for _, entry := range environment {
			if v, ok := strings.CutPrefix(entry, name+"="); ok {
				value, found = v, true
			}
		}
		return value, found
	}
}

// claim returns a sandbox that is ready.
func (c *claimant) claim(ctx context.Context) (*runner.Sandbox, phases, error) {
	var dialled attempt
	began := time.Now()
	instance, err := c.backend.Start(context.WithValue(ctx, attemptKey{}, &dialled), c.spec)
	if err != nil {
		return nil, phases{}, err
	}
	sandbox, err := runner.Open(ctx, instance, slog.New(slog.DiscardHandler))
	return sandbox, phases{dialled.began.Sub(began), dialled.ended.Sub(dialled.began), time.Since(dialled.ended)}, err
}

// claimOneByOne claims a blank when all are there, and ends the sandbox.
func (o options) claimOneByOne(ctx context.Context, side *contender) (figures []figure, err error) {
	c, err := newClaimant(ctx, side)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.backend.Close()) }()
	var all []phases
	for began := time.Now(); len(all) == 0 || time.Since(began) < o.each; {
		if err := side.awaitBlanks(ctx); err != nil {
			return nil, err
		}
		sandbox, took, err := c.claim(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, took)
		if err := sandbox.Close(); err != nil {
			return nil, err
		}
	}
	return phaseFigures(all), nil
}

// phaseFigures returns what claims took, and the medians of their parts.
func phaseFigures(all []phases) []figure {
	of := func(percent float64, part func(phases) time.Duration) float64 {
		var values []time.Duration
		for _, p := range all {
			values = append(values, part(p))
		}
		return milliseconds(percentile(values, percent))
	}
	return []figure{
		{"p50 ms", of(50, phases.all)},
		{"p99 ms", of(99, phases.all)},
		{"patch ms", of(50, func(p phases) time.Duration { return p.patch })},
		{"connect ms", of(50, func(p phases) time.Duration { return p.connect })},
		{"boot ms", of(50, func(p phases) time.Duration { return p.boot })},
	}
}

// claimTooMany claims all blanks and one more pod at once, and waits until the pool is full again.
func claimTooMany(ctx context.Context, side *contender) (figures []figure, err error) {
	c, err := newClaimant(ctx, side)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.backend.Close()) }()
	refill, err := watchRefill(ctx, side.pool)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	all, err := c.claimAll(ctx, side.pool.Blanks+1)
	if err != nil {
		return nil, err
	}
	births, err := refill()
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	slices.SortFunc(all, func(a, b phases) int { return int(a.all() - b.all()) })
	last := all[len(all)-1]
	return append(phaseFigures(all[:len(all)-1]),
		figure{"without a blank ms", milliseconds(last.all())},
		figure{"refill pods/s", float64(len(births)) / took.Seconds()},
		figure{"pod, from creation to ready ms", milliseconds(percentile(births, 50))},
	), nil
}

// claimAll claims pods at once, and ends the sandboxes when the last one is ready.
func (c *claimant) claimAll(ctx context.Context, n int) ([]phases, error) {
	all, failures := make([]phases, n), make([]error, n)
	var claims, ends sync.WaitGroup
	claims.Add(n)
	for i := range n {
		ends.Go(func() {
			sandbox, took, err := c.claim(ctx)
			all[i], failures[i] = took, err
			claims.Done()
			claims.Wait()
			if err == nil {
				failures[i] = sandbox.Close()
			}
		})
	}
	ends.Wait()
	return all, errors.Join(failures...)
}

// watchRefill watches the blanks of a pool. It returns a function that waits until the pool is
// full after one claim more than it has blanks, and returns how long each new pod took from its
// creation until it was ready, as the watch has shown it.
func watchRefill(ctx context.Context, pool *cluster.Pool) (wait func() ([]time.Duration, error), err error) {
	before, err := pool.Pods(ctx, pool.Namespace, pool.Selector(cluster.StateFree))
	if err != nil {
		return nil, err
	}
	old := make(map[string]bool)
	for _, pod := range before.Items {
		old[string(pod.UID)] = true
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fullTime, fmt.Errorf("the pool is not full after %v", fullTime))
	var births []time.Duration
	ended := make(chan error, 1)
	go func() {
		created, ready := make(map[string]time.Time), make(map[string]bool)
		ended <- pool.WatchPods(ctx, pool.Namespace, pool.Selector(cluster.StateFree), before.ResourceVersion, func(pod *corev1.Pod, _ bool) bool {
			uid, now := string(pod.UID), time.Now()
			switch {
			case old[uid] || ready[uid]:
			case created[uid].IsZero():
				created[uid] = now
			case cluster.IsReady(pod):
				ready[uid], births = true, append(births, now.Sub(created[uid]))
			}
			return len(births) <= pool.Blanks
		})
	}()
	return func() ([]time.Duration, error) {
		defer cancel()
		err := <-ended
		return births, err
	}, nil
}

// afterReset is how long a sandbox is left alone after a reset. With a CPU limit of 1 it has used up its share of time by
// then, of which the kernel gives more every 100 ms, and the zygotes still warm up.
const afterReset = 300 * time.Millisecond

// resetAgainAndAgain resets one sandbox.
func (o options) resetAgainAndAgain(ctx context.Context, side *contender) (figures []figure, err error) {
	c, err := newClaimant(ctx, side)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.backend.Close()) }()
	claimed, _, err := c.claim(ctx)
	if err != nil {
		return nil, err
	}
	var sandbox execution.Sandbox = claimed
	defer func() { err = errors.Join(err, sandbox.Close()) }()
	var times tally
	for began := time.Now(); time.Since(began) < o.each; {
		if err := sleep(ctx, afterReset); err != nil {
			return nil, err
		}
		resettable, ok := sandbox.(interface {
			Reset(ctx context.Context) (execution.Sandbox, error)
		})
		if !ok {
			return nil, errors.New("the sandbox cannot be reset")
		}
		start := time.Now()
		anew, err := resettable.Reset(ctx)
		if err != nil {
			return nil, err
		}
		times.timings = append(times.timings, timing{took: time.Since(start)})
		sandbox = anew
	}
	return []figure{{"p50 ms", times.took(50)}, {"p99 ms", times.took(99)}}, nil
}
