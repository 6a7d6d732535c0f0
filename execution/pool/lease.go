package pool

import (
	"context"
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// waiter is a call of Lease that waits. It gets one answer, which its channel has room for.
type waiter struct {
	answer     chan answer
	enqueuedAt time.Time
	owner      execution.Owner
}

type answer struct {
	sandbox *member
	err     error
}

// Lease waits for a sandbox of a template that has run no program of another owner than the
// request's. The caller must call release after the run, which does not block.
//
// If the pool is closed or a start fails, the error has code [execution.Unavailable]. If
// ctx ends first, the error is its cause.
func (p *Pool) Lease(ctx context.Context, spec execution.Spec) (sandbox execution.Sandbox, release func(), err error) {
	w := p.enqueue(spec, execution.OwnerOf(ctx))
	select {
	case a := <-w.answer:
		if a.err != nil {
			return nil, nil, a.err
		}
		return a.sandbox, func() { p.release(a.sandbox) }, nil
	case <-ctx.Done():
		p.cancelWaiter(spec, w)
		return nil, nil, context.Cause(ctx)
	}
}

// enqueue adds a caller to a subpool and serves it at once if possible.
func (p *Pool) enqueue(spec execution.Spec, owner execution.Owner) *waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &waiter{answer: make(chan answer, 1), enqueuedAt: time.Now(), owner: owner}
	if p.closed {
		w.answer <- answer{err: errClosed}
		return w
	}
	s := p.subpoolLocked(spec)
	s.waiters = append(s.waiters, w)
	p.serveLocked(s)
	if len(s.waiters) > 0 { // otherwise release grows the pool: a start now would slow the run down
		p.growLocked()
		p.scheduleGrowLocked()
	}
	return w
}

// serveLocked leases idle sandboxes to callers that wait.
func (p *Pool) serveLocked(s *subpool) {
	defer func() { s.leastIdle = min(s.leastIdle, len(s.idle)) }()
	for {
		waiter, idle := p.matchLocked(s)
		if idle < 0 {
			return
		}
		m := s.takeIdle(idle)
		if m.isDone() || m.isDoomed() {
			p.closeLocked(m)
			continue
		}
		w := s.removeWaiter(waiter)
		p.leased[m] = true
		m.leasedAt, m.owner, m.cpu = time.Now(), w.owner, 0
		w.answer <- answer{sandbox: m}
	}
}

// cancelWaiter removes a caller whose context has ended. If it was given a sandbox in the
// meantime, that sandbox becomes idle again, or is closed where its subpool is gone.
func (p *Pool) cancelWaiter(spec execution.Spec, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.allLocked() {
		if i := slices.Index(s.waiters, w); i >= 0 {
			s.removeWaiter(i)
			return
		}
	}
	m := (<-w.answer).sandbox
	if m == nil || !p.leased[m] {
		return
	}
	delete(p.leased, m)
	if s, ok := p.subpools.Peek(spec); ok && !m.isDone() {
		p.addIdleLocked(s, m)
	} else {
		p.closeLocked(m)
	}
	p.growLocked()
}

// release takes a sandbox back after a run and starts the sandboxes that are needed by now.
// That waits for the end of the run because most runs are short, and a start beside one
// makes it twice as long (on 2 cores). During a long run, maintain starts them.
func (p *Pool) release(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.leased[m] {
		return // Close has closed it
	}
	delete(p.leased, m)
	m.runs++
	m.used = true
	m.subpool.noteRunLocked(time.Since(m.leasedAt), m.cpu)
	switch {
	case p.closed || m.shouldRetireLocked(m.runs) || p.shouldYieldLocked(m):
		p.retireLocked(m)
	case m.isWornOut(m.runs):
		p.resetLocked(m)
	default:
		p.renewLocked(m)
	}
	p.growLocked()
}
