package pool_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

// An idle sandbox that is to go soon is closed and replaced at once.
func TestDoomedIdleSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true}
		p := newPool(t, m, pool.Options{Target: 2, Max: 4})
		p.Warm(red)
		elapse(0)
		close(m.number(1).doomed)
		wantStats(t, p, pool.Stats{Idle: 2})
		if closed := m.closedNumbers(); !slices.Equal(closed, []int{1}) {
			t.Errorf("closed: %v", closed)
		}
	})
}

// A run goes on in a sandbox that is to go soon. After it, the sandbox serves no other one.
func TestDoomedSandboxInUse(t *testing.T) {
	for name, maker := range map[string]*maker{
		"renewed":      {reusable: true},
		"reset":        {reusable: true, resettable: true},
		"for one run":  {},
		"slow to come": {reusable: true, renewTime: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t, maker, pool.Options{Target: 1, Max: 1})
				l := begin(t, p, maker, red)
				s := l.result(t)
				if maker.renewTime == 0 {
					close(s.doomed)
				}
				synctest.Wait()
				select {
				case <-s.Done():
					t.Error("it was ended under its run")
				default:
				}
				l.release()
				if maker.renewTime > 0 {
					elapse(maker.renewTime / 2)
					close(s.doomed)
				}
				elapse(maker.renewTime)
				if got := begin(t, p, maker, red); got.result(t).number != 2 {
					t.Error("it is leased again")
				} else {
					got.release()
				}
			})
		})
	}
}

// A sandbox whose machine goes while it is reset is closed.
func TestDoomedDuringReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, resettable: true, resetTime: time.Second}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		s := wearOut(t, p, m, "")
		elapse(m.resetTime / 2)
		close(s.doomed)
		elapse(m.resetTime)
		wantUse(t, p, m, "", 2, 0)
	})
}
