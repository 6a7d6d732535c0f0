package pool

import "context"

// renewLocked makes a sandbox idle again once it is as fresh as at its start.
func (p *Pool) renewLocked(m *member) { p.returnLocked(m, m.Renew, p.retireLocked) }

// checkIdleLocked makes the idle sandboxes of a subpool unavailable until each has answered
// a ping. Callers that wait in the meantime get the first one that answers, or a new one.
//
// It is called when a sandbox is found silent: what freezes one (a paused engine, a stopped
// control group) often freezes all.
func (p *Pool) checkIdleLocked(s *subpool) {
	for _, m := range s.idle {
		p.returnLocked(m, m.Check, p.closeLocked)
	}
	s.idle = nil
	s.leastIdle = 0
}

// returnLocked makes a sandbox idle once ready returns. Until then it counts as renewing. If
// ready fails, the sandbox is passed to end.
func (p *Pool) returnLocked(m *member, ready func(ctx context.Context) error, end func(*member)) {
	p.renewing[m] = true
	p.tasks.Go(func() {
		err := ready(p.ctx)
		if err != nil {
			p.opts.Log.Debug("replacing a sandbox that could not be renewed or does not answer", "error", err, "runs", m.runs)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.renewing, m)
		if err != nil {
			end(m)
		} else {
			p.addIdleLocked(m.subpool, m)
		}
		p.growLocked()
	})
}
