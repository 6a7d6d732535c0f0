package pool_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

// More callers than sandboxes share them as long as runs are short.
func TestShortRunsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: 300 * time.Millisecond, renewTime: time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 2, Max: 16, Starts: 4})
		p.Warm(red)
		elapse(time.Second)
		done := make(chan bool)
		for range 10 {
			go func() {
				for range 100 {
					use(t, p, m, 5*time.Millisecond)
				}
				done <- true
			}()
		}
		for range 10 {
			<-done
		}
		if made, _, _ := m.counts(); made != 2 {
			t.Errorf("%d sandboxes were started for runs of 5 ms", made)
		}
	})
}

// If runs are long, callers get more sandboxes after 0.1 s, up to the budget. Sandboxes that
// are no longer needed are closed.
func TestLongRunsGrowAndShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: 300 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 2, Max: 6, Starts: 4})
		p.Warm(red)
		elapse(time.Second)
		var leases []*lease
		for range 6 {
			leases = append(leases, begin(t, p, m, red))
		}
		wantStats(t, p, pool.Stats{Leased: 2, Waiting: 4})
		elapse(100 * time.Millisecond)
		wantStats(t, p, pool.Stats{Leased: 2, Waiting: 4, Starting: 4})
		elapse(300 * time.Millisecond)
		wantStats(t, p, pool.Stats{Leased: 6})
		elapse(time.Minute)
		for _, l := range leases {
			l.result(t)
			l.release()
		}
		wantStats(t, p, pool.Stats{Idle: 6})
		elapse(25 * time.Second)
		wantStats(t, p, pool.Stats{Idle: 2})
	})
}

// The sandbox of a long run does not count as one that will soon be idle: another one is
// ready before the next caller comes.
func TestLongRunIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true}
		p := newPool(t, m, pool.Options{Target: 1, Max: 4})
		p.Warm(red)
		elapse(0)
		l := begin(t, p, m, red)
		l.result(t)
		wantStats(t, p, pool.Stats{Leased: 1})
		elapse(2 * time.Second)
		wantStats(t, p, pool.Stats{Leased: 1, Idle: 1})
		l.release()
	})
}
