// Package pool keeps sandboxes warm, so that a run need not wait for one to
// start: for every kind of sandbox (image digest and settings) a shelf of idle
// ones, filled in the background.
//
// One budget counts all live sandboxes: idle, starting, leased, renewing and
// dying. After a run a sandbox is renewed and shelved again where it can be,
// else closed and replaced, all off the request's path. How a sandbox is
// started is the caller's business. When it is that one is started or closed
// stands in policy.go, and whose it is in owners.go.
package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	// Target is how many sandboxes a shelf in use keeps idle or about to be.
	// Zero keeps none: a run waits for a start unless another run has just
	// ended.
	Target int
	// Max bounds all live sandboxes. It must be positive.
	Max int
	// Starts bounds those that start at the same time. Zero means 2.
	Starts int
	// IdleAfter is how long a shelf keeps idle sandboxes that nobody asks for.
	// Zero means forever.
	IdleAfter time.Duration
	// MaxAge is how old a sandbox may become before another replaces it, up to
	// a fifth less. Zero means any age.
	MaxAge time.Duration
	// MaxRuns is how many runs a sandbox may serve before another replaces it,
	// up to a fifth fewer. Zero means any number.
	MaxRuns int
	// Shelves is how many kinds are kept; one more drains the kind that was
	// not asked for the longest. Zero means 4.
	Shelves int
	// Log gets what goes wrong in the background. Nil means nowhere.
	Log *slog.Logger
}

// Stats count sandboxes by state.
type Stats struct {
	Idle, Starting, Leased, Renewing, Dying, Waiting int
}

// Pool hands out warm sandboxes. It is safe for concurrent use.
type Pool struct {
	start Start
	opts  Options
	ctx   context.Context //nolint:containedctx // ends with the pool: the starts in the background run under it
	stop  context.CancelFunc
	tasks sync.WaitGroup // goroutines of the pool

	mu       sync.Mutex
	shelves  *simplelru.LRU[execution.Spec, *shelf]
	drained  []*shelf // evicted shelves that somebody still waits at
	leased   map[*warm]bool
	renewing map[*warm]bool
	dying    int
	nudge    *time.Timer // runs while somebody waits; nil else
	closed   bool
}

// shelf holds the sandboxes of one kind. Pool.mu guards it.
type shelf struct {
	spec     execution.Spec
	idle     []*warm // idle the longest first
	least    int     // the fewest that were idle since trimmed
	trimmed  time.Time
	waiters  []*waiter
	starting int
	reusable bool      // its sandboxes serve more than one run, as far as is known
	wanted   time.Time // when it was last asked for a sandbox
	backOff  backOff
	fault    error // of the last start
	faultAt  time.Time
	evicted  bool // it keeps nothing idle any more
}

// warm is an idle, leased or renewing sandbox.
type warm struct {
	execution.Sandbox
	shelf  *shelf
	since  time.Time       // when it was started
	leased time.Time       // when it was last leased
	runs   int             // that are over
	owner  execution.Owner // for whom it has run, or is leased now; of no meaning before that

	maxRuns int           // 0: any number
	maxAge  time.Duration // 0: any age
}

// waiter is a Lease that waits. Its channel has room for its one answer.
type waiter struct {
	answer chan answer
	since  time.Time
	owner  execution.Owner
}

type answer struct {
	sandbox *warm
	err     error
}

// New makes a Pool.
func New(start Start, opts Options) (*Pool, error) {
	if opts.Starts == 0 {
		opts.Starts = 2
	}
	if opts.Shelves == 0 {
		opts.Shelves = 4
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Pool{start: start, opts: opts, ctx: ctx, stop: stop, leased: make(map[*warm]bool), renewing: make(map[*warm]bool)}
	shelves, err := simplelru.NewLRU(opts.Shelves, p.drainLocked)
	if err != nil {
		stop()
		return nil, fmt.Errorf("pool: %w", err)
	}
	p.shelves = shelves
	p.tasks.Go(p.tend)
	return p, nil
}

var errClosed = &execution.Error{Code: execution.Unavailable, Message: "the server is shutting down"}

// Lease waits for a sandbox of some kind that has run for nobody but the owner of
// the request. The caller calls release when it is done; that returns at once.
func (p *Pool) Lease(ctx context.Context, spec execution.Spec) (sandbox execution.Sandbox, release func(), err error) {
	w := p.ask(spec, execution.OwnerOf(ctx))
	select {
	case a := <-w.answer:
		return p.lend(a)
	case <-ctx.Done():
		p.withdraw(spec, w)
		return nil, nil, context.Cause(ctx)
	}
}

func (p *Pool) lend(a answer) (execution.Sandbox, func(), error) {
	if a.err != nil {
		return nil, nil, a.err
	}
	return a.sandbox, func() { p.release(a.sandbox) }, nil
}

// ask puts a waiter at a shelf and serves it at once if that can be.
func (p *Pool) ask(spec execution.Spec, owner execution.Owner) *waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &waiter{answer: make(chan answer, 1), since: time.Now(), owner: owner}
	if p.closed {
		w.answer <- answer{err: errClosed}
		return w
	}
	s := p.shelfLocked(spec)
	s.waiters = append(s.waiters, w)
	p.serveLocked(s)
	if len(s.waiters) > 0 {
		p.fillLocked()
		p.nudgeLocked()
	} // else a start would take the cores from the run that begins: see release
	return w
}

