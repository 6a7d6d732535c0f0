package pool

import (
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// growLocked starts the sandboxes that subpools need (see grow.go). First come subpools
// with callers that wait, in the order of their oldest callers; then subpools below their
// target, the most recently requested first.
func (p *Pool) growLocked() {
	subpools := p.allLocked()
	slices.SortStableFunc(subpools, compareWaiting)
	if !p.startForLocked(subpools, p.callersNeedSandboxLocked) {
		return
	}
	subpools = p.allLocked()
	slices.Reverse(subpools)
	if !p.startForLocked(subpools, p.needsSandboxLocked) {
		return
	}
	p.evicted = slices.DeleteFunc(p.evicted, func(s *subpool) bool { return len(s.waiters) == 0 && s.starting == 0 })
}

// startForLocked starts sandboxes for subpools, in their order, as long as they need some
// and there is room. It returns false if there is no room for a caller that waits: that
// caller must get the room that comes free next.
func (p *Pool) startForLocked(subpools []*subpool, needs func(*subpool) bool) bool {
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

// startLocked starts a sandbox in the background.
func (p *Pool) startLocked(s *subpool) {
	spec := s.spec
	spec.Bare = p.startsBareLocked(s)
	s.startingBare = spec.Bare
	s.starting++
	p.tasks.Go(func() {
		sandbox, err := p.start(p.ctx, spec)
		if err != nil {
			p.startFailed(s, err)
		} else {
			p.started(s, spec, sandbox)
		}
	})
}

// started adds a new sandbox to its subpool.
func (p *Pool) started(s *subpool, spec execution.Spec, sandbox execution.Sandbox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.starting--
	s.startingBare = false
	s.backOff.reset()
	s.reusable = sandbox.Reusable()
	s.lacksNothing = s.lacksNothing || spec.Bare && !sandbox.Bare()
	s.fault = nil
	m := &member{Sandbox: sandbox, subpool: s, startedAt: time.Now()}
	m.setLimits(p.opts)
	p.tasks.Go(func() { p.watch(m) })
	p.addIdleLocked(s, m)
	p.growLocked()
}

// startFailed records and logs a failed start.
func (p *Pool) startFailed(s *subpool, err error) {
	if failures := p.recordFailure(s, err); failures > 0 {
		p.opts.Log.Warn("a sandbox failed to start", "error", err, "failures", failures)
	}
}

// recordFailure fails the caller that has waited longest of those whom no sandbox in use will
// serve. The others wait for the next start, which happens without a pause while such callers
// wait. It returns the number of failures in a row, or 0 if the pool is closed.
func (p *Pool) recordFailure(s *subpool, err error) (failures int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.starting--
	s.startingBare = false
	if p.closed {
		return 0
	}
	s.backOff.fail(time.Now())
	s.faultAt = time.Now()
	s.fault = &execution.Error{Code: execution.Unavailable, Message: "no sandbox could be started", Err: err}
	returning := p.returningLocked(s)
	if first := slices.IndexFunc(s.waiters, func(w *waiter) bool { return returning[w.owner] == 0 }); first >= 0 {
		s.removeWaiter(first).answer <- answer{err: s.fault}
	}
	p.growLocked()
	return s.backOff.failures
}
