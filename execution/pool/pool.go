// Package pool keeps sandboxes member, so that a run need not wait for one to
// start: for every kind of sandbox (image digest and settings) a subpool of idle
// ones, filled in the background.
//
// One budget counts all live sandboxes: idle, starting, leased, renewing and
// dying. After a run a sandbox is renewed and shelved again where it can be,
// else closed and replaced, all off the request's path. How a sandbox is
// started is the caller's business. When it is that one is started or closed
// stands in grow.go and retire.go, and whose it is in fairness_owners.go.
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

// Start starts a sandbox of some kind. It is called from goroutines of the
// pool's own, with a context that ends when the pool closes.
type Start func(ctx context.Context, spec execution.Spec) (execution.Sandbox, error)

// Options configure a [Pool].
type Options struct {
	// Target is how many sandboxes a subpool in use keeps idle or about to be.
	// Zero keeps none: a run waits for a start unless another run has just
	// ended.
	Target int
	// Max bounds all live sandboxes. It must be positive.
	Max int
	// Starts bounds those that start at the same time. Zero means 2.
	Starts int
	// IdleAfter is how long a subpool keeps idle sandboxes that nobody asks for.
	// Zero means forever.
	IdleAfter time.Duration
	// MaxAge is how old a sandbox may become before another replaces it, up to
	// a fifth less. Zero means any age.
	MaxAge time.Duration
	// MaxRuns is how many runs a sandbox may serve before another replaces it,
	// up to a fifth fewer. Zero means any number.
	MaxRuns int
	// Subpools is how many kinds are kept; one more drains the kind that was
	// not asked for the longest. Zero means 4.
	Subpools int
	// Log gets what goes wrong in the background. Nil means nowhere.
	Log *slog.Logger
}

// Stats count sandboxes by state.
type Stats struct {
	Idle, Starting, Leased, Renewing, Dying, Waiting int
}

// Pool hands out member sandboxes. It is safe for concurrent use.
type Pool struct {
	start Start
	opts  Options
	ctx   context.Context //nolint:containedctx // ends with the pool: the starts in the background run under it
	stop  context.CancelFunc
	tasks sync.WaitGroup // goroutines of the pool

	mu        sync.Mutex
	subpools  *simplelru.LRU[execution.Spec, *subpool]
	evicted   []*subpool // evicted subpools that somebody still waits at
	leased    map[*member]bool
	renewing  map[*member]bool
	dying     int
	growTimer *time.Timer // runs while somebody waits; nil else
	closed    bool
}

// New makes a Pool.
func New(start Start, opts Options) (*Pool, error) {
	if opts.Starts == 0 {
		opts.Starts = 2
	}
	if opts.Subpools == 0 {
		opts.Subpools = 4
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

var errClosed = &execution.Error{Code: execution.Unavailable, Message: "the server is shutting down"}

// Warm starts filling a subpool before anybody asks for a sandbox.
func (p *Pool) Warm(spec execution.Spec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.subpoolLocked(spec)
		p.growLocked()
	}
}

// faultAge is how long a failed start is told. Nothing need be started after
// it, so it would be told for ever else.
const faultAge = time.Minute

// Fault gives the error of the last start of a kind, or nil when that
// succeeded, is long ago, or none was made.
func (p *Pool) Fault(spec execution.Spec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.subpools.Peek(spec); ok && time.Since(s.faultAt) < faultAge {
		return s.fault
	}
	return nil
}

// Stats counts the sandboxes.
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

func (s Stats) live() int { return s.Idle + s.Starting + s.Leased + s.Renewing + s.Dying }

// Close sends home who waits, ends every sandbox, leased ones included, and
// returns when all are gone or ctx ends. It may be called more than once.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.stop()
		if p.growTimer != nil {
			p.growTimer.Stop()
		}
		for _, s := range p.allLocked() {
			p.closeIdleLocked(s)
			for _, w := range s.waiters {
				w.answer <- answer{err: errClosed}
			}
			s.waiters = nil
		}
		for w := range p.leased {
			p.closeLocked(w)
		}
		clear(p.leased)
	}
	p.mu.Unlock()
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
