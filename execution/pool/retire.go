package pool

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// shrinkAfter is how long sandboxes beyond the target must have been idle before they are
// closed.
const shrinkAfter = 10 * time.Second

// shouldRetireLocked is the policy for retiring a sandbox after a run: it reports whether m
// must be closed once it has served so many runs.
func (m *member) shouldRetireLocked(runs int) bool {
	return m.isDoomed() || m.isTooOldLocked() || m.subpool.evicted || m.isWornOut(runs) && !m.Resettable()
}

// isWornOut reports whether m can serve no other run as it is, once it has served so many.
func (m *member) isWornOut(runs int) bool {
	return m.maxRuns > 0 && runs >= m.maxRuns || !m.Reusable()
}

// AgeGrace is how much older than its greatest age a sandbox may get while starts fail:
// without it, a backend that starts nothing for a while would drain the pool.
const AgeGrace = 5 * time.Minute

func (m *member) isTooOldLocked() bool {
	limit := m.maxAge
	if m.subpool.fault != nil {
		limit += AgeGrace
	}
	return m.maxAge > 0 && time.Since(m.startedAt) >= limit
}

// limitSpread is the largest part by which a sandbox's limits on runs and age are reduced.
// It differs between sandboxes: those that were started together must not be replaced
// together.
const limitSpread = 0.2

// setLimits sets the limits of a new sandbox.
func (m *member) setLimits(opts Options) {
	share := 1 - limitSpread*rand.Float64() //nolint:gosec // G404: the number is not secret
	m.maxAge = time.Duration(float64(opts.MaxAge) * share)
	m.maxRuns = int(math.Ceil(float64(opts.MaxRuns) * share))
}

// shrinkLocked is the policy for closing idle sandboxes: all of them if the template has
// not been requested for Options.IdleAfter; those that are too old; and those beyond the
// target that have not been needed for shrinkAfter.
func (p *Pool) shrinkLocked(s *subpool) {
	if p.isUnusedLocked(s) {
		p.closeIdleLocked(s)
	}
	s.idle = slices.DeleteFunc(s.idle, func(m *member) bool {
		if m.isTooOldLocked() {
			p.closeLocked(m)
			return true
		}
		return false
	})
	if time.Since(s.shrunkAt) < shrinkAfter {
		return
	}
	for range min(s.leastIdle, len(s.idle)) - p.opts.Target {
		p.closeLocked(s.takeIdle(0))
	}
	s.leastIdle, s.shrunkAt = len(s.idle), time.Now()
}

// retireLocked closes a sandbox. If it is silent, it also checks the idle ones of its
// subpool.
func (p *Pool) retireLocked(m *member) {
	p.closeLocked(m)
	if m.Silent() {
		p.checkIdleLocked(m.subpool)
	}
}

// closeLocked closes a sandbox in the background. It counts as dying until it is gone.
func (p *Pool) closeLocked(m *member) {
	p.dying++
	p.tasks.Go(func() {
		if err := m.Close(); err != nil {
			p.opts.Log.Warn("closing a sandbox failed; the sweep will try again", "error", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dying--
		if !p.closed {
			p.growLocked()
		}
	})
}
