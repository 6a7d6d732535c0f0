package pool_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

// use leases a sandbox, keeps it for a while and gives its number.
func use(t *testing.T, p *pool.Pool, m *maker, keep time.Duration) int {
	t.Helper()
	l := begin(t, p, m, red)
	number := l.result(t).number
	pause(keep)
	l.release()
	return number
}

// A sandbox that can serve many runs serves them, and no other is started.
func TestReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, renewTime: time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 1, Max: 4})
		p.Warm(red)
		elapse(0)
		for range 20 {
			if got := use(t, p, m, time.Millisecond); got != 1 {
				t.Errorf("sandbox %d was used", got)
			}
			elapse(2 * time.Millisecond)
		}
		wantStats(t, p, pool.Stats{Idle: 1})
		if made, _, _ := m.counts(); made != 1 {
			t.Errorf("%d were made", made)
		}
	})
}

// While a sandbox is renewed, nobody gets it; then the one who waits does.
func TestRenewing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, renewTime: 50 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		use(t, p, m, 0)
		wantStats(t, p, pool.Stats{Renewing: 1})
		l := begin(t, p, m, red)
		elapse(49 * time.Millisecond)
		wantStats(t, p, pool.Stats{Renewing: 1, Waiting: 1})
		elapse(time.Millisecond)
		if got := l.result(t).number; got != 1 {
			t.Errorf("sandbox %d", got)
		}
		l.release()
	})
}

// A sandbox that cannot be renewed is replaced.
func TestRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, renewErr: errors.New("cleaning failed")}
		p := newPool(t, m, pool.Options{Target: 1, Max: 2})
		use(t, p, m, 0)
		wantStats(t, p, pool.Stats{Idle: 1})
		if got := m.closedNumbers(); !slices.Equal(got, []int{1}) {
			t.Errorf("closed: %v", got)
		}
	})
}

// Close does not wait for a renewal, and leaves nothing.
func TestCloseWhileRenewing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, renewTime: time.Hour}
		p := newPool(t, m, pool.Options{Target: 1, Max: 2})
		use(t, p, m, 0)
		began := time.Now()
		if err := p.Close(t.Context()); err != nil || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
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

// Where runs are long, callers get more sandboxes after a moment, up to the
// budget, and what is not needed goes again.
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

// A run that is long is not counted on: another sandbox is ready for the next
// caller before it comes.
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

// Sandboxes for many runs go like others when nobody asks for one.
func TestReusedSandboxesGoWhenIdle(t *testing.T) {
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

// Sandboxes that were started together are not replaced together: that would
// have the caller wait each time, ten times here. Chance may do so once or twice.
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

// A kind in steady use does not keep another from its turn.
func TestAnotherKindGetsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: 300 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		p.Warm(red)
		elapse(time.Second)
		over := make(chan struct{})
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
						use(t, p, m, 10*time.Millisecond)
					}
				}
			})
		}
		began := time.Now()
		l := begin(t, p, m, blue)
		l.result(t)
		if took := time.Since(began); took > time.Second {
			t.Errorf("it waited for %v", took)
		}
		l.release()
		close(over)
		group.Wait()
	})
}
