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

// beginFor starts a Lease for an owner.
func beginFor(t *testing.T, p *pool.Pool, m *maker, owner execution.Owner) *lease {
	t.Helper()
	ctx, cancel := context.WithCancel(execution.WithOwner(t.Context(), owner))
	l := &lease{over: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(l.over)
		got, release, err := p.Lease(ctx, red)
		if err == nil {
			l.sandbox = m.behind(got)
		}
		l.release, l.err = release, err
	}()
	synctest.Wait() // it is in the queue
	return l
}

// useFor leases a sandbox for an owner, keeps it for a while and returns its number.
func useFor(t *testing.T, p *pool.Pool, m *maker, owner execution.Owner, keep time.Duration) int {
	t.Helper()
	l := beginFor(t, p, m, owner)
	number := l.result(t).number
	pause(keep)
	l.release()
	return number
}

// A sandbox that has served one owner serves no other. Each owner gets its own again, and
// leaves the fresh ones to others.
func TestOwnersShareNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true}
		p := newPool(t, m, pool.Options{Target: 3, Max: 8})
		p.Warm(red)
		elapse(0)
		used := make(map[execution.Owner][]int)
		for range 5 {
			for _, owner := range []execution.Owner{"anna", "ben", "carol"} {
				used[owner] = append(used[owner], useFor(t, p, m, owner, time.Millisecond))
				synctest.Wait()
			}
		}
		for owner, numbers := range used {
			if slices.Min(numbers) != slices.Max(numbers) {
				t.Errorf("%s got %v", owner, numbers)
			}
		}
		if made, _, _ := m.counts(); made != 3 {
			t.Errorf("%d were made", made)
		}
	})
}

// If only sandboxes of other owners are idle, a caller gets a fresh one: in addition while
// there is room, otherwise in place of the one that has been idle longest.
func TestIdleOfAnotherOwnerMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: 300 * time.Millisecond, closeTime: 50 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 1, Max: 2})
		first := useFor(t, p, m, "anna", 0)
		elapse(time.Second)
		if second := useFor(t, p, m, "ben", 0); second == first {
			t.Error("ben got the sandbox of anna")
		}
		wantStats(t, p, pool.Stats{Idle: 2})
		began := time.Now()
		if third := useFor(t, p, m, "carol", 0); third != 3 || time.Since(began) != 350*time.Millisecond {
			t.Errorf("carol got %d after %v", third, time.Since(began))
		}
		if closed := m.closedNumbers(); !slices.Equal(closed, []int{first}) {
			t.Errorf("closed: %v", closed)
		}
	})
}

// After a lease that was cancelled before its run, the sandbox is still fresh.
func TestCancelledLeaseLeavesSandboxFresh(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			m := &maker{reusable: true}
			p := newPool(t, m, pool.Options{Target: 1, Max: 1})
			p.Warm(red)
			elapse(0)
			ctx, cancel := context.WithCancel(execution.WithOwner(t.Context(), "anna"))
			cancel()
			_, release, err := p.Lease(ctx, red)
			if err == nil { // by chance the lease came before the cancellation
				release()
				return
			}
			if got := useFor(t, p, m, "ben", 0); got != 1 {
				t.Errorf("ben got sandbox %d", got)
			}
		})
	}
}

// steadily uses sandboxes for an owner, some at once, until the test is over.
func steadily(t *testing.T, p *pool.Pool, m *maker, owner execution.Owner, atOnce int, keep time.Duration, over <-chan struct{}) *sync.WaitGroup {
	t.Helper()
	var group sync.WaitGroup
	for range atOnce {
		group.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				got, release, err := p.Lease(execution.WithOwner(context.Background(), owner), red)
				if err != nil {
					t.Error(err)
					return
				}
				_ = m.behind(got)
				pause(keep)
				release()
			}
		})
	}
	return &group
}

