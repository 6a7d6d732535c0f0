package pool

import "time"

// Templates share one budget. Callers that wait come before the targets of all templates,
// the caller that has waited longest first. Once a caller has waited for growAfter, other
// templates give up sandboxes for it when their runs end, so that a template in steady use
// cannot keep others out.

// compareWaiting orders subpools by how long their oldest callers have waited, the longest
// first, and those without callers last.
func compareWaiting(a, b *subpool) int {
	switch {
	case len(a.waiters) == 0 || len(b.waiters) == 0:
		return len(b.waiters) - len(a.waiters)
	default:
		return a.waiters[0].enqueuedAt.Compare(b.waiters[0].enqueuedAt)
	}
}

// makeRoomLocked reports whether a sandbox may be started for s now. If the budget is spent
// and callers wait at s, it closes an idle sandbox, of the least recently requested template
// that has one. That may be one of s itself, if it belongs to another owner. The start
// follows once that sandbox is gone.
func (p *Pool) makeRoomLocked(s *subpool) bool {
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
			p.closeLocked(other.takeIdle(0))
			break
		}
	}
	return false
}

// shouldYieldLocked reports whether a sandbox after its run must be closed to make
// room for another template's or another owner's caller. That is so only while the budget
// is spent.
func (p *Pool) shouldYieldLocked(m *member) bool {
	if p.statsLocked().live()+1 < p.opts.Max { // m itself is not counted at this moment
		return false
	}
	return p.shouldYieldToOwnerLocked(m) || p.shouldYieldToTemplateLocked(m)
}

// shouldYieldToTemplateLocked reports whether a caller has waited for growAfter for a
// sandbox of another template, and one must be started for it.
func (p *Pool) shouldYieldToTemplateLocked(m *member) bool {
	for _, s := range p.allLocked() {
		if s != m.subpool && p.callersNeedSandboxLocked(s) && time.Since(s.waiters[0].enqueuedAt) >= growAfter {
			return true
		}
	}
	return false
}
