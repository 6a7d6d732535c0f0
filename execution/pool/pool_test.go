package pool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

func TestNewRefusesShelvesBelowZero(t *testing.T) {
	if _, err := pool.New((&maker{}).start, pool.Options{Max: 1, Shelves: -1}); err == nil {
		t.Error("no error")
	}
}

func TestNothingStartsUnasked(t *testing.T) {
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
		wantStats(t, p, pool.Stats{Starting: 2}) // two at a time, by default
		elapse(100 * time.Millisecond)
		wantStats(t, p, pool.Stats{Idle: 2, Starting: 1})
		elapse(time.Hour)
		wantStats(t, p, pool.Stats{Idle: 3})
		if made, _, _ := m.counts(); made != 3 {
			t.Errorf("%d sandboxes were made for a target of 3", made)
		}
	})
}

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

func TestLeaseTakesTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Target: 3, Max: 10, Starts: 1})
		p.Warm(red)
		elapse(time.Minute)
		for want := 1; want <= 5; want++ {
			l := begin(t, p, m, red)
			if got := l.result(t).number; got != want {
				t.Errorf("lease %d got sandbox %d", want, got)
			}
			l.release()
			elapse(time.Minute)
		}
	})
}

func TestLeaseOfAnIdleSandboxTakesNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second, closeTime: time.Second}
		p := newPool(t, m, pool.Options{Target: 1, Max: 2})
		p.Warm(red)
		elapse(time.Minute)
		asked := time.Now()
		l := begin(t, p, m, red)
		l.result(t)
		l.release()
		if took := time.Since(asked); took != 0 {
			t.Errorf("lease and release took %v", took)
		}
	})
}

// A lease is replaced when its run ends, not beside it, unless it takes long.
func TestLeaseRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Target: 2, Max: 10})
		p.Warm(red)
		elapse(time.Minute)
		short := begin(t, p, m, red)
		short.result(t)
		wantStats(t, p, pool.Stats{Idle: 1, Leased: 1})
		short.release()
		wantStats(t, p, pool.Stats{Idle: 1, Starting: 1})
		elapse(time.Second)
		wantStats(t, p, pool.Stats{Idle: 2})

		long := begin(t, p, m, red)
		long.result(t)
		elapse(2 * time.Second) // tend looks once a second, and a start takes another
		wantStats(t, p, pool.Stats{Idle: 2, Leased: 1})
		long.release()
		wantStats(t, p, pool.Stats{Idle: 2})
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

// A sandbox counts until it is gone, so a dying one still takes its place.
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

func TestWaitersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Max: 10, Starts: 1})
		var leases []*lease
		for range 4 {
			leases = append(leases, begin(t, p, m, red))
			synctest.Wait()
		}
		for i, l := range leases {
			if got := l.result(t).number; got != i+1 {
				t.Errorf("caller %d got sandbox %d", i+1, got)
			}
			l.release()
		}
	})
}

func TestDeadIdleSandboxIsNeverLeased(t *testing.T) {
	t.Run("noticed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &maker{startTime: time.Millisecond}
			p := newPool(t, m, pool.Options{Target: 2, Max: 4, Starts: 1})
			p.Warm(red)
			elapse(time.Second)
			m.number(1).die()
			wantStats(t, p, pool.Stats{Idle: 1})
			if closed := m.closedNumbers(); !slices.Equal(closed, []int{1}) {
				t.Errorf("closed are %v", closed)
			}
			l := begin(t, p, m, red)
			if got := l.result(t).number; got != 2 {
				t.Errorf("got sandbox %d", got)
			}
			l.release()
		})
	})
	t.Run("not yet noticed", func(t *testing.T) {
		for range 50 { // whether the pool's own watch or the lease comes first is up to the scheduler
			synctest.Test(t, func(t *testing.T) {
				m := &maker{startTime: time.Millisecond}
				p := newPool(t, m, pool.Options{Target: 2, Max: 4, Starts: 1})
				p.Warm(red)
				elapse(time.Second)
				m.number(1).die()
				got, release, err := p.Lease(t.Context(), red)
				if err != nil {
					t.Fatal(err)
				}
				if number := m.behind(got).number; number != 2 {
					t.Errorf("got sandbox %d", number)
				}
				release()
			})
		}
	})
}

