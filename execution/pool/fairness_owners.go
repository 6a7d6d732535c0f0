package pool

import (
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A sandbox that has run a program never runs one of another owner's. One that has
// run none is for anybody. Where nobody is asked who they are there is one owner,
// and all this comes to serving the first caller first.

// canServe says whether a sandbox may run a program of an owner's.
func (w *member) canServe(owner execution.Owner) bool { return w.runs == 0 || w.owner == owner }

// hasSeveralOwners says whether callers of several owners wait at a subpool.
func (s *subpool) hasSeveralOwners() bool {
	return slices.ContainsFunc(s.waiters, func(w *waiter) bool { return w.owner != s.waiters[0].owner })
}

// matchLocked gives the next waiter of a subpool's to be served, and the idle
// sandbox for it, which is -1 where none will do. Who has used ones gets those
// first, in the order of the waiters. One that is fresh goes to the owner who has
// the fewest sandboxes.
func (p *Pool) matchLocked(s *subpool) (waiter, idle int) {
	if len(s.idle) == 0 || len(s.waiters) == 0 {
		return -1, -1
	}
	for i, w := range s.waiters {
		if i > 0 && w.owner == s.waiters[i-1].owner {
			continue
		}
		if at := pickIdle(s.idle, w.owner); at >= 0 && (w.owner == "" || s.idle[at].runs > 0) {
			return i, at
		}
	}
	return p.leastServedLocked(s), slices.IndexFunc(s.idle, func(w *member) bool { return w.runs == 0 })
}

// pick gives an idle sandbox for an owner, or -1: one that it has used before one
// that others may need, then the one that was idle the longest and so is the best
// prepared.
func pickIdle(idle []*member, owner execution.Owner) int {
	if owner != "" {
		if used := slices.IndexFunc(idle, func(w *member) bool { return w.runs > 0 && w.owner == owner }); used >= 0 {
			return used
		}
	}
	return slices.IndexFunc(idle, func(w *member) bool { return w.canServe(owner) })
}

// leastServedLocked gives the waiter whose owner has the fewest sandboxes of a
// subpool's, the first of several. There must be a waiter.
func (p *Pool) leastServedLocked(s *subpool) int {
	has := p.countByOwnerLocked(s)
	least := 0
	for i, w := range s.waiters {
		if has[w.owner] < has[s.waiters[least].owner] {
			least = i
		}
	}
	return least
}

// countByOwnerLocked counts the sandboxes of a subpool's that are of no use to anybody but an
// owner, for each.
func (p *Pool) countByOwnerLocked(s *subpool) map[execution.Owner]int {
	counts := make(map[execution.Owner]int)
	for _, w := range s.idle {
		if w.runs > 0 {
			counts[w.owner]++
		}
	}
	for _, used := range []map[*member]bool{p.leased, p.renewing} {
		for w := range used {
			if w.subpool == s {
				counts[w.owner]++
			}
		}
	}
	return counts
}

// shouldYieldToOwnerLocked says whether a sandbox whose run has ended must make room
// for a fresh one, for another owner: one who has two fewer, so that both do not
// take it from each other in turn; or one who has none, as this one's owner will
// then, if that one came before whoever waits of its own.
func (p *Pool) shouldYieldToOwnerLocked(w *member) bool {
	s := w.subpool
	others := slices.ContainsFunc(s.waiters, func(other *waiter) bool { return other.owner != w.owner })
	if !others || s.starting+p.dying >= p.unservableLocked(s) {
		return false // nobody needs it, or room is being made
	}
	returning, has := p.returningLocked(s), p.countByOwnerLocked(s)
	own := has[w.owner] + 1 // the sandbox itself is not counted at this moment
	ownWaits := false
	for _, other := range s.waiters {
		switch count := has[other.owner]; {
		case other.owner == w.owner:
			ownWaits = true
		case returning[other.owner] > 0 && time.Since(other.since) < growAfter: // it will be served soon
		case own-count >= 2, own == 1 && count == 0 && !ownWaits:
			return true
		}
	}
	return false
}
