package pool

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// tendEvery is how often the shelves are looked after when nothing happens.
const tendEvery = time.Second

const (
	// growAfter is how long a caller waits for a sandbox that is in use before
	// another is started for it. A start takes the engine 80 to 300 ms of work:
	// where runs are short, waiting is faster for everybody.
	growAfter = 100 * time.Millisecond
	// longRun is how long a run must last for its sandbox not to count as one
	// that will be back soon.
	longRun = 500 * time.Millisecond
	// trimAfter is how long sandboxes beyond the target must not have been
	// needed to be closed.
	trimAfter = 10 * time.Second
)

// Bounds of the pause after a failed start.
const (
	minBackOff = 500 * time.Millisecond
	maxBackOff = 30 * time.Second
)

// lacksLocked is the pool's policy for starting: a shelf lacks a sandbox while
// callers lack one, or, as long as it is in use and its starts do not fail,
// while fewer than the target are idle or will soon be.
func (p *Pool) lacksLocked(s *shelf) bool {
	if p.closed {
		return false
	}
	if p.lacksForCallersLocked(s) {
		return true
	}
	inUse := !s.evicted && (p.opts.IdleAfter == 0 || time.Since(s.wanted) < p.opts.IdleAfter)
	expected := len(s.idle) + s.starting
	for _, count := range p.returningLocked(s) {
		expected += count
	}
	if !s.reusable {
		expected -= len(s.waiters) // what they get does not come back
	}
	return inUse && !s.backOff.pausing(time.Now()) && expected < p.opts.Target
}

// lacksForCallersLocked says whether more callers wait at a shelf than
// sandboxes start for them, and for so long that none in use will do.
func (p *Pool) lacksForCallersLocked(s *shelf) bool {
	return !p.closed && s.starting < len(s.waiters) && s.starting < p.needyLocked(s)
}

// needyLocked counts the callers at a shelf for whom none in use will do.
func (p *Pool) needyLocked(s *shelf) int {
	if len(s.waiters) == 0 {
		return 0
	}
	returning := p.returningLocked(s)
	if oldest := s.waiters[0]; !s.mixed() { // there is no need to look at each
		if returning[oldest.owner] == 0 || time.Since(oldest.since) >= growAfter {
			return len(s.waiters)
		}
		return 0
	}
	first := make(map[execution.Owner]time.Time) // when each owner's first caller came
	count := 0
	for _, w := range s.waiters {
		if _, known := first[w.owner]; !known {
			first[w.owner] = w.since
		}
		if returning[w.owner] == 0 || time.Since(first[w.owner]) >= growAfter {
			count++
		}
	}
	return count
}

// returningLocked counts the sandboxes that will soon be on a shelf again, for
// each owner.
func (p *Pool) returningLocked(s *shelf) map[execution.Owner]int {
	counts := make(map[execution.Owner]int)
	for w := range p.renewing {
		if w.shelf == s {
			counts[w.owner]++
		}
	}
	for w := range p.leased {
		if w.shelf == s && time.Since(w.leased) < longRun && !p.spentLocked(w, w.runs+1) {
			counts[w.owner]++
		}
	}
	return counts
}

// spentLocked is the policy for retiring: whether a sandbox must serve no run
// after so many.
func (p *Pool) spentLocked(w *warm, runs int) bool {
	tooUsed := w.maxRuns > 0 && runs >= w.maxRuns
	return w.tooOld() || tooUsed || w.shelf.evicted || !w.Reusable()
}

func (w *warm) tooOld() bool { return w.maxAge > 0 && time.Since(w.since) >= w.maxAge }

// spread is the part of the limits on runs and age by which sandboxes differ:
// those that were started together must not be replaced together.
const spread = 0.2

// limitLocked sets the limits of a new sandbox.
func (p *Pool) limitLocked(w *warm) {
	share := 1 - spread*rand.Float64() //nolint:gosec // G404: nobody gains by guessing it
	w.maxAge = time.Duration(float64(p.opts.MaxAge) * share)
	w.maxRuns = int(math.Ceil(float64(p.opts.MaxRuns) * share))
}

// yieldsLocked says whether a sandbox whose run has ended must make room for one
// of another kind, or for another owner: where the budget is spent, callers of a
// kind in steady use would keep all others waiting.
func (p *Pool) yieldsLocked(w *warm) bool {
	if p.statsLocked().live()+1 < p.opts.Max { // the sandbox itself is not counted at this moment
		return false
	}
	if p.yieldsToOwnerLocked(w) {
		return true
	}
	for _, s := range p.allLocked() {
		if s != w.shelf && s.starting < len(s.waiters) && time.Since(s.waiters[0].since) >= growAfter {
			return true
		}
	}
	return false
}

// trimLocked is the policy for shrinking: it closes what a shelf has idle
// beyond its use: all, when nobody has asked for so long; old ones; and those
// beyond the target that nobody has needed for a while.
func (p *Pool) trimLocked(s *shelf) {
	if p.opts.IdleAfter > 0 && time.Since(s.wanted) >= p.opts.IdleAfter {
		p.emptyLocked(s)
	}
	s.idle = slices.DeleteFunc(s.idle, func(w *warm) bool {
		if w.tooOld() {
			p.closeLocked(w)
			return true
		}
		return false
	})
	if time.Since(s.trimmed) < trimAfter {
		return
	}
	for range min(s.least, len(s.idle)) - p.opts.Target {
		p.closeLocked(s.idle[0])
		s.idle = s.idle[1:]
	}
	s.least, s.trimmed = len(s.idle), time.Now()
}

// tend looks after the shelves now and again: it shrinks them, and starts again
// what failed.
func (p *Pool) tend() {
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		for _, s := range p.allLocked() {
			p.trimLocked(s)
		}
		p.fillLocked()
		p.mu.Unlock()
	}
}

// nudgeLocked has the shelves looked at again when somebody has waited long.
func (p *Pool) nudgeLocked() {
	if p.nudge != nil {
		return
	}
	p.nudge = time.AfterFunc(growAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.nudge = nil
		if !p.closed && p.statsLocked().Waiting > 0 {
			p.fillLocked()
			p.nudgeLocked()
		}
	})
}

// backOff is the pause between starts that fail, doubled with each failure.
// The zero value does not pause.
type backOff struct {
	failures int
	until    time.Time
}

func (b *backOff) fail(now time.Time) {
	pause := maxBackOff
	if b.failures < 6 {
		pause = minBackOff << b.failures
	}
	b.failures++
	b.until = now.Add(pause)
}

func (b *backOff) reset() { *b = backOff{} }

func (b *backOff) pausing(now time.Time) bool { return now.Before(b.until) }
