package pool

import (
	"slices"
	"time"
)

// maintainInterval is how often the subpools are looked after when nothing happens.
const maintainInterval = time.Second

// maintain looks after the subpools now and again: it shrinks them, and starts again
// what failed.
func (p *Pool) maintain() {
	ticker := time.NewTicker(maintainInterval)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		for _, s := range p.allLocked() {
			p.shrinkLocked(s)
		}
		p.growLocked()
		p.mu.Unlock()
	}
}

// scheduleGrowLocked has the subpools looked at again when somebody has waited long.
func (p *Pool) scheduleGrowLocked() {
	if p.growTimer != nil {
		return
	}
	p.growTimer = time.AfterFunc(growAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.growTimer = nil
		if !p.closed && p.statsLocked().Waiting > 0 {
			p.growLocked()
			p.scheduleGrowLocked()
		}
	})
}

// watch takes a sandbox off its subpool when it ends there by itself, or does not
// answer any more.
func (p *Pool) watch(s *subpool, w *member) {
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
	p.growLocked()
}
