package pool

import "time"

// Bounds of the pause after a failed start.
const (
	minBackOff = 500 * time.Millisecond
	maxBackOff = 30 * time.Second
)

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
