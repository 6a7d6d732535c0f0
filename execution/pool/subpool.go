package pool

import (
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// shelf holds the sandboxes of one kind. Pool.mu guards it.
type shelf struct {
	spec     execution.Spec
	idle     []*warm // idle the longest first
	least    int     // the fewest that were idle since trimmed
	trimmed  time.Time
	waiters  []*waiter
	starting int
	reusable bool      // its sandboxes serve more than one run, as far as is known
	wanted   time.Time // when it was last asked for a sandbox
	backOff  backOff
	fault    error // of the last start
	faultAt  time.Time
	evicted  bool // it keeps nothing idle any more
}

// warm is an idle, leased or renewing sandbox.
type warm struct {
	execution.Sandbox
	shelf  *shelf
	since  time.Time       // when it was started
	leased time.Time       // when it was last leased
	runs   int             // that are over
	owner  execution.Owner // for whom it has run, or is leased now; of no meaning before that

	maxRuns int           // 0: any number
	maxAge  time.Duration // 0: any age
}

func isDone(w *warm) bool {
	select {
	case <-w.Done():
		return true
	default:
		return false
	}
}

// shelfLocked gives the shelf of a kind, which counts as asked for.
func (p *Pool) shelfLocked(spec execution.Spec) *shelf {
	s, ok := p.shelves.Get(spec)
	if !ok {
		s = &shelf{spec: spec, trimmed: time.Now()}
		p.shelves.Add(spec, s)
	}
	s.wanted = time.Now()
	return s
}

// allLocked gives all shelves, the one not asked for the longest first.
func (p *Pool) allLocked() []*shelf {
	return append(slices.Clone(p.drained), p.shelves.Values()...)
}

// shelveLocked gives a sandbox to who waits at a shelf, or puts it there.
func (p *Pool) shelveLocked(s *shelf, w *warm) {
	s.idle = append(s.idle, w)
	p.serveLocked(s)
	if p.closed || s.evicted {
		p.emptyLocked(s)
	}
	for !s.reusable && len(s.idle) > p.opts.Target { // it was started for somebody who has left meanwhile
		p.closeLocked(s.idle[0])
		s.idle = slices.Delete(s.idle, 0, 1)
	}
}

// drainLocked is called for a shelf that falls out of the LRU. Who waits there
// is still served.
func (p *Pool) drainLocked(_ execution.Spec, s *shelf) {
	s.evicted = true
	p.emptyLocked(s)
	if len(s.waiters) > 0 || s.starting > 0 {
		p.drained = append(p.drained, s)
	}
}

func (p *Pool) emptyLocked(s *shelf) {
	for _, w := range s.idle {
		p.closeLocked(w)
	}
	s.idle = nil
}
