package pool

import "time"

// Bounds of the pause after a failed start.
const (
	minBackOff = 500 * time.Millisecond
	maxBackOff = 30 * time.Second
)

// backOff is the pause between starts that fail. Each failure doubles it. The zero value
// does not pause.
type backOff struct {
	failures int
	until    time.Time
}

// fail begins the pause after another failure.
func (b *backOff) fail(now time.Time) {
	pause := maxBackOff
	if b.failures < 6 {
		pause = minBackOff << b.failures
	}
	b.failures++
	b.until = now.Add(pause)
}

// reset ends the pause after a success.
func (b *backOff) reset() { *b = backOff{} }

func (b *backOff) isPausing(now time.Time) bool { return now.Before(b.until) }
