package pool

import "context"

// renewLocked makes a sandbox idle again once it is as fresh as at its start. If it cannot
// be renewed, it is reset or, if that is not possible either, closed.
func (p *Pool) renewLocked(m *member) {
	p.returnLocked(m, m, m.Renew, func(m *member) {
		if p.closed || !m.Resettable() || m.shouldRetireLocked(m.runs) {
			p.retireLocked(m)
		} else {
			p.resetLocked(m)
		}
	})
}

// resetLocked has a sandbox start anew in place and makes it idle. It stays its owner's, and
// becomes no younger.
func (p *Pool) resetLocked(m *member) {
	anew := *m
	anew.runs = 0
	p.returnLocked(m, &anew, func(ctx context.Context) (err error) {
		anew.Sandbox, err = m.Reset(ctx)
		return err
	}, p.retireLocked)
}

// checkIdleLocked makes the idle sandboxes of a subpool unavailable until each has answered
// a ping. Callers that wait in the meantime get the first one that answers, or a new one.
//
// It is called when a sandbox is found silent: what freezes one (a paused engine, a stopped
// control group) often freezes all.
func (p *Pool) checkIdleLocked(s *subpool) {
	for _, m := range s.idle {
		p.returnLocked(m, m, m.Check, p.closeLocked)
	}
	s.idle = nil
	s.leastIdle = 0
}

// returnLocked makes a sandbox idle as next, which may be the sandbox itself, once ready
// returns. Until then it counts as renewing. If ready fails, the sandbox is passed to end.
func (p *Pool) returnLocked(m, next *member, ready func(ctx context.Context) error, end func(*member)) {
	p.renewing[m] = true
	p.tasks.Go(func() {
		err := ready(p.ctx)
		if err != nil {
			p.opts.Log.Debug("a sandbox could not be renewed or reset, or does not answer", "error", err, "runs", m.runs)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.renewing, m)
		if err != nil {
			end(m)
		} else {
			if next != m {
				p.tasks.Go(func() { p.watch(next) })
			}
			p.addIdleLocked(next.subpool, next)
		}
		p.growLocked()
	})
}
