package pool_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

// livelock: who waits must come before what a recently asked shelf would like to keep idle.
func TestWaiterStarvedByRefill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: 100 * time.Millisecond, closeTime: 10 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		first := begin(t, p, m, red)
		first.result(t)
		waiting := begin(t, p, m, blue)
		if !waiting.waits() {
			t.Fatal("the budget is spent")
		}
		p.Warm(red) // red is the one asked for last
		first.release()
		elapse(time.Minute)
		if waiting.waits() {
			made, _, _ := m.counts()
			t.Errorf("after a minute the caller still waits; %d sandboxes were made meanwhile", made)
		}
		waiting.cancel()
	})
}

// no livelock, just a stop: the first shelf that lacks something and has no room ends the search.
func TestWaiterStarvedByFullShelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: 100 * time.Millisecond, closeTime: 10 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 2, Max: 2})
		held := begin(t, p, m, red)
		held.result(t)
		elapse(time.Second)
		wantStats(t, p, pool.Stats{Idle: 1, Leased: 1})
		waiting := begin(t, p, m, blue) // closes red's idle
		synctest.Wait()
		p.Warm(red)
		elapse(time.Minute)
		if waiting.waits() {
			made, _, _ := m.counts()
			t.Errorf("after a minute the caller still waits; %d sandboxes were made meanwhile; %+v", made, p.Stats())
		}
		waiting.cancel()
		held.release()
	})
}

// health never recovers
func TestHealthNeverRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		m := &maker{fail: func(int) error {
			if broken {
				return errStart
			}
			return nil
		}}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1, IdleAfter: time.Minute})
		digests, _ := pool.NewDigests(resolverFunc(func() (string, error) { return "x", nil }), 1)
		k := &pool.Keeper{Pool: p, Digests: digests, Image: "i"}
		_ = k.Warm(t.Context())
		elapse(2 * time.Minute)
		broken = false
		elapse(time.Hour)
		if err := k.Health(); err != nil {
			t.Errorf("healthy for an hour, but: %v", err)
		}
	})
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

type resolverFunc func() (string, error)

func (f resolverFunc) Resolve(context.Context, string) (string, error) { return f() }

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

// waits says whether a lease has not been answered yet.
func (l *lease) waits() bool {
	synctest.Wait()
	select {
	case <-l.over:
		return false
	default:
		return true
	}
}
