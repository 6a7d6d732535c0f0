package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
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
	what, err := b.opts.Boot(spec, p.facts)
	if err != nil {
		return err
	}
	what.Generation = generation
	err = what.Send(conn)
	if err != nil {
		return fmt.Errorf("sending the supervisor: %w", err)
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return conn.SetWriteDeadline(time.Time{})
}