// One that ends by itself is replaced, but not at once: the next may end as well.
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

func TestStartFailureReachesTheFirstWaiterAlone(t *testing.T) {
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

// Failing starts answer everybody who waits, one each, without a pause.
func TestStartFailuresDoNotBackOffWhileSomebodyWaits(t *testing.T) {
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

func TestStartFailuresBackOffWhenNobodyWaits(t *testing.T) {
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
			// Shelves are looked after every second.
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
		elapse(35 * time.Second) // the next attempt by itself would come after a minute
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

func TestFaultOfAnUnknownKind(t *testing.T) {
	p := newPool(t, &maker{}, pool.Options{Max: 1})
	if err := p.Fault(blue); err != nil {
		t.Error(err)
	}
}

func TestIdleShelfShrinksToZeroAndGrowsAgain(t *testing.T) {
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
			t.Errorf("closed are %v, not the first two", closed)
		}
		wantStats(t, p, pool.Stats{Idle: 2})
	})
}

func TestEvictedShelfIsDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 2, Max: 10, Shelves: 1})
		p.Warm(red)
		wantStats(t, p, pool.Stats{Idle: 2})
		p.Warm(blue)
		wantStats(t, p, pool.Stats{Idle: 2})
		if closed := m.closedNumbers(); len(closed) != 2 || slices.Max(closed) > 2 {
			t.Errorf("closed are %v, not red's two", closed)
		}
	})
}

func TestCallersAtAnEvictedShelfAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Target: 1, Max: 10, Starts: 1, Shelves: 1})
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
			t.Error("what is idle is not of the kind that was kept")
		}
		kept.release()
	})
}

// What an evicted shelf had started for a caller who left is not kept.
func TestEvictedShelfKeepsNoLateSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Max: 10, Shelves: 1})
		l := begin(t, p, m, red)
		synctest.Wait()
		p.Warm(blue)
		l.cancel()
		<-l.over
		elapse(time.Minute)
		wantStats(t, p, pool.Stats{})
	})
}

func TestIdleOfAnotherKindMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second, closeTime: time.Second}
		p := newPool(t, m, pool.Options{Target: 2, Max: 2, Starts: 1})
		p.Warm(red)
		elapse(time.Minute)
		wantStats(t, p, pool.Stats{Idle: 2})
		asked := time.Now()
		l := begin(t, p, m, blue)
		if got := l.result(t).spec; got != blue {
			t.Errorf("got a sandbox of %v", got)
		}
		if waited := time.Since(asked); waited != 2*time.Second { // for an end and a start
			t.Errorf("the caller waited %v", waited)
		}
		if closed := m.closedNumbers(); !slices.Contains(closed, 1) {
			t.Errorf("closed are %v, not the oldest", closed)
		}
		l.release()
	})
}

// An idle sandbox goes for another kind's caller, not for another kind's wish.
func TestWarmingDoesNotTakeFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 2, Max: 2})
		p.Warm(red)
		synctest.Wait()
		p.Warm(blue)
		elapse(time.Hour)
		if closed := m.closedNumbers(); len(closed) > 0 {
			t.Errorf("closed are %v", closed)
		}
		wantStats(t, p, pool.Stats{Idle: 2})
	})
}

func TestCancelledLeaseGivesItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Max: 1})
		why := errors.New("the caller went home")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(why) })
		if _, _, err := p.Lease(ctx, red); !errors.Is(err, why) {
			t.Errorf("the error is %v", err)
		}
	})
}

// The sandbox that was started for a caller who left serves the next.
func TestCancelledLeaseLosesNoSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Target: 1, Max: 4})
		l := begin(t, p, m, red)
		wantStats(t, p, pool.Stats{Starting: 2, Waiting: 1})
		l.cancel()
		<-l.over
		if !errors.Is(l.err, context.Canceled) {
			t.Errorf("the error is %v", l.err)
		}
		wantStats(t, p, pool.Stats{Starting: 2})
		elapse(time.Second)
		wantStats(t, p, pool.Stats{Idle: 1})
		next := begin(t, p, m, red)
		if got := next.result(t).number; got > 2 {
			t.Errorf("sandbox %d was made for the next caller", got)
		}
		next.release()
	})
}

