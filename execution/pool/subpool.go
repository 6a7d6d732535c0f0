package pool

import (
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// subpool holds the idle sandboxes of a template, and the callers that wait for one.
type subpool struct {
	spec          execution.Spec
	idle          []*member // the one that has been idle longest first
	waiters       []*waiter // the one that has waited longest first
	starting      int
	startingBare  bool      // the one that starts is to be bare
	lacksNothing  bool      // one that was to be bare had nothing to preload
	reusable      bool      // whether a sandbox serves several runs, by the last one started
	lastRequested time.Time // by Lease or Warm
	waiting       float64   // the part of recent runs that mostly waited for something
	evicted       bool      // whether it keeps nothing idle any more

	leastIdle int // the fewest idle sandboxes since shrunkAt
	shrunkAt  time.Time

	backOff backOff
	fault   error // of the last start; nil if it succeeded
	faultAt time.Time
}

// member is a sandbox of the pool.
type member struct {
	execution.Sandbox
	subpool   *subpool
	startedAt time.Time
	leasedAt  time.Time       // the last time
	cpu       time.Duration   // of the last run; the holder of the lease sets it
	runs      int             // that have ended since the start, or the last reset
	used      bool            // whether a run has ended since the start
	owner     execution.Owner // of the current or last lease; valid while leased or used

	maxRuns int           // 0: any number
	maxAge  time.Duration // 0: any age
}

// isDone reports whether the sandbox has ended or is silent.
func (m *member) isDone() bool { return isClosed(m.Done()) }

// isDoomed reports whether the sandbox is to go soon.
func (m *member) isDoomed() bool { return isClosed(m.Doomed()) }

func isClosed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

// takeIdle removes an idle sandbox and returns it.
func (s *subpool) takeIdle(i int) *member {
	m := s.idle[i]
	s.idle = slices.Delete(s.idle, i, i+1)
	return m
}

// removeWaiter removes a caller that waits and returns it.
func (s *subpool) removeWaiter(i int) *waiter {
	w := s.waiters[i]
	s.waiters = slices.Delete(s.waiters, i, i+1)
	return w
}

// subpoolLocked returns the subpool of a template, and notes that it was requested.
func (p *Pool) subpoolLocked(spec execution.Spec) *subpool {
	s, ok := p.subpools.Get(spec)
	if !ok {
		s = &subpool{spec: spec, shrunkAt: time.Now()}
		p.subpools.Add(spec, s)
	}
	s.lastRequested = time.Now()
	return s
}

// allLocked returns all subpools, the least recently requested first.
func (p *Pool) allLocked() []*subpool {
	return append(slices.Clone(p.evicted), p.subpools.Values()...)
}

// addIdleLocked leases a sandbox to a caller that waits, or makes it idle. It closes one that
// is to go soon.
func (p *Pool) addIdleLocked(s *subpool, m *member) {
	if m.isDoomed() {
		p.closeLocked(m)
		return
	}
	s.idle = append(s.idle, m)
	p.closeReplacedLocked(s)
	p.serveLocked(s)
	if p.closed || s.evicted {
		p.closeIdleLocked(s)
	}
	for !s.reusable && len(s.idle) > p.opts.Target { // one was started for a caller that has left since
		p.closeLocked(s.takeIdle(0))
	}
}

// evictLocked is called for a subpool that the LRU cache drops. Its callers are still
// served.
func (p *Pool) evictLocked(_ execution.Spec, s *subpool) {
	s.evicted = true
	p.closeIdleLocked(s)
	if len(s.waiters) > 0 || s.starting > 0 {
		p.evicted = append(p.evicted, s)
	}
}

// closeIdleLocked closes all idle sandboxes of a subpool.
func (p *Pool) closeIdleLocked(s *subpool) {
	for _, m := range s.idle {
		p.closeLocked(m)
	}
	s.idle = nil
}
