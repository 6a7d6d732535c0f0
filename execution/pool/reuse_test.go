package pool_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

// use leases a sandbox, keeps it for a while and returns its number.
func use(t *testing.T, p *pool.Pool, m *maker, keep time.Duration) int {
	t.Helper()
	l := begin(t, p, m, red)
	number := l.result(t).number
	pause(keep)
	l.release()
	return number
}

// A sandbox that can serve many runs serves all of them.
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

// A sandbox is not leased while it is renewed. Then a caller that waits gets it.
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
