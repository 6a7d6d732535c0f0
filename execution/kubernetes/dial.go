package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

const (
	// listenTime is how long PID 1 may take until it listens. Pods have no probe, so that one
	// counts as ready when its Python starts.
	listenTime = 10 * time.Second
	// listenPause is how often it is tried meanwhile.
	listenPause = 50 * time.Millisecond
)

// dial connects to PID 1 of a pod.
func (b *Backend) dial(ctx context.Context, p *pod) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listenTime, fmt.Errorf("nothing listens in pod %s after %v", p.name, listenTime))
	defer cancel()
	for {
		conn, err := b.dialOnce(ctx, p)
		if !errors.Is(err, link.ErrRefused) {
			return conn, err
		}
		select {
		case <-time.After(listenPause):
		case <-b.index.watch(p).doomed:
			return nil, fmt.Errorf("pod %s is being deleted: %w", p.name, err)
		case <-ctx.Done():
			return nil, fmt.Errorf("pod %s: %w", p.name, errors.Join(context.Cause(ctx), err))
		}
	}
}

// dialOnce tries the addresses of a pod in their order. Which pod has an address may have
// changed; its key tells.
func (b *Backend) dialOnce(ctx context.Context, p *pod) (net.Conn, error) {
	var faults []error
	for _, address := range p.addresses {
		conn, err := b.opts.Dial(ctx, net.JoinHostPort(address, strconv.Itoa(b.opts.Port)), p.pin)
		if err == nil {
			return conn, nil
		}
		faults = append(faults, err)
	}
	return nil, errors.Join(faults...)
}

// endTime bounds the attempt to have PID 1 exit. Then the kubelet kills it.
const endTime = 2 * time.Second

// end has PID 1 of a pod exit, if it can be reached.
func (b *Backend) end(ctx context.Context, p *pod) {
	if b.opts.End == nil {
		return
	}
	for _, address := range p.addresses {
		if b.opts.End(ctx, net.JoinHostPort(address, strconv.Itoa(b.opts.Port)), p.pin) == nil {
			return
		}
	}
}

// bootTime bounds the sending of the supervisor.
const bootTime = 10 * time.Second

// boot has PID 1 become a supervisor.
func (b *Backend) boot(ctx context.Context, conn net.Conn, p *pod, spec execution.Spec, generation int) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetWriteDeadline(time.Now().Add(bootTime)); err != nil {
		return err
	}
	filter, err := b.filterFor(p)
	if err != nil {
		return err
	}
	err = link.Boot{
		Generation: generation, Texts: b.opts.Texts(spec), Environment: b.environment(spec),
		OwnNetwork: spec.Network != networkOfPod, Lasting: spec.Isolation == execution.IsolationSession,
		Zygotes: spec.Isolation == execution.IsolationRun, Filter: filter, Limits: processLimits(spec),
	}.Send(conn)
	if err != nil {
		return fmt.Errorf("sending the supervisor: %w", err)
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return conn.SetWriteDeadline(time.Time{})
}

// filterFor returns the seccomp filter of a pod that has none of its runtime.
func (b *Backend) filterFor(p *pod) ([]byte, error) {
	if p.facts.Seccomp || b.opts.Filters == nil {
		return nil, nil
	}
	if filter := b.opts.Filters[p.facts.Arch]; len(filter) > 0 {
		return filter, nil
	}
	return nil, fmt.Errorf("its runtime filters no system calls, and this server has no filter for %q", p.facts.Arch)
}

// leastPtys is how many pseudo-terminals the programs of a sandbox may always have open. A pod has
// them in any case. All containers of a node share a few thousand.
const leastPtys = 16

// environment returns the variables of PID 1 and of programs.
func (b *Backend) environment(spec execution.Spec) []string {
	spec.Ptys = max(spec.Ptys, leastPtys)
	return slices.Concat(b.opts.Environment, hardening.Environment(spec), []string{
		"HOSTNAME=" + hardening.Hostname,
		// At its limit the cgroup of a pod may end PID 1 too. The supervisor ends programs before that.
		"VIVARIUM_WATCH_MEMORY=" + strconv.FormatInt(spec.MemoryBytes, 10),
	})
}

// Numbers of resources, as Linux has them on each machine that it runs pods on (getrlimit(2)). The
// server may be another system.
const (
	limitData           = 2
	limitCore           = 4
	limitProcesses      = 6
	limitOpenFiles      = 7
	limitLockedBytes    = 8
	limitPendingSignals = 11
	limitMessageQueues  = 12
	smallestCore        = 1 // where dumps go to a program, 0 does not keep them from it: core(5)
)

// processLimits returns the limits that a pod's specification cannot express. The first bounds the
// private memory that a process may write to, also where it has not used it yet: so no single process
// takes memory faster than the supervisor looks, and a session keeps its interpreter. With the
// libraries of the data image it has 20 to 50 MB more of it than it uses.
func processLimits(spec execution.Spec) []link.Limit {
	return []link.Limit{
		{Resource: limitData, Most: uint64(spec.MemoryBytes)},
		{Resource: limitCore, Most: smallestCore},
		{Resource: limitProcesses, Most: uint64(hardening.Processes(spec))},
		{Resource: limitOpenFiles, Most: hardening.OpenFiles},
		{Resource: limitLockedBytes, Most: hardening.LockedBytes},
		{Resource: limitPendingSignals, Most: hardening.Signals},
		{Resource: limitMessageQueues, Most: 0},
	}
}
