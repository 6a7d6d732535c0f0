package pool

import (
	"context"
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// waiter is a Lease that waits. Its channel has room for its one answer.
type waiter struct {
	answer chan answer
	since  time.Time
	owner  execution.Owner
}

type answer struct {
	sandbox *member
	err     error
}

// Lease waits for a sandbox of some kind that has run for nobody but the owner of
// the request. The caller calls release when it is done; that returns at once.
func (p *Pool) Lease(ctx context.Context, spec execution.Spec) (sandbox execution.Sandbox, release func(), err error) {
	w := p.enqueue(spec, execution.OwnerOf(ctx))
	select {
	case a := <-w.answer:
		return p.deliver(a)
	case <-ctx.Done():
		p.cancelWaiter(spec, w)
		return nil, nil, context.Cause(ctx)
	}
}

func (p *Pool) deliver(a answer) (execution.Sandbox, func(), error) {
	if a.err != nil {
		return nil, nil, a.err
	}
	return a.sandbox, func() { p.release(a.sandbox) }, nil
}

// ask puts a waiter at a subpool and serves it at once if that can be.
func (p *Pool) enqueue(spec execution.Spec, owner execution.Owner) *waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &waiter{answer: make(chan answer, 1), since: time.Now(), owner: owner}
	if p.closed {
		w.answer <- answer{err: errClosed}
		return w
	}
	s := p.subpoolLocked(spec)
	s.waiters = append(s.waiters, w)
	p.serveLocked(s)
	if len(s.waiters) > 0 {
		p.growLocked()
		p.scheduleGrowLocked()
	} // else a start would take the cores from the run that begins: see release
	return w
}

// cancelWaiter takes back a waiter. A sandbox that it was given meanwhile goes
// back to the subpool, unless that is gone.
func (p *Pool) cancelWaiter(spec execution.Spec, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.allLocked() {
		if i := slices.Index(s.waiters, w); i >= 0 {
			s.waiters = slices.Delete(s.waiters, i, i+1)
			return
		}
	}
	a := <-w.answer
	if a.sandbox == nil || !p.leased[a.sandbox] {
		return
	}
	delete(p.leased, a.sandbox)
	if s, ok := p.subpools.Peek(spec); ok && !isDone(a.sandbox) {
		p.addIdleLocked(s, a.sandbox)
	} else {
		p.closeLocked(a.sandbox)
	}
	p.growLocked()
}

// serveLocked gives idle sandboxes to waiters.
func (p *Pool) serveLocked(s *subpool) {
	defer func() { s.least = min(s.least, len(s.idle)) }()
	for {
		waiter, idle := p.matchLocked(s)
		if idle < 0 {
			return
		}
		w := s.idle[idle]
		s.idle = slices.Delete(s.idle, idle, idle+1)
		if isDone(w) {
			p.closeLocked(w)
			continue
		}
		p.leased[w] = true
		w.leased, w.owner = time.Now(), s.waiters[waiter].owner
		s.waiters[waiter].answer <- answer{sandbox: w}
		s.waiters = slices.Delete(s.waiters, waiter, waiter+1)
	}
}

// release takes a sandbox back after a run, and starts what is lacking now: most
// runs are short, and a start beside one makes it twice as long (on 2 cores).
// For a run that is not short, the place is taken when maintain next looks.
func (p *Pool) release(w *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.leased[w] {
		return // Close has ended it
	}
	delete(p.leased, w)
	w.runs++
	if p.closed || p.shouldRetireLocked(w, w.runs) || p.shouldYieldLocked(w) {
		p.retireLocked(w)
	} else {
		p.renewLocked(w)
	}
	p.growLocked()
}
