package pool

import "slices"

// The first sandbox of a template that has none is bare: it preloads no modules, so that the
// caller who waits is served several times sooner. A program that uses such a module imports
// it itself, which takes no longer than to wait for a sandbox that has it. A bare sandbox does
// not count towards the target, and is closed as soon as there is another one. While it starts,
// no other does: that would make the caller wait longer.

// startsBareLocked reports whether the next sandbox of s is to be bare. Without a target
// nothing would replace it, and without room beyond the target it would be closed before
// there is another one.
func (p *Pool) startsBareLocked(s *subpool) bool {
	preloads := s.spec.Preload != "" && s.spec.Preload != "none"
	return preloads && s.starting == 0 && len(p.membersLocked(s)) == 0 && p.opts.Target > 0 && p.opts.Max > p.opts.Target
}

// membersLocked returns the sandboxes of s that are idle, leased or renewing.
func (p *Pool) membersLocked(s *subpool) []*member {
	members := slices.Clone(s.idle)
	for _, others := range []map[*member]bool{p.leased, p.renewing} {
		for m := range others {
			if m.subpool == s {
				members = append(members, m)
			}
		}
	}
	return members
}

// isReplacedLocked reports whether a sandbox is bare while there is another one that is not.
func (p *Pool) isReplacedLocked(m *member) bool {
	if !m.Bare() {
		return false
	}
	for _, other := range p.membersLocked(m.subpool) {
		if !other.Bare() {
			return true
		}
	}
	return false
}

// closeReplacedLocked closes the idle sandboxes of s that are replaced.
func (p *Pool) closeReplacedLocked(s *subpool) {
	for _, m := range slices.Clone(s.idle) {
		if p.isReplacedLocked(m) {
			p.closeLocked(s.takeIdle(slices.Index(s.idle, m)))
		}
	}
}
