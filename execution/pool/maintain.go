package pool

import (
	"slices"
	"time"
)

// tendEvery is how often the shelves are looked after when nothing happens.
const tendEvery = time.Second

// tend looks after the shelves now and again: it shrinks them, and starts again
// what failed.
func (p *Pool) tend() {
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		for _, s := range p.allLocked() {
			p.trimLocked(s)
		}
		p.fillLocked()
		p.mu.Unlock()
	}
}

// nudgeLocked has the shelves looked at again when somebody has waited long.
func (p *Pool) nudgeLocked() {
	if p.nudge != nil {
		return
	}
	p.nudge = time.AfterFunc(growAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.nudge = nil
		if !p.closed && p.statsLocked().Waiting > 0 {
			p.fillLocked()
			p.nudgeLocked()
		}
	})
}

// watch takes a sandbox off its shelf when it ends there by itself, or does not
// answer any more.
func (p *Pool) watch(s *shelf, w *warm) {
	<-w.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(s.idle, w)
	if i < 0 {
		return
	}
	s.idle = slices.Delete(s.idle, i, i+1)
	s.backOff.fail(time.Now())
	p.opts.Log.Warn("an idle sandbox has ended by itself, or does not answer", "age", time.Since(w.since), "silent", w.Silent())
	p.retireLocked(w)
	p.fillLocked()
}
