package pool_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

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
			t.Error("the leased sandbox was not closed")
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

// A start that ignores its context returns a sandbox to a closed pool, which closes it.
func TestCloseClosesLateSandboxes(t *testing.T) {
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

// Close does not wait for a renewal, and leaves no sandbox.
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

func TestExecutorClose(t *testing.T) {
	failed := 0
	for range 100 {
		e := execution.NewExecutor(nil, execution.Options{MaxInFlight: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		if err := e.Close(ctx); err != nil {
			failed++
		}
		cancel()
	}
	if failed > 0 {
		t.Errorf("Close with nothing running failed %d times of 100", failed)
	}
}
