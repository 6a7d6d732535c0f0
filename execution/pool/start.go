package pool

import (
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// growLocked starts what the subpools lack (see grow.go): first for callers
// who wait, the subpool of the one who waits the longest first, then for the
// targets, the subpool that was asked for last first.
func (p *Pool) growLocked() {
	subpools := p.allLocked()
	slices.SortStableFunc(subpools, byWaiting)
	if !p.growAllLocked(subpools, p.needsForCallersLocked) {
		return
	}
	subpools = p.allLocked()
	slices.Reverse(subpools)
	if !p.growAllLocked(subpools, p.needsLocked) {
		return
	}
	p.evicted = slices.DeleteFunc(p.evicted, func(s *subpool) bool { return len(s.waiters) == 0 && s.starting == 0 })
}

// growAllLocked starts what subpools lack. It returns false when there is no
// room for somebody who waits: what room there will be is theirs.
func (p *Pool) growAllLocked(subpools []*subpool, needs func(*subpool) bool) bool {
	for _, s := range subpools {
		for needs(s) && p.makeRoomLocked(s) {
			p.startLocked(s)
		}
		if needs(s) && len(s.waiters) > 0 {
			return false
		}
	}
	return true
}

// makeRoomLocked says whether one more sandbox may be started. Where the budget
// is spent and somebody waits, an idle sandbox makes room that is of another kind,
// or another owner's; the start follows when that is gone.
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
			p.closeLocked(other.idle[0])
			other.idle = slices.Delete(other.idle, 0, 1)
			break
		}
	}
	return false
}

func (p *Pool) startLocked(s *subpool) {
	s.starting++
	p.tasks.Go(func() {
		sandbox, err := p.start(p.ctx, s.spec)
		p.mu.Lock()
		defer p.mu.Unlock()
		s.starting--
		if err != nil {
			p.startFailedLocked(s, err)
		} else {
			s.backOff.reset()
			s.reusable = sandbox.Reusable()
			s.fault = nil
			w := &member{Sandbox: sandbox, subpool: s, since: time.Now()}
			p.limitLocked(w)
			p.tasks.Go(func() { p.watch(s, w) })
			p.addIdleLocked(s, w)
		}
		p.growLocked()
	})
}

// startFailedLocked tells the one who waits the longest. The others wait for
// the next start, which does not back off while somebody waits.
func (p *Pool) startFailedLocked(s *subpool, err error) {
	if p.closed {
		return
	}
	s.backOff.fail(time.Now())
	s.faultAt = time.Now()
	s.fault = &execution.Error{Code: execution.Unavailable, Message: "no sandbox could be started", Err: err}
	p.opts.Log.Warn("a sandbox could not be started", "error", err, "failures", s.backOff.failures)
	if len(s.waiters) > 0 {
		s.waiters[0].answer <- answer{err: s.fault}
		s.waiters = slices.Delete(s.waiters, 0, 1)
	}
}
