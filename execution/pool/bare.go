package pool

import "slices"

// The first sandbox of a template that has none is bare: it preloads no modules, so that the
// caller who waits is served several times sooner. A program that uses such a module imports
// it itself, which takes no longer than to wait for a sandbox that has it. A bare sandbox does
// not count towards the target, and is closed as soon as there is another one. While it starts,
// no other does: that would make the caller wait longer.

// startsBareLocked reports whether the next sandbox of s is to be bare. Without a target
// nothing would replace it, and without room for two neither.
func (p *Pool) startsBareLocked(s *subpool) bool {
	preloads := s.spec.Preload != "" && s.spec.Preload != "none" && !s.lacksNothing
	isEmpty := s.starting == 0 && len(p.membersLocked(s)) == 0
	return preloads && isEmpty && p.opts.Target > 0 && p.statsLocked().live()+1 < p.opts.Max
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

// isReplacedLocked reports whether a sandbox is bare, and another one, which is not, is idle or
// soon will be.
func (p *Pool) isReplacedLocked(m *member) bool {
	if !m.Bare() {
		return false
	}
	for _, other := range p.membersLocked(m.subpool) {
		if !other.Bare() && p.isIdleSoonLocked(other) {
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
