package pool

import (
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A sandbox that has run a program of one owner never runs one of another owner. A sandbox
// that has run none is fresh, and may serve any owner. A reset does not make one fresh. Without authentication there is one
// owner, the empty one, and all this amounts to serving callers in their order.

// isFresh reports whether the sandbox has run no program.
func (m *member) isFresh() bool { return !m.used }

// canServe reports whether the sandbox may run a program of owner.
func (m *member) canServe(owner execution.Owner) bool { return m.isFresh() || m.owner == owner }

// hasSeveralOwners reports whether callers of more than one owner wait at a subpool.
func (s *subpool) hasSeveralOwners() bool {
	return slices.ContainsFunc(s.waiters, func(w *waiter) bool { return w.owner != s.waiters[0].owner })
}

// matchLocked returns the caller at s to serve next and the idle sandbox for it, as indexes,
// or an idle of -1 if there is none. Callers whose owner has a used sandbox come first, in
// their order. Otherwise a fresh sandbox goes to the owner who has the fewest.
func (p *Pool) matchLocked(s *subpool) (waiter, idle int) {
	if len(s.idle) == 0 || len(s.waiters) == 0 {
		return -1, -1
	}
	for i, w := range s.waiters {
		if i > 0 && w.owner == s.waiters[i-1].owner {
			continue
		}
		if at := pickIdle(s.idle, w.owner); at >= 0 && (w.owner == "" || !s.idle[at].isFresh()) {
			return i, at
		}
	}
	return p.leastServedLocked(s), slices.IndexFunc(s.idle, (*member).isFresh)
}

// pickIdle returns the index of the best idle sandbox for owner, or -1: one that the owner
// has used, because other owners may need the fresh ones; otherwise the one that has been
// idle longest, which is prepared best.
func pickIdle(idle []*member, owner execution.Owner) int {
	if owner != "" {
		if used := slices.IndexFunc(idle, func(m *member) bool { return !m.isFresh() && m.owner == owner }); used >= 0 {
			return used
		}
	}
	return slices.IndexFunc(idle, func(m *member) bool { return m.canServe(owner) })
}

// leastServedLocked returns the index of the first caller at s whose owner has the fewest
// sandboxes of s. At least one caller must wait.
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

// countByOwnerLocked returns, for each owner, the number of sandboxes of s that can serve no
// other owner.
func (p *Pool) countByOwnerLocked(s *subpool) map[execution.Owner]int {
	counts := make(map[execution.Owner]int)
	for _, m := range s.idle {
		if !m.isFresh() {
			counts[m.owner]++
		}
	}
	for _, used := range []map[*member]bool{p.leased, p.renewing} {
		for m := range used {
			if m.subpool == s {
				counts[m.owner]++
			}
		}
	}
	return counts
}

// shouldYieldToOwnerLocked reports whether a sandbox after its run must be closed to
// make room for a fresh one, for a caller of another owner. It must if that owner
//
//   - has at least two sandboxes fewer: with a smaller difference, both owners would take
//     the sandbox from each other in turn; or
//   - has none while m is its own owner's last one, and no caller of m's owner came earlier.
func (p *Pool) shouldYieldToOwnerLocked(m *member) bool {
	s := m.subpool
	others := slices.ContainsFunc(s.waiters, func(w *waiter) bool { return w.owner != m.owner })
	if !others || s.starting+p.dying >= p.unservableLocked(s) {
		return false // no caller needs it, or there will be room anyway
	}
	returning, has := p.returningLocked(s), p.countByOwnerLocked(s)
	own := has[m.owner] + 1 // m itself is not counted at this moment
	ownWaits := false
	for _, w := range s.waiters {
		switch count := has[w.owner]; {
		case w.owner == m.owner:
			ownWaits = true
		case returning[w.owner] > 0 && time.Since(w.enqueuedAt) < growAfter: // it will be served soon
		case own-count >= 2, own == 1 && count == 0 && !ownWaits:
			return true
		}
	}
	return false
}