// A caller who leaves in the moment of being served either has the sandbox or
// gives it back.
func TestCancelledLeaseGivesBackWhatItGot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 2, Max: 2})
		p.Warm(red)
		synctest.Wait()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		left := 0
		for range 200 {
			_, release, err := p.Lease(gone, red)
			if err != nil {
				left++
				wantStats(t, p, pool.Stats{Idle: 2})
				continue
			}
			wantStats(t, p, pool.Stats{Idle: 1, Leased: 1})
			release()
			synctest.Wait()
		}
		if made, _, _ := m.counts(); made != 2+200-left {
			t.Errorf("%d sandboxes were made, though %d callers of 200 gave theirs back", made, left)
		}
		if left == 0 {
			t.Error("no caller left: the test tests nothing")
		}
	})
}

func TestCancelledWaiterDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Max: 1})
		held := begin(t, p, m, red)
		held.result(t)
		first, second := begin(t, p, m, red), begin(t, p, m, red)
		synctest.Wait()
		first.cancel()
		<-first.over
		held.release()
		second.result(t)
		second.release()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second, closeTime: 5 * time.Second}
		p := newPool(t, m, pool.Options{Target: 2, Max: 3, Starts: 1})
		held := begin(t, p, m, red)
		leased := held.result(t)
		elapse(time.Minute)
		waiting := begin(t, p, m, blue)
		wantStats(t, p, pool.Stats{Idle: 1, Leased: 1, Dying: 1, Waiting: 1})

		asked := time.Now()
		if err := p.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(asked); took != 5*time.Second {
			t.Errorf("Close took %v, not the time that sandboxes take to end", took)
		}
		<-waiting.over
		wantUnavailable(t, waiting.err)
		select {
		case <-leased.Done():
		default:
			t.Error("the leased sandbox goes on")
		}
		if _, live, _ := m.counts(); live != 0 {
			t.Errorf("%d sandboxes are left", live)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Errorf("closing twice: %v", err)
		}
		held.release()
		elapse(time.Minute)
	})
}

func TestClosedPoolStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 2, Max: 3})
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.Warm(red)
		_, _, err := p.Lease(t.Context(), red)
		wantUnavailable(t, err)
		elapse(time.Hour)
		if attempts := m.attemptTimes(); len(attempts) > 0 {
			t.Errorf("%d starts after Close", len(attempts))
		}
	})
}

func TestCloseCancelsStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: 24 * time.Hour}
		p := newPool(t, m, pool.Options{Target: 2, Max: 3})
		p.Warm(red)
		synctest.Wait()
		asked := time.Now()
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(asked); took != 0 {
			t.Errorf("Close waited %v for starts", took)
		}
	})
}

// A start that pays no heed to its context delivers a sandbox to a closed pool.
func TestCloseEndsLateSandboxes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{fail: func(int) error { time.Sleep(time.Minute); return nil }}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		p.Warm(red)
		synctest.Wait()
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if made, live, _ := m.counts(); made != 1 || live != 0 {
			t.Errorf("%d made, %d left", made, live)
		}
	})
}

func TestCloseGivesUpWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{closeTime: time.Minute}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		p.Warm(red)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
	})
}

// A sandbox that cannot be ended does not count for ever.
func TestFailedEndFreesItsPlace(t *testing.T) {
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

func BenchmarkLease(b *testing.B) {
	for _, size := range []int{1, 4, 16, 64} {
		for _, clients := range []int{1, 4, 16, 64} {
			b.Run(fmt.Sprintf("size=%d/clients=%d", size, clients), func(b *testing.B) {
				benchmarkLease(b, size, clients)
			})
		}
	}
}

func benchmarkLease(b *testing.B, size, clients int) {
	b.Helper()
	start := func(_ context.Context, spec execution.Spec) (execution.Sandbox, error) {
		return &sandbox{spec: spec, maker: &maker{}, done: make(chan struct{})}, nil
	}
	p, err := pool.New(start, pool.Options{Target: size, Max: 2 * size, Starts: size})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.Close(context.Background()) }()
	p.Warm(red)
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range clients {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				_, release, err := p.Lease(context.Background(), red)
				if err != nil {
					b.Error(err)
					return
				}
				release()
			}
		})
	}
	group.Wait()
}
