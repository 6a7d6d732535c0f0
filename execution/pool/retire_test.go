package pool_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

func TestIdleSubpoolShrinksToZeroAndGrowsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 3, Max: 10, IdleAfter: time.Minute})
		p.Warm(red)
		elapse(59 * time.Second)
		wantStats(t, p, pool.Stats{Idle: 3})
		elapse(2 * time.Second)
		wantStats(t, p, pool.Stats{})
		elapse(time.Hour)
		wantStats(t, p, pool.Stats{})

		l := begin(t, p, m, red)
		l.result(t)
		wantStats(t, p, pool.Stats{Idle: 3, Leased: 1})
		l.release()
		elapse(59 * time.Second)
		wantStats(t, p, pool.Stats{Idle: 3})
	})
}

func TestOldSandboxesAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 2, Max: 4, Starts: 1, MaxAge: time.Minute})
		p.Warm(red)
		elapse(47 * time.Second) // their ages are spread below the limit
		if closed := m.closedNumbers(); len(closed) > 0 {
			t.Errorf("closed too early: %v", closed)
		}
		elapse(14 * time.Second)
		if closed := m.closedNumbers(); len(closed) != 2 || slices.Max(closed) > 2 {
			t.Errorf("closed %v, not the first two", closed)
		}
		wantStats(t, p, pool.Stats{Idle: 2})
	})
}

func TestRetireAfterRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true}
		p := newPool(t, m, pool.Options{Target: 1, Max: 2, MaxRuns: 3})
		p.Warm(red)
		elapse(0)
		var used []int
		for range 7 {
			used = append(used, use(t, p, m, 0))
			synctest.Wait()
		}
		if want := []int{1, 1, 1, 2, 2, 2, 3}; !slices.Equal(used, want) {
			t.Errorf("used %v, not %v", used, want)
		}
	})
}

func TestRetireAfterAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1, MaxAge: time.Minute})
		p.Warm(red)
		elapse(0)
		if got := use(t, p, m, 47*time.Second); got != 1 {
			t.Errorf("sandbox %d", got)
		}
		synctest.Wait()
		if got := use(t, p, m, 14*time.Second); got != 1 { // old at its end, not at its start
			t.Errorf("sandbox %d", got)
		}
		synctest.Wait()
		if got := use(t, p, m, 0); got != 2 {
			t.Errorf("sandbox %d", got)
		}
	})
}

// Sandboxes for many runs are closed like others when there are no requests.
func TestReusedSandboxesAreClosedWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true}
		p := newPool(t, m, pool.Options{Target: 2, Max: 4, IdleAfter: time.Minute})
		use(t, p, m, 0)
		wantStats(t, p, pool.Stats{Idle: 2})
		elapse(62 * time.Second)
		wantStats(t, p, pool.Stats{})
		if got := use(t, p, m, 0); got != 3 {
			t.Errorf("sandbox %d", got)
		}
	})
}

// Sandboxes that were started together are not replaced together: the caller would have to
// wait each time, ten times here. By chance it may still wait once or twice.
func TestRetirementIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: 300 * time.Millisecond, renewTime: time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 4, Max: 16, Starts: 4, MaxRuns: 1000})
		p.Warm(red)
		elapse(time.Second)
		waits := 0
		for range 40_000 {
			began := time.Now()
			l := begin(t, p, m, red)
			l.result(t)
			if time.Since(began) > 50*time.Millisecond {
				waits++
			}
			pause(2 * time.Millisecond)
			l.release()
		}
		if waits > 4 {
			t.Errorf("the caller had to wait %d times", waits)
		}
	})
}

// An old sandbox is kept for a while where no other can be started.
func TestOldSandboxesAreKeptWhileStartsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		m := &maker{reusable: true, resettable: true, fail: func(attempt int) error {
			if attempt > 1 && !up.Load() {
				return errStart
			}
			return nil
		}}
		p := newPool(t, m, pool.Options{Target: 2, Max: 2, MaxAge: time.Minute})
		p.Warm(red)
		elapse(2 * time.Minute)
		wearOut(t, p, m, "")
		synctest.Wait()
		wantUse(t, p, m, "", 1, 1)
		elapse(5 * time.Minute)
		wantStats(t, p, pool.Stats{})
		up.Store(true)
		elapse(time.Minute)
		wantStats(t, p, pool.Stats{Idle: 2})
	})
}