// Warm starts filling a shelf before anybody asks for a sandbox.
func (p *Pool) Warm(spec execution.Spec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.shelfLocked(spec)
		p.fillLocked()
	}
}

// withdraw takes back a waiter. A sandbox that it was given meanwhile goes
// back to the shelf, unless that is gone.
func (p *Pool) withdraw(spec execution.Spec, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.allLocked() {
		if i := slices.Index(s.waiters, w); i >= 0 {
			s.waiters = slices.Delete(s.waiters, i, i+1)
			return
		}
	}
	a := <-w.answer
	if a.sandbox == nil || !p.leased[a.sandbox] {
		return
	}
	delete(p.leased, a.sandbox)
	if s, ok := p.shelves.Peek(spec); ok && !isDone(a.sandbox) {
		p.shelveLocked(s, a.sandbox)
	} else {
		p.closeLocked(a.sandbox)
	}
	p.fillLocked()
}

// shelfLocked gives the shelf of a kind, which counts as asked for.
func (p *Pool) shelfLocked(spec execution.Spec) *shelf {
	s, ok := p.shelves.Get(spec)
	if !ok {
		s = &shelf{spec: spec, trimmed: time.Now()}
		p.shelves.Add(spec, s)
	}
	s.wanted = time.Now()
	return s
}

// allLocked gives all shelves, the one not asked for the longest first.
func (p *Pool) allLocked() []*shelf {
	return append(slices.Clone(p.drained), p.shelves.Values()...)
}

// shelveLocked gives a sandbox to who waits at a shelf, or puts it there.
func (p *Pool) shelveLocked(s *shelf, w *warm) {
	s.idle = append(s.idle, w)
	p.serveLocked(s)
	if p.closed || s.evicted {
		p.emptyLocked(s)
	}
	for !s.reusable && len(s.idle) > p.opts.Target { // it was started for somebody who has left meanwhile
		p.closeLocked(s.idle[0])
		s.idle = slices.Delete(s.idle, 0, 1)
	}
}

// serveLocked gives idle sandboxes to waiters.
func (p *Pool) serveLocked(s *shelf) {
	defer func() { s.least = min(s.least, len(s.idle)) }()
	for {
		waiter, idle := p.matchLocked(s)
		if idle < 0 {
			return
		}
		w := s.idle[idle]
		s.idle = slices.Delete(s.idle, idle, idle+1)
		if isDone(w) {
			p.closeLocked(w)
			continue
		}
		p.leased[w] = true
		w.leased, w.owner = time.Now(), s.waiters[waiter].owner
		s.waiters[waiter].answer <- answer{sandbox: w}
		s.waiters = slices.Delete(s.waiters, waiter, waiter+1)
	}
}

// fillLocked starts what the shelves lack (see policy.go): first for callers
// who wait, the shelf of the one who waits the longest first, then for the
// targets, the shelf that was asked for last first.
func (p *Pool) fillLocked() {
	shelves := p.allLocked()
	slices.SortStableFunc(shelves, byWaiting)
	if !p.startAllLocked(shelves, p.lacksForCallersLocked) {
		return
	}
	shelves = p.allLocked()
	slices.Reverse(shelves)
	if !p.startAllLocked(shelves, p.lacksLocked) {
		return
	}
	p.drained = slices.DeleteFunc(p.drained, func(s *shelf) bool { return len(s.waiters) == 0 && s.starting == 0 })
}

// startAllLocked starts what shelves lack. It returns false when there is no
// room for somebody who waits: what room there will be is theirs.
func (p *Pool) startAllLocked(shelves []*shelf, lacks func(*shelf) bool) bool {
	for _, s := range shelves {
		for lacks(s) && p.makeRoomLocked(s) {
			p.startLocked(s)
		}
		if lacks(s) && len(s.waiters) > 0 {
			return false
		}
	}
	return true
}

