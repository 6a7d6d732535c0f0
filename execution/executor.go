package execution

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Sandboxes hands out warm sandboxes.
type Sandboxes interface {
	// Lease waits for a sandbox. The caller calls release when it is done.
	Lease(ctx context.Context) (sandbox Sandbox, release func(), err error)
}

// Options configure an [Executor].
type Options struct {
	// Limits bound every run.
	Limits Limits
	// MaxInFlight is how many requests may run and wait together; one more is
	// refused with [Busy]. It must be positive. Of one owner there may be fewer, see
	// [FairShare].
	MaxInFlight int
}

// Executor runs programs: it validates and admits a request, leases a sandbox,
// and runs the program there. It is safe for concurrent use.
type Executor struct {
	sandboxes Sandboxes
	opts      Options
	share     *FairShare

	mu       sync.Mutex
	inFlight int
	closing  bool
	waiting  context.Context    //nolint:containedctx // ends when waiting for a sandbox is over for all
	stop     context.CancelFunc // ends it
	idle     chan struct{}      // closed when closing and nothing is in flight
}

// NewExecutor makes an Executor. Close it before the sandboxes it leases from.
func NewExecutor(sandboxes Sandboxes, opts Options) *Executor {
	waiting, stop := context.WithCancel(context.Background())
	return &Executor{
		sandboxes: sandboxes, opts: opts, share: NewFairShare(int64(opts.MaxInFlight)),
		waiting: waiting, stop: stop, idle: make(chan struct{}),
	}
}

// Limits gives the limits of every run.
func (e *Executor) Limits() Limits { return e.opts.Limits }

// Execute runs a program. Its error is always an [*Error].
func (e *Executor) Execute(ctx context.Context, req Request) (*Result, error) {
	arrived := time.Now()
	req, err := req.Validate(ctx, e.opts.Limits)
	if err != nil {
		return nil, err
	}
	owner := OwnerOf(ctx)
	if err := e.enter(owner); err != nil {
		return nil, err
	}
	defer e.leave(owner)
	admitted := time.Now()
	result, err := e.run(ctx, req)
	if errors.Is(err, ErrNotStarted) && ctx.Err() == nil {
		result, err = e.run(ctx, req) // the sandbox died while it was idle: once more
	}
	switch {
	case err == nil:
		result.Queue = max(0, result.Started.Sub(arrived))
		result.Stages.Admit = admitted.Sub(arrived)
		return result, nil
	case ctx.Err() != nil:
		return nil, CancelledError(ctx)
	case errors.Is(err, ErrNotStarted):
		return nil, &Error{Code: Unavailable, Message: "no sandbox could run the program; try again", Err: err}
	}
	return nil, AsError(err)
}

func (e *Executor) run(ctx context.Context, req Request) (*Result, error) {
	began := time.Now()
	sandbox, release, err := e.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	leased := time.Now()
	result, err := sandbox.Run(ctx, req, e.opts.Limits)
	if err == nil {
		result.Stages.Lease = leased.Sub(began)
	}
	return result, err
}

// lease waits for a sandbox until one is there, the caller leaves or Close
// sends everybody home who waits.
func (e *Executor) lease(ctx context.Context) (Sandbox, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	detach := context.AfterFunc(e.waiting, func() { cancel(errClosing) })
	defer detach()
	sandbox, release, err := e.sandboxes.Lease(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errClosing) {
		return nil, nil, errClosing
	}
	return sandbox, release, err
}

var errClosing = &Error{Code: Unavailable, Message: "the server is shutting down"}

func (e *Executor) enter(owner Owner) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closing:
		return errClosing
	case !e.share.TryAcquire(owner, 1):
		return &Error{Code: Busy, Message: e.busy(owner)}
	}
	e.inFlight++
	return nil
}

// busy says that no more requests are taken. How many others have is not told.
func (e *Executor) busy(owner Owner) string {
	if owner != "" {
		return "as many requests of yours are running and waiting as may at the moment; try again later"
	}
	return fmt.Sprintf("%d requests are running and waiting, as many as may; try again later", e.opts.MaxInFlight)
}

func (e *Executor) leave(owner Owner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.share.Release(owner, 1)
	e.inFlight--
	e.closeIdleLocked()
}

// closeIdleLocked tells Close that the last run has ended. It needs e.mu.
func (e *Executor) closeIdleLocked() {
	if e.closing && e.inFlight == 0 {
		close(e.idle)
	}
}

// Close refuses new requests, sends home those that wait for a sandbox, and
// waits for those that run until ctx ends. It may be called more than once.
func (e *Executor) Close(ctx context.Context) error {
	e.mu.Lock()
	if !e.closing {
		e.closing = true
		e.stop()
		e.closeIdleLocked()
	}
	e.mu.Unlock()
	select {
	case <-e.idle:
		return nil
	default:
	}
	select {
	case <-e.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("runs did not end in time: %w", context.Cause(ctx))
	}
}
