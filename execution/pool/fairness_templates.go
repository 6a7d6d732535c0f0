package pool

import "time"

// byWaiting orders subpools by how long somebody has waited there, the longest
// first.
func byWaiting(a, b *subpool) int {
	switch {
	case len(a.waiters) == 0 || len(b.waiters) == 0:
		return len(b.waiters) - len(a.waiters)
	default:
		return a.waiters[0].since.Compare(b.waiters[0].since)
	}
}

// shouldYieldLocked says whether a sandbox whose run has ended must make room for one
// of another kind, or for another owner: where the budget is spent, callers of a
// kind in steady use would keep all others waiting.
func (p *Pool) shouldYieldLocked(w *member) bool {
	if p.statsLocked().live()+1 < p.opts.Max { // the sandbox itself is not counted at this moment
		return false
	}
	if p.shouldYieldToOwnerLocked(w) {
		return true
	}
	for _, s := range p.allLocked() {
		if s != w.subpool && s.starting < len(s.waiters) && time.Since(s.waiters[0].since) >= growAfter {
			return true
		}
	}
	return false
}
