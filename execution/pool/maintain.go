package pool

import (
	"slices"
	"time"
)

// maintainInterval is how often maintain looks at the subpools.
const maintainInterval = time.Second

// maintain shrinks and grows the subpools at intervals until the pool closes: time alone
// makes sandboxes old, runs long, and ends the pause after a failed start.
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

// scheduleGrowLocked grows the subpools every growAfter as long as callers wait.
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

// watch waits until a sandbox ends, is silent or is to go soon, and retires it if it is idle
// then.
func (p *Pool) watch(m *member) {
	select {
	case <-m.Done():
	case <-m.Doomed():
		p.closeDoomed(m)
		return // it will not be idle again
	}
	if p.retireIdle(m) {
		p.opts.Log.Warn("an idle sandbox ended or does not answer", "age", time.Since(m.startedAt), "silent", m.Silent())
	}
}

// closeDoomed closes a sandbox that is to go soon, if it is idle.
func (p *Pool) closeDoomed(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(m.subpool.idle, m); i >= 0 {
		p.closeLocked(m.subpool.takeIdle(i))
		p.growLocked()
	}
}

// retireIdle retires a sandbox that has ended, and reports whether it was idle. Its
// subpool pauses before the next start, because the new sandbox may end as well.
func (p *Pool) retireIdle(m *member) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := m.subpool
	i := slices.Index(s.idle, m)
	if i < 0 {
		return false
	}
	s.takeIdle(i)
	s.backOff.fail(time.Now())
	p.retireLocked(m)
	p.growLocked()
	return true
}
