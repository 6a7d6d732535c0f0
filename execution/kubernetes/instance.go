package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// mostPods is how many pods a start tries, if PID 1 of one cannot be reached.
	mostPods = 3
	// releaseBound bounds the end of a pod, which no caller's cancellation shortens.
	releaseBound = 30 * time.Second
)

// instance is a link to PID 1 of a pod. It implements [execution.Instance].
type instance struct {
	net.Conn
	backend    *Backend
	pod        *pod
	spec       execution.Spec // not of a session that was attached to
	generation int
	fate       *fate
	left       atomic.Bool // this server has closed the link

	destroy sync.Once
	gone    chan struct{} // closed when Destroy has finished
	failure error         // the result of Destroy; set before gone is closed
}

// Start claims a blank and boots its PID 1. A pod that cannot be reached is deleted, and another
// one claimed.
func (b *Backend) Start(ctx context.Context, spec execution.Spec) (execution.Instance, error) {
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	var faults []error
	for range mostPods {
		p, err := b.claimer.Claim(ctx, wanted(spec))
		if err != nil {
			return nil, errors.Join(append(faults, err)...)
		}
		started, err := b.begin(ctx, p, spec)
		if err == nil {
			return started, nil
		}
		b.abandon(ctx, p)
		faults = append(faults, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, &execution.Error{Code: execution.Unavailable, Message: "no sandbox pod can be reached on port " + portText(b.opts.Port), Err: errors.Join(faults...)}
}

// begin connects to a pod that was claimed, and boots it.
func (b *Backend) begin(ctx context.Context, p *pod, spec execution.Spec) (*instance, error) {
	conn, err := b.dial(ctx, p)
	if err != nil {
		return nil, err
	}
	const first = 1 // the generation of a blank
	if err := b.boot(ctx, conn, p, spec, first); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("pod %s: %w", p.name, err)
	}
	i := b.newInstance(conn, p, spec, first)
	select {
	case <-i.fate.doomed: // nothing of it would last
		_ = conn.Close()
		return nil, fmt.Errorf("pod %s was deleted while it was claimed", p.name)
	default:
		return i, nil
	}
}

func (b *Backend) newInstance(conn net.Conn, p *pod, spec execution.Spec, generation int) *instance {
	return &instance{Conn: conn, backend: b, pod: p, spec: spec, generation: generation, fate: b.index.watch(p), gone: make(chan struct{})}
}

// wanted returns what a claim must find for a sandbox.
func wanted(spec execution.Spec) want {
	w := want{
		hash: hashOf(spec.Image), state: stateRun, namespaces: spec.Isolation == execution.IsolationRun,
		network: spec.Network != networkOfPod, session: spec.Session,
	}
	if spec.Isolation == execution.IsolationSession {
		w.state = stateSession
	}
	return w
}

// abandon deletes a pod without waiting for its end. The sweep does what fails here.
func (b *Backend) abandon(ctx context.Context, p *pod) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseBound)
	defer cancel()
	if err := b.claimer.Delete(ctx, p); err != nil {
		b.log.WarnContext(ctx, "a pod that cannot be used could not be deleted", "pod", p.name, "error", err)
	}
}

// Read implements [io.Reader].
func (i *instance) Read(p []byte) (int, error) {
	n, err := i.Conn.Read(p)
	if err != nil && i.pod.state == stateSession && !i.left.Load() {
		i.backend.doubt(i.pod)
	}
	return n, err
}

// Close implements [io.Closer].
func (i *instance) Close() error {
	i.left.Store(true)
	return i.Conn.Close()
}

// Diagnostics returns nothing: a supervisor that fails sends the reason on its stream.
func (i *instance) Diagnostics() string { return "" }

// Destroy closes the link, with which PID 1 ends, and deletes the pod.
func (i *instance) Destroy(ctx context.Context) error {
	i.destroy.Do(func() {
		_ = i.Close()
		go func() {
			defer close(i.gone)
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseBound)
			defer cancel()
			i.failure = i.backend.remove(ctx, i.pod)
		}()
	})
	select {
	case <-i.gone:
		return i.failure
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Kill is Destroy: the kubelet kills a PID 1 that does not end.
func (i *instance) Kill(ctx context.Context) error { return i.Destroy(ctx) }

// Detach closes the link. Without one a sandbox for runs ends, and the sweep deletes its pod.
func (i *instance) Detach() {
	_ = i.Close()
	i.backend.drop(i.pod.uid)
}

// Reset implements [execution.Resetter]. PID 1 ends everything when its link does, and then waits
// for the next generation.
func (i *instance) Reset(ctx context.Context) (execution.Instance, error) {
	_ = i.Close()
	conn, err := i.backend.dial(ctx, i.pod)
	if err != nil {
		return nil, err
	}
	next := i.generation + 1
	if err := i.backend.boot(ctx, conn, i.pod, i.spec, next); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("pod %s: %w", i.pod.name, err)
	}
	return i.backend.newInstance(conn, i.pod, i.spec, next), nil
}

// Doomed returns a channel that is closed when the pod is to go: it is being deleted, or its node
// vacated.
func (i *instance) Doomed() <-chan struct{} { return i.fate.doomed }

// Class identifies the kind of node that the sandbox is on.
func (i *instance) Class() string { return i.pod.class() }

// Postmortem returns why the pod has ended, "" if that is not known, and whether it ran out of
// memory. It is called after the stream's end, and waits for the kubelet's report until ctx ends.
func (i *instance) Postmortem(ctx context.Context) (why string, memory bool) {
	var last *pod
	_ = i.backend.index.wait(ctx, func() bool { // without a report in time there is nothing to say
		now := i.backend.index.get(i.pod.name, i.pod.uid)
		if now == nil {
			return true
		}
		last = now
		return now.why != ""
	})
	switch {
	case last == nil:
		return "the pod was deleted", false
	case last.why == "" && i.backend.index.get(i.pod.name, i.pod.uid) == nil:
		return "the pod was deleted", false
	}
	return last.why, last.memory
}
