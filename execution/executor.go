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
	// MaxInFlight bounds the requests that run or wait; one more is refused with
	// [Busy]. It must be positive. It is divided between owners, see [FairShare].
	MaxInFlight int
}

// Executor runs programs: it validates and admits a request, leases a sandbox,
// and runs the program in it. It is safe for concurrent use.
type Executor struct {
	sandboxes Sandboxes
	opts      Options
	share     *FairShare

	mu       sync.Mutex
	inFlight int
	closing  bool
	waiting  context.Context    //nolint:containedctx // ends when no request may wait for a sandbox any more
	stop     context.CancelFunc // ends it
	idle     chan struct{}      // closed when closing and nothing is in flight
}

// NewExecutor returns an Executor. Close it before the sandboxes it leases from.
func NewExecutor(sandboxes Sandboxes, opts Options) *Executor {
	waiting, stop := context.WithCancel(context.Background())
	return &Executor{
		sandboxes: sandboxes, opts: opts, share: NewFairShare(int64(opts.MaxInFlight)),
		waiting: waiting, stop: stop, idle: make(chan struct{}),
	}
}

// Limits returns the limits of every run.
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
		result, err = e.run(ctx, req) // the sandbox died while it was idle: try once more
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

// lease waits until a sandbox is available, the caller leaves, or Close fails all
// waiting requests.
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
		return e.busy(owner)
	}
	e.inFlight++
	return nil
}

// busy returns the error of a request that is not admitted. It does not reveal how
// many requests other owners have.
func (e *Executor) busy(owner Owner) error {
	message := "too many concurrent requests for this key; try again later"
	if owner == "" {
		message = fmt.Sprintf("too many concurrent requests (%d are running or waiting); try again later", e.opts.MaxInFlight)
	}
	return &Error{Code: Busy, Message: message}
}

func (e *Executor) leave(owner Owner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.share.Release(owner, 1)
	e.inFlight--
	e.closeIdleLocked()
}

// closeIdleLocked signals to Close that the last run has ended. It needs e.mu.
func (e *Executor) closeIdleLocked() {
	if e.closing && e.inFlight == 0 {
		close(e.idle)
	}
}

// Close rejects new requests, fails queued ones with [Unavailable] and waits for
// running ones until ctx ends. It may be called more than once.
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