// An owner in steady use of the whole budget does not keep another one from its turn, even if
// the budget is one sandbox.
func TestAnotherOwnerGetsItsTurn(t *testing.T) {
	for _, most := range []int{1, 2, 4} {
		synctest.Test(t, func(t *testing.T) {
			m := &maker{reusable: true, startTime: 300 * time.Millisecond, closeTime: 20 * time.Millisecond}
			p := newPool(t, m, pool.Options{Target: 1, Max: most})
			over := make(chan struct{})
			group := steadily(t, p, m, "anna", 4*most, 10*time.Millisecond, over)
			elapse(2 * time.Second)
			for range 3 {
				began := time.Now()
				useFor(t, p, m, "ben", 0)
				if took := time.Since(began); took > time.Second {
					t.Errorf("of %d: ben waited for %v", most, took)
				}
			}
			close(over)
			group.Wait()
		})
	}
}

// Two owners who both could use the whole budget share it. Once both have their part, no
// sandbox is closed for the other owner.
func TestOwnersShareTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: 300 * time.Millisecond, renewTime: time.Millisecond, closeTime: 20 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 2, Max: 8, Starts: 4})
		over := make(chan struct{})
		anna := steadily(t, p, m, "anna", 40, 50*time.Millisecond, over)
		elapse(3 * time.Second)
		ben := steadily(t, p, m, "ben", 40, 50*time.Millisecond, over)
		elapse(10 * time.Second)
		before, _, _ := m.counts()
		elapse(30 * time.Second)
		if after, _, _ := m.counts(); after != before {
			t.Errorf("%d sandboxes were started in 30 s of steady use", after-before)
		}
		close(over)
		anna.Wait()
		ben.Wait()
	})
}

// Many owners lease and release while starts fail and sandboxes end. No sandbox serves two
// owners, no caller waits forever, and the budget is kept (newPool checks that).
func TestStressOfOwners(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { stressOwners(t, seed) })
		})
	}
}

func stressOwners(t *testing.T, seed uint64) {
	t.Helper()
	roll := newDice(seed)
	nap := func(ticks int) { time.Sleep(time.Duration(roll(ticks)) * stressTick) }
	m := &maker{reusable: true, renewTime: stressTick, closeTime: 3 * stressTick, fail: func(int) error {
		nap(6)
		if roll(10) == 0 {
			return errStart
		}
		return nil
	}}
	opts := pool.Options{Target: 2, Max: 6, Starts: 3, Subpools: 2, IdleAfter: 5 * time.Second, MaxAge: 2 * time.Second, MaxRuns: 20}
	p := newPool(t, m, opts)
	background, stop := context.WithCancel(t.Context())
	var watchers, clients sync.WaitGroup
	watchers.Go(func() { checkBudget(background, t, p, opts.Max) })
	watchers.Go(func() { killAtRandom(background, m, roll) })
	var served, reused atomic.Int64
	var owners, holders sync.Map
	lease := func(owner execution.Owner) {
		spec := execution.Spec{Image: fmt.Sprint("sha256:", roll(2))}
		ctx, cancel := context.WithTimeout(execution.WithOwner(t.Context(), owner), time.Minute)
		got, release, err := p.Lease(ctx, spec)
		cancel()
		if errors.Is(err, errStart) {
			return
		}
		if err != nil {
			t.Errorf("%s: %v", owner, err)
			return
		}
		defer release()
		served.Add(1)
		if holdForOwner(t, &owners, &holders, m.behind(got), owner, func() { nap(5) }) {
			reused.Add(1)
		}
	}
	for client := range stressClients {
		owner := execution.Owner(fmt.Sprint("owner ", client%9)) // more than the budget
		clients.Go(func() {
			for range stressLeases {
				lease(owner)
			}
		})
	}
	clients.Wait()
	stop()
	watchers.Wait()
	if served.Load() < 500 || reused.Load() < 50 {
		t.Errorf("%d callers were served, %d by a used sandbox: too few for a test", served.Load(), reused.Load())
	}
}

// holdForOwner checks that a sandbox has no other holder and has served no other owner, and
// reports whether it has served this one.
func holdForOwner(t *testing.T, owners, holders *sync.Map, s *sandbox, owner execution.Owner, use func()) (used bool) {
	t.Helper()
	before, used := owners.LoadOrStore(s, owner)
	if used && before != owner {
		t.Errorf("sandbox %d served %v and %v", s.number, before, owner)
	}
	if _, held := holders.LoadOrStore(s, true); held {
		t.Errorf("sandbox %d has two holders", s.number)
	}
	use()
	holders.Delete(s)
	return used
}
