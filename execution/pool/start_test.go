package pool_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

func TestStartsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Target: 5, Max: 10, Starts: 3})
		p.Warm(red)
		wantStats(t, p, pool.Stats{Starting: 3})
		p.Warm(blue)
		wantStats(t, p, pool.Stats{Starting: 3})
	})
}

// An idle sandbox that ends is replaced after a pause: the next one may end as well.
func TestDeadIdleSandboxIsReplacedAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		p.Warm(red)
		synctest.Wait()
		m.number(1).die()
		elapse(400 * time.Millisecond)
		wantStats(t, p, pool.Stats{})
		elapse(2 * time.Second)
		wantStats(t, p, pool.Stats{Idle: 1})
	})
}

func TestStartFailureFailsOnlyTheFirstWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second, fail: func(attempt int) error {
			if attempt == 1 {
				return errStart
			}
			return nil
		}}
		p := newPool(t, m, pool.Options{Max: 10, Starts: 1})
		var leases []*lease
		for range 3 {
			leases = append(leases, begin(t, p, m, red))
			synctest.Wait()
		}
		<-leases[0].over
		wantUnavailable(t, leases[0].err)
		if !errors.Is(leases[0].err, errStart) {
			t.Errorf("the cause is lost: %v", leases[0].err)
		}
		for _, l := range leases[1:] {
			l.result(t)
			l.release()
		}
	})
}

// A start that fails late, as one without a node for it, fails no caller whom the sandboxes that are there will serve. It
// is not repeated at once for them either.
func TestStartFailureSparesCallersOfOtherSandboxes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, fail: func(attempt int) error {
			if attempt == 1 {
				return nil
			}
			time.Sleep(time.Minute)
			return errStart
		}}
		p := newPool(t, m, pool.Options{Target: 2, Max: 2, AtWork: 2})
		p.Warm(red)
		elapse(time.Minute - 50*time.Millisecond)
		running := begin(t, p, m, red)
		running.result(t)
		waiting := begin(t, p, m, red)
		elapse(200 * time.Millisecond)
		if attempts := len(m.attemptTimes()); attempts != 2 {
			t.Errorf("%d attempts", attempts)
		}
		if err := p.Fault(red); err != nil { // the template is served
			t.Error(err)
		}
		running.release()
		waiting.result(t)
		waiting.release()
		synctest.Wait()
		m.number(1).die()
		synctest.Wait()
		wantStats(t, p, pool.Stats{})
		if err := p.Fault(red); !errors.Is(err, errStart) {
			t.Errorf("without a sandbox the fault is %v", err)
		}
	})
}

// Idle sandboxes that die, as with their node, keep no caller from another one: starts do not fail.
func TestCallersGetSandboxesAfterIdleOnesDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true}
		p := newPool(t, m, pool.Options{Target: 4, Max: 4, AtWork: 4})
		p.Warm(red)
		synctest.Wait()
		running := begin(t, p, m, red)
		running.result(t)
		for number := range 4 {
			if sandbox := m.number(number + 1); sandbox != running.sandbox {
				sandbox.die()
			}
		}
		synctest.Wait()
		attempts := len(m.attemptTimes())
		waiting := begin(t, p, m, red)
		elapse(200 * time.Millisecond)
		if len(m.attemptTimes()) == attempts {
			t.Error("no sandbox is started for the caller")
		}
		waiting.result(t)
		waiting.release()
		running.release()
	})
}

// Each failed start fails one caller, without a pause in between.
func TestStartFailuresDoNotBackOffWhileCallersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second, fail: func(int) error { return errStart }}
		p := newPool(t, m, pool.Options{Max: 10, Starts: 1})
		asked := time.Now()
		var leases []*lease
		for range 8 {
			leases = append(leases, begin(t, p, m, red))
		}
		for _, l := range leases {
			<-l.over
			wantUnavailable(t, l.err)
		}
		if took := time.Since(asked); took != 8*time.Second {
			t.Errorf("8 failing starts of 1 s took %v", took)
		}
		if attempts := len(m.attemptTimes()); attempts != 8 {
			t.Errorf("%d attempts for 8 callers", attempts)
		}
	})
}

func TestStartFailuresBackOffWithoutCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{fail: func(int) error { return errStart }}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		p.Warm(red)
		elapse(10 * time.Minute)
		times := m.attemptTimes()
		if len(times) < 10 {
			t.Fatalf("%d attempts in ten minutes", len(times))
		}
		pause := 500 * time.Millisecond
		for i := 1; i < len(times); i++ {
			// Subpools are maintained every second.
			if gap := times[i].Sub(times[i-1]); gap < pause || gap >= pause+time.Second {
				t.Errorf("pause %d is %v, not %v", i, gap, pause)
			}
			pause = min(2*pause, 30*time.Second)
		}
	})
}

func TestLeaseEndsTheBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{fail: func(attempt int) error {
			if attempt <= 7 {
				return errStart
			}
			return nil
		}}
		p := newPool(t, m, pool.Options{Target: 2, Max: 4, Starts: 1})
		p.Warm(red)
		elapse(35 * time.Second) // without a lease the next attempt would come after a minute
		if attempts := len(m.attemptTimes()); attempts != 7 {
			t.Fatalf("%d attempts", attempts)
		}
		if err := p.Fault(red); !errors.Is(err, errStart) {
			t.Errorf("the fault is %v", err)
		}
		asked := time.Now()
		l := begin(t, p, m, red)
		l.result(t)
		if waited := time.Since(asked); waited != 0 {
			t.Errorf("the caller waited %v", waited)
		}
		wantStats(t, p, pool.Stats{Idle: 2, Leased: 1})
		if err := p.Fault(red); err != nil {
			t.Errorf("the fault stays after a success: %v", err)
		}
		l.release()
	})
}

func TestFaultOfAnUnknownTemplate(t *testing.T) {
	p := newPool(t, &maker{}, pool.Options{Max: 1})
	if err := p.Fault(blue); err != nil {
		t.Error(err)
	}
}
