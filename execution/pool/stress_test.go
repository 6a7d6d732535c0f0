package pool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

const (
	stressClients = 40
	stressLeases  = 40 // of each client
	stressTick    = 10 * time.Millisecond
)

// Many callers lease, release and leave while starts fail and sandboxes end. The budget is
// kept, a sandbox has one holder, and no sandbox is left (newPool checks that).
func TestStress(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { stress(t, seed) })
		})
	}
}

// newDice returns a function that returns random numbers below n. It is safe for concurrent
// use, as a rand.Rand is not.
func newDice(seed uint64) func(n int) int {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, seed))
	return func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
}

func stress(t *testing.T, seed uint64) {
	t.Helper()
	roll := newDice(seed)
	nap := func(ticks int) { time.Sleep(time.Duration(roll(ticks)) * stressTick) }
	many := seed%2 == 1 // each run ends with a reset
	m := &maker{closeTime: 3 * stressTick, reusable: many, resettable: many, resetTime: stressTick, fail: func(int) error {
		nap(6)
		if roll(5) == 0 {
			return errStart
		}
		return nil
	}}
	opts := pool.Options{Target: 3, Max: 6, Starts: 3, Subpools: 2, IdleAfter: time.Second, MaxAge: 500 * time.Millisecond}
	p := newPool(t, m, opts)

	background, stop := context.WithCancel(t.Context())
	var watchers, clients sync.WaitGroup
	watchers.Go(func() { checkBudget(background, t, p, opts.Max) })
	watchers.Go(func() { killAtRandom(background, m, roll) })
	var served, left atomic.Int64
	var holders sync.Map
	for range stressClients {
		clients.Go(func() {
			for range stressLeases {
				spec := execution.Spec{Image: fmt.Sprint("sha256:", roll(3))}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(roll(40))*stressTick)
				got, release, err := p.Lease(ctx, spec)
				cancel()
				switch {
				case err == nil:
					served.Add(1)
					hold(t, &holders, m.behind(got), spec, func() { nap(5) })
					release()
				case errors.Is(err, context.DeadlineExceeded):
					left.Add(1)
				case !errors.Is(err, errStart):
					t.Errorf("Lease: %v", err)
				}
			}
		})
	}
	clients.Wait()
	stop()
	watchers.Wait()
	if served.Load() < 50 || left.Load() < 50 {
		t.Errorf("%d callers were served and %d left: too few for a test", served.Load(), left.Load())
	}
}

// hold checks that a sandbox is of the requested template and has not been leased before, or
// not since it was reset. It serves no other run without a reset.
func hold(t *testing.T, holders *sync.Map, s *sandbox, spec execution.Spec, use func()) {
	t.Helper()
	if s.spec != spec {
		t.Errorf("asked for %v, got %v", spec, s.spec)
	}
	if _, held := holders.LoadOrStore(s, true); held {
		t.Errorf("sandbox %d was leased twice", s.number)
	}
	use()
	s.worn.Store(true)
}

func checkBudget(ctx context.Context, t *testing.T, p *pool.Pool, most int) {
	t.Helper()
	for ctx.Err() == nil {
		if s := p.Stats(); s.Idle+s.Starting+s.Leased+s.Dying > most {
			t.Errorf("over the budget of %d: %+v", most, s)
		}
		time.Sleep(stressTick)
	}
}

// killAtRandom ends random sandboxes among those made last, in any state.
func killAtRandom(ctx context.Context, m *maker, roll func(int) int) {
	for ctx.Err() == nil {
		if made, _, _ := m.counts(); made > 0 {
			m.number(made - roll(min(made, 6))).die()
		}
		time.Sleep(5 * stressTick)
	}
}
