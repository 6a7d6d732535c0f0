package pool

import "context"

// What freezes one sandbox (a paused engine, a stopped control group) often
// freezes all. So when one is found silent, the idle ones of its subpool must answer
// a ping before anybody gets them. A caller who waits meanwhile gets the first that
// does, or one that is started.

// renewLocked puts a sandbox back on its subpool once it is fresh again.
func (p *Pool) renewLocked(w *member) { p.returnLocked(w, w.Renew, p.retireLocked) }

// checkLocked takes the idle sandboxes off a subpool until they have shown that they
// are alive.
func (p *Pool) checkLocked(s *subpool) {
	for _, w := range s.idle {
		p.returnLocked(w, w.Check, p.closeLocked)
	}
	s.idle = nil
	s.least = 0
}

// returnLocked puts a sandbox on its subpool once it is ready. Until then it counts as
// renewing. Where it fails to become ready, it is given to end.
func (p *Pool) returnLocked(w *member, ready func(ctx context.Context) error, end func(*member)) {
	p.renewing[w] = true
	p.tasks.Go(func() {
		err := ready(p.ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.renewing, w)
		if err != nil {
			p.opts.Log.Debug("a sandbox is replaced: it could not be renewed or does not answer", "error", err, "runs", w.runs)
			end(w)
		} else {
			p.addIdleLocked(w.subpool, w)
		}
		p.growLocked()
	})
}
