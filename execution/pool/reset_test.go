package pool_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

// wearOut leases a sandbox for an owner and releases it unfit for another run. It returns
// the sandbox.
func wearOut(t *testing.T, p *pool.Pool, m *maker, owner execution.Owner) *sandbox {
	t.Helper()
	l := beginFor(t, p, m, owner)
	s := l.result(t)
	s.worn.Store(true)
	l.release()
	return s
}

// wantUse checks which sandbox an owner gets, and how often it has been reset.
func wantUse(t *testing.T, p *pool.Pool, m *maker, owner execution.Owner, number, resets int) {
	t.Helper()
	l := beginFor(t, p, m, owner)
	if got := l.result(t); got.number != number || got.resets != resets {
		t.Errorf("%q gets sandbox %d, reset %d times, not %d, reset %d times", owner, got.number, got.resets, number, resets)
	}
	l.release()
	synctest.Wait()
}

// A sandbox that must serve no other run as it is, is reset, and counts as renewing until then.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, resettable: true, resetTime: 50 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		for resets := range 3 {
			old := wearOut(t, p, m, "")
			wantStats(t, p, pool.Stats{Renewing: 1})
			l := begin(t, p, m, red)
			elapse(49 * time.Millisecond)
			wantStats(t, p, pool.Stats{Renewing: 1, Waiting: 1})
			elapse(time.Millisecond)
			if got := l.result(t); got == old || got.number != 1 || got.resets != resets+1 {
				t.Errorf("the caller gets sandbox %d, reset %d times", got.number, got.resets)
			}
			l.release()
			wantStats(t, p, pool.Stats{Idle: 1})
		}
	})
}

// So is one that cannot be renewed.
func TestResetAfterRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, renewErr: errors.New("something was left"), resettable: true}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		for resets := range 3 {
			wantUse(t, p, m, "", 1, resets)
		}
		if closed := m.closedNumbers(); len(closed) > 0 {
			t.Errorf("closed: %v", closed)
		}
	})
}

// So is one that has served as many runs as it may.
func TestResetAfterRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, resettable: true}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1, MaxRuns: 3})
		for run := range 9 {
			wantUse(t, p, m, "", 1, run/3)
		}
	})
}

// A sandbox that cannot be reset, or that falls silent, is closed and replaced.
func TestNoReset(t *testing.T) {
	for name, test := range map[string]struct {
		resettable bool
		err        error
		silent     bool
	}{
		"not possible": {},
		"fails":        {resettable: true, err: errors.New("it does not start")},
		"silent":       {resettable: true, silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &maker{reusable: true, resettable: test.resettable, resetErr: test.err}
				p := newPool(t, m, pool.Options{Target: 1, Max: 2})
				l := begin(t, p, m, red)
				s := l.result(t)
				s.worn.Store(true)
				s.silent.Store(test.silent)
				l.release()
				wantStats(t, p, pool.Stats{Idle: 1})
				if closed := m.closedNumbers(); !slices.Equal(closed, []int{1}) {
					t.Errorf("closed: %v", closed)
				}
				wantUse(t, p, m, "", 2, 0)
			})
		})
	}
}

// A reset sandbox stays its owner's.
func TestResetKeepsTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, resettable: true}
		p := newPool(t, m, pool.Options{Target: 1, Max: 4})
		wearOut(t, p, m, "anna")
		synctest.Wait()
		wantUse(t, p, m, "ben", 2, 0)
		wantUse(t, p, m, "anna", 1, 1)
		wantUse(t, p, m, "carol", 3, 0)
	})
}

// With no room for another one, a sandbox is not reset but closed for another owner.
func TestResetYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, resettable: true}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		first := beginFor(t, p, m, "anna")
		first.result(t).worn.Store(true)
		second := beginFor(t, p, m, "ben")
		first.release()
		if got := second.result(t); got.number != 2 {
			t.Errorf("ben gets sandbox %d", got.number)
		}
		second.release()
	})
}

// A reset sandbox becomes no younger.
func TestResetKeepsTheAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, resettable: true}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1, MaxAge: time.Minute})
		for range 4 {
			if got := wearOut(t, p, m, ""); got.number != 1 {
				t.Errorf("sandbox %d", got.number)
			}
			elapse(11 * time.Second)
		}
		elapse(17 * time.Second) // it is 61 s old
		wantUse(t, p, m, "", 2, 0)
	})
}

// Close ends resets, and what they have made.
func TestCloseDuringReset(t *testing.T) {
	for name, resetTime := range map[string]time.Duration{"under way": time.Minute, "over": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &maker{reusable: true, resettable: true, resetTime: resetTime}
				p := newPool(t, m, pool.Options{Target: 1, Max: 1}) // checks that none is left
				wearOut(t, p, m, "")
				if err := p.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
