package pool

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// shouldRetireLocked is the policy for retiring: whether a sandbox must serve no run
// after so many.
func (p *Pool) shouldRetireLocked(w *member, runs int) bool {
	tooUsed := w.maxRuns > 0 && runs >= w.maxRuns
	return w.tooOld() || tooUsed || w.subpool.evicted || !w.Reusable()
}

func (w *member) tooOld() bool { return w.maxAge > 0 && time.Since(w.since) >= w.maxAge }

// spread is the part of the limits on runs and age by which sandboxes differ:
// those that were started together must not be replaced together.
const spread = 0.2

// limitLocked sets the limits of a new sandbox.
func (p *Pool) limitLocked(w *member) {
	share := 1 - spread*rand.Float64() //nolint:gosec // G404: nobody gains by guessing it
	w.maxAge = time.Duration(float64(p.opts.MaxAge) * share)
	w.maxRuns = int(math.Ceil(float64(p.opts.MaxRuns) * share))
}

// shrinkLocked is the policy for shrinking: it closes what a subpool has idle
// beyond its use: all, when nobody has asked for so long; old ones; and those
// beyond the target that nobody has needed for a while.
func (p *Pool) shrinkLocked(s *subpool) {
	if p.opts.IdleAfter > 0 && time.Since(s.wanted) >= p.opts.IdleAfter {
		p.closeIdleLocked(s)
	}
	s.idle = slices.DeleteFunc(s.idle, func(w *member) bool {
		if w.tooOld() {
			p.closeLocked(w)
			return true
		}
		return false
	})
	if time.Since(s.shrunkAt) < shrinkAfter {
		return
	}
	for range min(s.least, len(s.idle)) - p.opts.Target {
		p.closeLocked(s.idle[0])
		s.idle = s.idle[1:]
	}
	s.least, s.shrunkAt = len(s.idle), time.Now()
}

// retireLocked closes a sandbox. Where that is silent, it has the idle ones checked.
func (p *Pool) retireLocked(w *member) {
	p.closeLocked(w)
	if w.Silent() {
		p.checkLocked(w.subpool)
	}
}

// closeLocked ends a sandbox in the background. It counts until it is gone.
func (p *Pool) closeLocked(w *member) {
	p.dying++
	p.tasks.Go(func() {
		if err := w.Close(); err != nil {
			p.opts.Log.Warn("a sandbox could not be ended; the sweep will try again", "error", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dying--
		if !p.closed {
			p.growLocked()
		}
	})
}
