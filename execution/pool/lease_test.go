package pool_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

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

// A leased sandbox is replaced when its run ends, or earlier if the run takes long.
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
		elapse(2 * time.Second) // maintain looks once a second, and a start takes another
		wantStats(t, p, pool.Stats{Idle: 2, Leased: 1})
		long.release()
		wantStats(t, p, pool.Stats{Idle: 2})
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
				t.Errorf("closed %v", closed)
			}
			l := begin(t, p, m, red)
			if got := l.result(t).number; got != 2 {
				t.Errorf("got sandbox %d", got)
			}
			l.release()
		})
	})
	t.Run("not yet noticed", func(t *testing.T) {
		for range 50 { // the scheduler decides whether the pool's watch or the lease comes first
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

func TestCancelledLeaseReturnsItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second}
		p := newPool(t, m, pool.Options{Max: 1})
		why := errors.New("the caller left")
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

// A caller who leaves while it is served either has the sandbox or returns it.
func TestCancelledLeaseReturnsItsSandbox(t *testing.T) {
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
			t.Errorf("%d sandboxes were made, though %d callers of 200 returned theirs", made, left)
		}
		if left == 0 {
			t.Error("no caller left: the test checks nothing")
		}
	})
}

func TestCancelledWaiterDoesNotBlockOthers(t *testing.T) {
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

func TestWithdrawDead(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			m := &maker{}
			p := newPool(t, m, pool.Options{Target: 1, Max: 2})
			p.Warm(red)
			synctest.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, release, err := p.Lease(ctx, red)
			if err == nil {
				release()
			}
			elapse(time.Second)
		})
	}
}

func TestReleaseAfterClose(t *testing.T) {
	for range 2000 {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 0, Max: 3})
		l := begin(t, p, m, red)
		l.result(t)
		go func() { <-l.sandbox.done; l.release() }()
		if err := p.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}
