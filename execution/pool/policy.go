package pool

import "time"

// How often the shelves are looked after when nothing happens.
const tendEvery = time.Second

// Bounds of the pause after a failed start.
const (
	minBackOff = 500 * time.Millisecond
	maxBackOff = 30 * time.Second
)

// lacksLocked is the pool's policy: a shelf lacks a sandbox while more callers
// wait than sandboxes start for them, or, as long as it is in use and its
// starts do not fail, while fewer than the target are idle.
func (p *Pool) lacksLocked(s *shelf) bool {
	if p.closed {
		return false
	}
	if p.lacksForCallersLocked(s) {
		return true
	}
	inUse := !s.evicted && (p.opts.IdleAfter == 0 || time.Since(s.wanted) < p.opts.IdleAfter)
	return inUse && !s.backOff.pausing(time.Now()) && len(s.idle)+s.starting-len(s.waiters) < p.opts.Target
}

// lacksForCallersLocked says whether more callers wait at a shelf than
// sandboxes start for them.
func (p *Pool) lacksForCallersLocked(s *shelf) bool {
	return !p.closed && s.starting < len(s.waiters)
}

// tend drains shelves that nobody asks for, replaces old sandboxes, and starts
// again what failed.
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
			if p.opts.IdleAfter > 0 && time.Since(s.wanted) >= p.opts.IdleAfter {
				p.emptyLocked(s)
			}
			for p.opts.MaxAge > 0 && len(s.idle) > 0 && time.Since(s.idle[0].since) >= p.opts.MaxAge {
				p.closeLocked(s.idle[0])
				s.idle = s.idle[1:]
			}
		}
		p.fillLocked()
		p.mu.Unlock()
	}
}

// backOff is the pause between starts that fail, doubled with each failure.
// The zero value does not pause.
type backOff struct {
	failures int
	until    time.Time
}

func (b *backOff) fail(now time.Time) {
	pause := maxBackOff
	if b.failures < 6 {
		pause = minBackOff << b.failures
	}
	b.failures++
	b.until = now.Add(pause)
}

func (b *backOff) reset() { *b = backOff{} }

func (b *backOff) pausing(now time.Time) bool { return now.Before(b.until) }
