package pool_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

// freezeAll freezes all sandboxes made so far.
func (m *maker) freezeAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.made {
		s.frozen.Store(true)
	}
}

// A caller whose sandbox was silent gets another one that has answered a ping, or a new one.
func TestSilentSandboxTriggersChecks(t *testing.T) {
	for name, test := range map[string]struct {
		frozen int           // of the first three
		limit  int           // of sandboxes
		within time.Duration // until the caller gets another
	}{
		"one":                  {1, 8, 0},
		"all":                  {3, 8, time.Second},
		"all, no room":         {3, 3, time.Second + 500*time.Millisecond},
		"all, one at a time":   {1, 1, time.Second + 500*time.Millisecond},
		"all but one, no room": {2, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &maker{startTime: 500 * time.Millisecond, closeTime: 300 * time.Millisecond, reusable: true}
				target := min(3, test.limit)
				p := newPool(t, m, pool.Options{Target: target, Max: test.limit, Starts: 8})
				p.Warm(red)
				elapse(time.Second)
				for n := range test.frozen {
					m.number(n + 1).frozen.Store(true)
				}
				first := begin(t, p, m, red)
				sandbox := first.result(t)
				if !sandbox.frozen.Load() {
					t.Fatal("the first sandbox is not frozen")
				}
				sandbox.fallSilent()
				first.release()
				began := time.Now()
				second := begin(t, p, m, red)
				if got := second.result(t); got.frozen.Load() {
					t.Error("the caller got a frozen sandbox")
				}
				if took := time.Since(began); took > test.within {
					t.Errorf("the caller waited %v", took)
				}
				second.release()
				elapse(30 * time.Second)
				wantStats(t, p, pool.Stats{Idle: target})
				for n := range test.frozen {
					select {
					case <-m.number(n + 1).Done():
					default:
						t.Errorf("sandbox %d is frozen and was not closed", n+1)
					}
				}
			})
		})
	}
}

// A sandbox that falls silent while idle also triggers checks of the others.
func TestSilentIdleSandboxTriggersChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true}
		p := newPool(t, m, pool.Options{Target: 3, Max: 8, Starts: 8})
		p.Warm(red)
		elapse(time.Second)
		m.freezeAll()
		m.number(2).fallSilent()
		synctest.Wait()
		if stats := p.Stats(); stats.Idle != 0 {
			t.Errorf("unchecked sandboxes are idle: %+v", stats)
		}
		if got := begin(t, p, m, red); got.result(t).frozen.Load() {
			t.Error("the caller got a frozen sandbox")
		} else {
			got.release()
		}
	})
}

// So does a sandbox that falls silent while it is renewed.
func TestSandboxSilentWhileRenewingTriggersChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, renewTime: time.Second, renewErr: errStart}
		p := newPool(t, m, pool.Options{Target: 2, Max: 8, Starts: 8})
		p.Warm(red)
		elapse(time.Second)
		used := begin(t, p, m, red)
		sandbox := used.result(t)
		used.release()
		sandbox.silent.Store(true)
		elapse(time.Second)
		if checks := m.checks.Load(); checks != 1 {
			t.Errorf("%d checks of the other one", checks)
		}
	})
}

// Sandboxes that end in other ways trigger no checks.
func TestNoChecksWithoutSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 3, Max: 8, Starts: 8})
		p.Warm(red)
		elapse(time.Second)
		for range 5 {
			l := begin(t, p, m, red)
			l.result(t).die()
			l.release()
			elapse(time.Second)
		}
		m.number(len(m.attemptTimes())).die()
		elapse(time.Second)
		if checks := m.checks.Load(); checks != 0 {
			t.Errorf("%d checks", checks)
		}
	})
}
