package pool

import (
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// subpool holds the sandboxes of one kind. Pool.mu guards it.
type subpool struct {
	spec     execution.Spec
	idle     []*member // idle the longest first
	least    int       // the fewest that were idle since shrunkAt
	shrunkAt time.Time
	waiters  []*waiter
	starting int
	reusable bool      // its sandboxes serve more than one run, as far as is known
	wanted   time.Time // when it was last asked for a sandbox
	backOff  backOff
	fault    error // of the last start
	faultAt  time.Time
	evicted  bool // it keeps nothing idle any more
}

// member is an idle, leased or renewing sandbox.
type member struct {
	execution.Sandbox
	subpool *subpool
	since   time.Time       // when it was started
	leased  time.Time       // when it was last leased
	runs    int             // that are over
	owner   execution.Owner // for whom it has run, or is leased now; of no meaning before that

	maxRuns int           // 0: any number
	maxAge  time.Duration // 0: any age
}

func isDone(w *member) bool {
	select {
	case <-w.Done():
		return true
	default:
		return false
	}
}

// subpoolLocked gives the subpool of a kind, which counts as asked for.
func (p *Pool) subpoolLocked(spec execution.Spec) *subpool {
	s, ok := p.subpools.Get(spec)
	if !ok {
		s = &subpool{spec: spec, shrunkAt: time.Now()}
		p.subpools.Add(spec, s)
	}
	s.wanted = time.Now()
	return s
}

// allLocked gives all subpools, the one not asked for the longest first.
func (p *Pool) allLocked() []*subpool {
	return append(slices.Clone(p.evicted), p.subpools.Values()...)
}

// addIdleLocked gives a sandbox to who waits at a subpool, or puts it there.
func (p *Pool) addIdleLocked(s *subpool, w *member) {
	s.idle = append(s.idle, w)
	p.serveLocked(s)
	if p.closed || s.evicted {
		p.closeIdleLocked(s)
	}
	for !s.reusable && len(s.idle) > p.opts.Target { // it was started for somebody who has left meanwhile
		p.closeLocked(s.idle[0])
		s.idle = slices.Delete(s.idle, 0, 1)
	}
}

// evictLocked is called for a subpool that falls out of the LRU. Who waits there
// is still served.
func (p *Pool) evictLocked(_ execution.Spec, s *subpool) {
	s.evicted = true
	p.closeIdleLocked(s)
	if len(s.waiters) > 0 || s.starting > 0 {
		p.evicted = append(p.evicted, s)
	}
}

func (p *Pool) closeIdleLocked(s *subpool) {
	for _, w := range s.idle {
		p.closeLocked(w)
	}
	s.idle = nil
}
