package pool_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

func TestNewRefusesNegativeSubpools(t *testing.T) {
	if _, err := pool.New((&maker{}).start, pool.Options{Max: 1, Subpools: -1}); err == nil {
		t.Error("no error")
	}
}

func TestNothingStartsBeforeARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 2, Max: 4})
		elapse(time.Hour)
		wantStats(t, p, pool.Stats{})
	})
}

func TestWarmFillsToTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: 100 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 3, Max: 10})
		p.Warm(red)
		wantStats(t, p, pool.Stats{Starting: 2}) // two at a time by default
		elapse(100 * time.Millisecond)
		wantStats(t, p, pool.Stats{Idle: 2, Starting: 1})
		elapse(time.Hour)
		wantStats(t, p, pool.Stats{Idle: 3})
		if made, _, _ := m.counts(); made != 3 {
			t.Errorf("%d sandboxes were made for a target of 3", made)
		}
	})
}

func TestTargetZeroStartsForEachLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Max: 2})
		p.Warm(red)
		wantStats(t, p, pool.Stats{})
		l := begin(t, p, m, red)
		wantStats(t, p, pool.Stats{Starting: 1, Waiting: 1})
		l.result(t)
		wantStats(t, p, pool.Stats{Leased: 1})
		l.release()
		wantStats(t, p, pool.Stats{})
	})
}

// A dying sandbox counts until it is gone.
func TestBudgetCountsEveryState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second, closeTime: 10 * time.Second}
		p := newPool(t, m, pool.Options{Target: 2, Max: 2})
		p.Warm(red)
		elapse(time.Minute)
		wantStats(t, p, pool.Stats{Idle: 2})
		one, two := begin(t, p, m, red), begin(t, p, m, red)
		one.result(t)
		two.result(t)
		third := begin(t, p, m, red)
		wantStats(t, p, pool.Stats{Leased: 2, Waiting: 1})
		one.release()
		wantStats(t, p, pool.Stats{Leased: 1, Dying: 1, Waiting: 1})
		elapse(10 * time.Second)
		wantStats(t, p, pool.Stats{Leased: 1, Starting: 1, Waiting: 1})
		third.result(t)
		two.release()
		third.release()
	})
}

func TestEvictedSubpoolIsDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 2, Max: 10, Subpools: 1})
		p.Warm(red)
		wantStats(t, p, pool.Stats{Idle: 2})
		p.Warm(blue)
		wantStats(t, p, pool.Stats{Idle: 2})
		if closed := m.closedNumbers(); len(closed) != 2 || slices.Max(closed) > 2 {
			t.Errorf("closed %v, not the two of red", closed)
		}
	})
}

func TestCallersAtAnEvictedSubpoolAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Target: 1, Max: 10, Starts: 1, Subpools: 1})
		one, two := begin(t, p, m, red), begin(t, p, m, red)
		synctest.Wait()
		p.Warm(blue)
		for _, l := range []*lease{one, two} {
			if got := l.result(t).spec; got != red {
				t.Errorf("got a sandbox of %v", got)
			}
			l.release()
		}
		elapse(time.Minute)
		wantStats(t, p, pool.Stats{Idle: 1})
		asked := time.Now()
		kept := begin(t, p, m, blue)
		kept.result(t)
		if waited := time.Since(asked); waited != 0 {
			t.Error("the idle sandbox is not of the template that was kept")
		}
		kept.release()
	})
}

// A sandbox that an evicted subpool started for a caller who left is closed.
func TestEvictedSubpoolKeepsNoLateSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Max: 10, Subpools: 1})
		l := begin(t, p, m, red)
		synctest.Wait()
		p.Warm(blue)
		l.cancel()
		<-l.over
		elapse(time.Minute)
		wantStats(t, p, pool.Stats{})
	})
}

// A sandbox that fails to close does not count forever.
func TestFailedCloseFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{closeErr: errors.New("the engine does not answer")}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		for range 3 {
			l := begin(t, p, m, red)
			l.result(t)
			l.release()
			synctest.Wait()
		}
	})
}
