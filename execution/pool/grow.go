package pool

import (
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// growAfter is how long a caller waits for a sandbox that is in use before another
	// one is started. A start takes 80 to 300 ms of work, so where runs are short,
	// everyone is served faster by waiting.
	growAfter = 100 * time.Millisecond
	// failurePause is how long callers whom sandboxes in use will serve start no other one
	// after a start that failed.
	failurePause = time.Second
	// longRun is how long a run must have lasted for its sandbox not to count as one that
	// will soon be idle.
	longRun = 500 * time.Millisecond
)

// needsSandboxLocked is the policy for starting a sandbox. It reports whether callers at s
// need one or, while s is in use and its starts do not fail, fewer than the target are idle
// or will soon be.
func (p *Pool) needsSandboxLocked(s *subpool) bool {
	if p.closed || s.startingBare {
		return false
	}
	if p.callersNeedSandboxLocked(s) {
		return true
	}
	inUse := !s.evicted && !p.isUnusedLocked(s)
	return inUse && !s.backOff.isPausing(time.Now()) && p.expectedLocked(s) < p.opts.Target
}

// isUnusedLocked reports whether the last request for a template is so long ago that it
// keeps no idle sandboxes.
func (p *Pool) isUnusedLocked(s *subpool) bool {
	return p.opts.IdleAfter > 0 && time.Since(s.lastRequested) >= p.opts.IdleAfter
}

// expectedLocked returns how many sandboxes are idle or will soon be, beyond those for the
// callers that wait now. Bare ones do not count.
func (p *Pool) expectedLocked(s *subpool) int {
	expected := s.starting
	for _, m := range p.membersLocked(s) {
		if !m.Bare() && p.isIdleSoonLocked(m) {
			expected++
		}
	}
	if !s.reusable {
		expected -= len(s.waiters) // the sandboxes that they get do not come back
	}
	return expected
}

// callersNeedSandboxLocked reports whether a sandbox must be started for a caller at s: more
// of them wait than sandboxes start, and no sandbox in use will serve them in time.
func (p *Pool) callersNeedSandboxLocked(s *subpool) bool {
	return !p.closed && !s.startingBare && s.starting < len(s.waiters) && s.starting < p.unservableLocked(s)
}

// unservableLocked returns the number of callers at s that no sandbox in use will serve in
// time: none will return to their owner, or the owner's first caller has waited for
// growAfter, the cores can serve another sandbox, and no start has just failed.
func (p *Pool) unservableLocked(s *subpool) int {
	if len(s.waiters) == 0 {
		return 0
	}
	returning := p.returningLocked(s)
	unservable := func(first *waiter, waiting int) int {
		isLate := time.Since(first.enqueuedAt) >= growAfter
		switch none := returning[first.owner] == 0; {
		case isLate && (none || time.Since(s.faultAt) >= failurePause) && p.coresServeAnotherLocked(s, first.owner, returning), none && !s.reusable:
			return waiting
		case none:
			return min(waiting, p.opts.AtWork) // these will serve the others
		default:
			return 0
		}
	}
	if !s.hasSeveralOwners() { // the usual case, made fast
		return unservable(s.waiters[0], len(s.waiters))
	}
	first, waiting := make(map[execution.Owner]*waiter), make(map[execution.Owner]int)
	for _, w := range s.waiters {
		if waiting[w.owner]++; first[w.owner] == nil {
			first[w.owner] = w
		}
	}
	count := 0
	for owner, w := range first {
		count += unservable(w, waiting[owner])
	}
	return count
}

// returningLocked returns, for each owner, the number of sandboxes in use that will soon be
// idle in s again.
func (p *Pool) returningLocked(s *subpool) map[execution.Owner]int {
	counts := make(map[execution.Owner]int)
	for _, m := range p.membersLocked(s) {
		if (p.leased[m] || p.renewing[m]) && p.isIdleSoonLocked(m) {
			counts[m.owner]++
		}
	}
	return counts
}

// isIdleSoonLocked reports whether a sandbox is idle, or soon will be.
func (p *Pool) isIdleSoonLocked(m *member) bool {
	return !p.leased[m] || time.Since(m.leasedAt) < longRun && !m.shouldRetireLocked(m.runs+1)
}
