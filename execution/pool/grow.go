package pool

import (
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// growAfter is how long a caller waits for a sandbox that is in use before
	// another is started for it. A start takes the engine 80 to 300 ms of work:
	// where runs are short, waiting is faster for everybody.
	growAfter = 100 * time.Millisecond
	// longRun is how long a run must last for its sandbox not to count as one
	// that will be back soon.
	longRun = 500 * time.Millisecond
	// shrinkAfter is how long sandboxes beyond the target must not have been
	// needed to be closed.
	shrinkAfter = 10 * time.Second
)

// needsLocked is the pool's policy for starting: a subpool needs a sandbox while
// callers lack one, or, as long as it is in use and its starts do not fail,
// while fewer than the target are idle or will soon be.
func (p *Pool) needsLocked(s *subpool) bool {
	if p.closed {
		return false
	}
	if p.needsForCallersLocked(s) {
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

// needsForCallersLocked says whether more callers wait at a subpool than
// sandboxes start for them, and for so long that none in use will do.
func (p *Pool) needsForCallersLocked(s *subpool) bool {
	return !p.closed && s.starting < len(s.waiters) && s.starting < p.unservableLocked(s)
}

// unservableLocked counts the callers at a subpool for whom none in use will do.
func (p *Pool) unservableLocked(s *subpool) int {
	if len(s.waiters) == 0 {
		return 0
	}
	returning := p.returningLocked(s)
	if oldest := s.waiters[0]; !s.hasSeveralOwners() { // there is no need to look at each
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

// returningLocked counts the sandboxes that will soon be on a subpool again, for
// each owner.
func (p *Pool) returningLocked(s *subpool) map[execution.Owner]int {
	counts := make(map[execution.Owner]int)
	for w := range p.renewing {
		if w.subpool == s {
			counts[w.owner]++
		}
	}
	for w := range p.leased {
		if w.subpool == s && time.Since(w.leased) < longRun && !p.shouldRetireLocked(w, w.runs+1) {
			counts[w.owner]++
		}
	}
	return counts
}
