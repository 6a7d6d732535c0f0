// Package pool keeps sandboxes warm, so that a run does not wait for a sandbox to start.
//
// A template ([execution.Spec]) is an image digest and settings. Sandboxes of one template
// are interchangeable, so each template has a subpool of idle sandboxes, which the pool
// fills in the background. One budget bounds all live sandboxes: idle, starting, leased,
// renewing and dying. After a run the pool renews or resets the sandbox and makes it idle
// again, or closes and replaces it; the request does not wait for that. The caller of [New]
// passes the function that starts a sandbox.
//
// Each policy has a file:
//
//	grow.go                 when a subpool needs another sandbox
//	bare.go                 when a sandbox preloads nothing, and how long it is kept
//	cores.go                when the cores can serve another one
//	retire.go               when a sandbox is closed, or reset
//	fairness_templates.go   how templates share the budget
//	fairness_owners.go      how owners share the sandboxes of a template
package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Start starts a sandbox of a template. The pool calls it in its own goroutines, with a
// context that ends when the pool closes.
type Start func(ctx context.Context, spec execution.Spec) (execution.Sandbox, error)

// Options configure a [Pool].
type Options struct {
	// Target is how many sandboxes of a template in use are idle or about to be. Zero
	// keeps none ready: a run waits for a start unless another run has just ended.
	Target int
	// Max bounds all live sandboxes. It must be positive.
	Max int
	// AtWork is how many sandboxes can use the cores at once. While as many do, callers
	// wait for one of them, and no other is started. Zero means Max.
	AtWork int
	// Starts bounds how many sandboxes start at the same time. Zero means 2.
	Starts int
	// IdleAfter is how long a template keeps its idle sandboxes after the last request
	// for it. Zero means forever.
	IdleAfter time.Duration
	// MaxAge is the age at which a sandbox is replaced. Each sandbox's own limit is up to
	// a fifth lower. Zero means any age.
	MaxAge time.Duration
	// MaxRuns is the number of runs after which a sandbox is replaced. Each sandbox's own
	// limit is up to a fifth lower. Zero means any number.
	MaxRuns int
	// Subpools is how many templates have a subpool. A further template replaces the one
	// that was requested least recently. Zero means 4.
	Subpools int
	// Log receives failures in the background. Nil discards them.
	Log *slog.Logger
}

// Stats are the numbers of sandboxes by state, and of callers that wait for one.
type Stats struct {
	Idle, Starting, Leased, Renewing, Dying, Waiting int
}

func (s Stats) live() int { return s.Idle + s.Starting + s.Leased + s.Renewing + s.Dying }

// Pool leases warm sandboxes. It is safe for concurrent use.
type Pool struct {
	start Start
	opts  Options
	ctx   context.Context //nolint:containedctx // ends with the pool: the starts in the background run under it
	stop  context.CancelFunc
	tasks sync.WaitGroup // the pool's goroutines

	// mu guards the fields below, and those of all subpools and members. A sandbox is in
	// exactly one place while mu is free: idle in its subpool, in leased, in renewing, or
	// counted in dying.
	//
	// There is no I/O while mu is held: sandboxes are started, renewed, checked and closed
	// by goroutines that take mu only to record the outcome. What is called with mu held
	// (Done, Doomed, Silent, Reusable, Resettable, Bare) does not block. Functions that need mu are named xLocked.
	mu        sync.Mutex
	subpools  *simplelru.LRU[execution.Spec, *subpool]
	evicted   []*subpool // no longer in subpools, but with callers or starts
	leased    map[*member]bool
	renewing  map[*member]bool
	dying     int
	growTimer *time.Timer // runs while callers wait; nil otherwise
	closed    bool
}

// New returns a Pool without sandboxes. It fails if opts.Subpools is negative.
func New(start Start, opts Options) (*Pool, error) {
	if opts.Starts == 0 {
		opts.Starts = 2
	}
	if opts.Subpools == 0 {
		opts.Subpools = 4
	}
	if opts.AtWork == 0 {
		opts.AtWork = opts.Max
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Pool{start: start, opts: opts, ctx: ctx, stop: stop, leased: make(map[*member]bool), renewing: make(map[*member]bool)}
	subpools, err := simplelru.NewLRU(opts.Subpools, p.evictLocked)
	if err != nil {
		stop()
		return nil, fmt.Errorf("pool: %w", err)
	}
	p.subpools = subpools
	p.tasks.Go(p.maintain)
	return p, nil
}

// Warm starts to fill the subpool of a template before the first request for it. It does
// not block.
func (p *Pool) Warm(spec execution.Spec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.subpoolLocked(spec)
		p.growLocked()
	}
}

// faultAge is how long [Pool.Fault] returns the error of a failed start. Without a limit it
// would do so forever where no further start is needed.
const faultAge = time.Minute

// Fault returns the error of a template's last start, if it has no sandbox. It returns nil if
// that start succeeded or failed more than a minute ago, or if there was none.
func (p *Pool) Fault(spec execution.Spec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.subpools.Peek(spec); ok && time.Since(s.faultAt) < faultAge && len(p.membersLocked(s)) == 0 {
		return s.fault
	}
	return nil
}

// Stats returns the current numbers.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.statsLocked()
}

func (p *Pool) statsLocked() Stats {
	counts := Stats{Leased: len(p.leased), Renewing: len(p.renewing), Dying: p.dying}
	for _, s := range p.allLocked() {
		counts.Idle += len(s.idle)
		counts.Starting += s.starting
		counts.Waiting += len(s.waiters)
	}
	return counts
}

var errClosed = &execution.Error{Code: execution.Unavailable, Message: "the server is shutting down"}

// Close fails the callers that wait with code [execution.Unavailable], closes every
// sandbox, including leased ones, and waits until all are gone or ctx ends. It may be
// called more than once.
func (p *Pool) Close(ctx context.Context) error {
	p.closeAll()
	gone := make(chan struct{})
	go func() {
		p.tasks.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("sandboxes did not end in time"), context.Cause(ctx))
	}
}

func (p *Pool) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.stop()
	if p.growTimer != nil {
		p.growTimer.Stop()
	}
	for _, s := range p.allLocked() {
		p.closeIdleLocked(s)
		for len(s.waiters) > 0 {
			s.removeWaiter(0).answer <- answer{err: errClosed}
		}
	}
	for m := range p.leased {
		p.closeLocked(m)
	}
	clear(p.leased)
}