// byWaiting orders shelves by how long somebody has waited there, the longest
// first.
func byWaiting(a, b *shelf) int {
	switch {
	case len(a.waiters) == 0 || len(b.waiters) == 0:
		return len(b.waiters) - len(a.waiters)
	default:
		return a.waiters[0].since.Compare(b.waiters[0].since)
	}
}

// makeRoomLocked says whether one more sandbox may be started. Where the budget
// is spent and somebody waits, an idle sandbox makes room that is of another kind,
// or another owner's; the start follows when that is gone.
func (p *Pool) makeRoomLocked(s *shelf) bool {
	counts := p.statsLocked()
	if counts.Starting >= p.opts.Starts {
		return false
	}
	if counts.live() < p.opts.Max {
		return true
	}
	if len(s.waiters) == 0 || counts.Dying > 0 {
		return false
	}
	for _, other := range p.allLocked() {
		if len(other.idle) > 0 {
			p.closeLocked(other.idle[0])
			other.idle = slices.Delete(other.idle, 0, 1)
			break
		}
	}
	return false
}

func (p *Pool) startLocked(s *shelf) {
	s.starting++
	p.tasks.Go(func() {
		sandbox, err := p.start(p.ctx, s.spec)
		p.mu.Lock()
		defer p.mu.Unlock()
		s.starting--
		if err != nil {
			p.startFailedLocked(s, err)
		} else {
			s.backOff.reset()
			s.reusable = sandbox.Reusable()
			s.fault = nil
			w := &warm{Sandbox: sandbox, shelf: s, since: time.Now()}
			p.limitLocked(w)
			p.tasks.Go(func() { p.watch(s, w) })
			p.shelveLocked(s, w)
		}
		p.fillLocked()
	})
}

// startFailedLocked tells the one who waits the longest. The others wait for
// the next start, which does not back off while somebody waits.
func (p *Pool) startFailedLocked(s *shelf, err error) {
	if p.closed {
		return
	}
	s.backOff.fail(time.Now())
	s.faultAt = time.Now()
	s.fault = &execution.Error{Code: execution.Unavailable, Message: "no sandbox could be started", Err: err}
	p.opts.Log.Warn("a sandbox could not be started", "error", err, "failures", s.backOff.failures)
	if len(s.waiters) > 0 {
		s.waiters[0].answer <- answer{err: s.fault}
		s.waiters = slices.Delete(s.waiters, 0, 1)
	}
}

// release takes a sandbox back after a run, and starts what is lacking now: most
// runs are short, and a start beside one makes it twice as long (on 2 cores).
// For a run that is not short, the place is taken when tend next looks.
func (p *Pool) release(w *warm) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.leased[w] {
		return // Close has ended it
	}
	delete(p.leased, w)
	w.runs++
	if p.closed || p.spentLocked(w, w.runs) || p.yieldsLocked(w) {
		p.retireLocked(w)
	} else {
		p.renewLocked(w)
	}
	p.fillLocked()
}

// closeLocked ends a sandbox in the background. It counts until it is gone.
func (p *Pool) closeLocked(w *warm) {
	p.dying++
	p.tasks.Go(func() {
		if err := w.Close(); err != nil {
			p.opts.Log.Warn("a sandbox could not be ended; the sweep will try again", "error", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dying--
		if !p.closed {
			p.fillLocked()
		}
	})
}

// drainLocked is called for a shelf that falls out of the LRU. Who waits there
// is still served.
func (p *Pool) drainLocked(_ execution.Spec, s *shelf) {
	s.evicted = true
	p.emptyLocked(s)
	if len(s.waiters) > 0 || s.starting > 0 {
		p.drained = append(p.drained, s)
	}
}

func (p *Pool) emptyLocked(s *shelf) {
	for _, w := range s.idle {
		p.closeLocked(w)
	}
	s.idle = nil
}

// faultAge is how long a failed start is told. Nothing need be started after
// it, so it would be told for ever else.
const faultAge = time.Minute

// Fault gives the error of the last start of a kind, or nil when that
// succeeded, is long ago, or none was made.
func (p *Pool) Fault(spec execution.Spec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.shelves.Peek(spec); ok && time.Since(s.faultAt) < faultAge {
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
		if p.nudge != nil {
			p.nudge.Stop()
		}
		for _, s := range p.allLocked() {
			p.emptyLocked(s)
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

func isDone(w *warm) bool {
	select {
	case <-w.Done():
		return true
	default:
		return false
	}
}
