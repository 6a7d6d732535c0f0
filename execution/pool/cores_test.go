package pool_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

// twoCores returns the options for a machine on which three sandboxes can be at work.
func twoCores() pool.Options { return pool.Options{Target: 3, Max: 16, AtWork: 3, Starts: 4} }

// runFor has clients of an owner run programs back to back for a while, and returns how many
// ended.
func runFor(t *testing.T, p *pool.Pool, owner execution.Owner, clients int, span time.Duration) int {
	t.Helper()
	ctx, end := execution.WithOwner(context.Background(), owner), time.Now().Add(span)
	var group sync.WaitGroup
	var runs atomic.Int64
	for range clients {
		group.Go(func() {
			for time.Now().Before(end) {
				lent, release, err := p.Lease(ctx, red)
				if err == nil {
					_, err = lent.Run(ctx, execution.Request{}, execution.Limits{})
					release()
				}
				if err != nil {
					t.Error(err)
					return
				}
				runs.Add(1)
			}
		})
	}
	group.Wait()
	return int(runs.Load())
}

// A burst starts no sandbox that the cores cannot serve, however long the callers wait. Callers
// that wait while programs wait for something do get more.
func TestBurst(t *testing.T) {
	for name, test := range map[string]struct {
		takes, computes time.Duration
		want            int // sandboxes
	}{
		"short runs":              {20 * time.Millisecond, 2 * time.Millisecond, 3},
		"runs that compute":       {300 * time.Millisecond, 200 * time.Millisecond, 3},
		"runs that wait a little": {80 * time.Millisecond, 10 * time.Millisecond, 16},
		"runs that wait":          {300 * time.Millisecond, 10 * time.Millisecond, 16},
		"long runs that wait":     {30 * time.Second, 0, 16},
		"long runs that compute":  {30 * time.Second, 30 * time.Second, 16}, // nobody knows before they end
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &maker{reusable: true, startTime: time.Second, renewTime: time.Millisecond, runTime: test.takes, runCPU: test.computes}
				p := newPool(t, m, twoCores())
				p.Warm(red)
				elapse(5 * time.Second)
				runFor(t, p, "", 32, 10*time.Second)
				if made, _, _ := m.counts(); made != test.want {
					t.Errorf("%d sandboxes were made", made)
				}
			})
		})
	}
}

// Ten programs that sleep do not keep others from running: the next caller waits for a start.
func TestSleepersLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: time.Second}
		p := newPool(t, m, twoCores())
		p.Warm(red)
		elapse(5 * time.Second)
		for range 10 {
			l := begin(t, p, m, red)
			defer func() { l.release() }()
		}
		elapse(10 * time.Second)
		wantStats(t, p, pool.Stats{Idle: 3, Leased: 10})
	})
}

// Once programs no longer wait for something, no more sandboxes are started for them.
func TestRunsThatNoLongerWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: time.Second, renewTime: time.Millisecond, runTime: 300 * time.Millisecond}
		p := newPool(t, m, twoCores())
		runFor(t, p, "", 5, 10*time.Second)
		elapse(time.Minute) // what is not needed is closed
		before, _, _ := m.counts()
		m.runTime = 10 * time.Millisecond
		runFor(t, p, "", 32, 10*time.Second)
		if after, _, _ := m.counts(); after != before {
			t.Errorf("%d sandboxes were started for runs of 10 ms", after-before)
		}
	})
}

// Each owner gets a sandbox at once, whatever the cores can serve. An owner with many
// sandboxes does not keep others from having as many.
func TestOwnersShareTheCores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: time.Second, renewTime: time.Millisecond, runTime: 20 * time.Millisecond, runCPU: 2 * time.Millisecond}
		p := newPool(t, m, twoCores())
		p.Warm(red)
		elapse(5 * time.Second)
		var anna, ben, carol int
		var group sync.WaitGroup
		group.Go(func() { anna = runFor(t, p, "anna", 32, 20*time.Second) })
		elapse(5 * time.Second)
		if made, _, _ := m.counts(); made != 3 {
			t.Errorf("%d sandboxes for one owner", made)
		}
		group.Go(func() { ben = runFor(t, p, "ben", 32, 15*time.Second) })
		group.Go(func() { carol = runFor(t, p, "carol", 1, 15*time.Second) })
		group.Wait()
		if made, _, _ := m.counts(); made != 3+3+1 {
			t.Errorf("%d sandboxes for three owners", made)
		}
		if anna > 2*ben || carol < 500 {
			t.Errorf("%d, %d and %d runs", anna, ben, carol)
		}
	})
}

// Sandboxes that serve one run each do not come back: more are started at once.
func TestBurstOfOneRunEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{startTime: time.Second, runTime: 20 * time.Millisecond, runCPU: 2 * time.Millisecond}
		opts := twoCores()
		p := newPool(t, m, opts)
		p.Warm(red)
		elapse(5 * time.Second)
		runs := runFor(t, p, "", 32, 20*time.Second)
		if most := 20 * opts.Starts; runs < most { // as many as can be started, one after the other
			t.Errorf("%d runs, not %d", runs, most)
		}
	})
}
