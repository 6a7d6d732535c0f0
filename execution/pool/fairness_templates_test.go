package pool_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

func TestIdleOfAnotherTemplateMakesRoom(t *testing.T) {
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
		if waited := time.Since(asked); waited != 2*time.Second { // for a close and a start
			t.Errorf("the caller waited %v", waited)
		}
		if closed := m.closedNumbers(); !slices.Contains(closed, 1) {
			t.Errorf("closed %v, not the oldest", closed)
		}
		l.release()
	})
}

// An idle sandbox is closed for another template's caller, not for another template's target.
func TestWarmingDoesNotTakeFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		p := newPool(t, m, pool.Options{Target: 2, Max: 2})
		p.Warm(red)
		synctest.Wait()
		p.Warm(blue)
		elapse(time.Hour)
		if closed := m.closedNumbers(); len(closed) > 0 {
			t.Errorf("closed %v", closed)
		}
		wantStats(t, p, pool.Stats{Idle: 2})
	})
}

// A template in steady use does not keep another one from its turn.
func TestAnotherTemplateGetsItsTurn(t *testing.T) {
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

// A caller comes before the target of a template that was requested more recently.
func TestRefillDoesNotStarveWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: 100 * time.Millisecond, closeTime: 10 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 1, Max: 1})
		first := begin(t, p, m, red)
		first.result(t)
		waiting := begin(t, p, m, blue)
		if !waiting.waits() {
			t.Fatal("the caller does not wait, though the budget is spent")
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

// A full subpool that needs a sandbox and gets no room does not keep others from growing.
func TestFullSubpoolDoesNotStarveWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: 100 * time.Millisecond, closeTime: 10 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 2, Max: 2})
		held := begin(t, p, m, red)
		held.result(t)
		elapse(time.Second)
		wantStats(t, p, pool.Stats{Idle: 1, Leased: 1})
		waiting := begin(t, p, m, blue) // closes the idle sandbox of red
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

// waits reports whether a lease is still unanswered.
func (l *lease) waits() bool {
	synctest.Wait()
	select {
	case <-l.over:
		return false
	default:
		return true
	}
}
