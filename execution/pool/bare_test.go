package pool_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

// preloading is a template with modules.
var preloading = execution.Spec{Image: "sha256:red", Settings: execution.Settings{Preload: "auto"}}

// preloads returns a maker of sandboxes that take 0.1 s to start, and 2 s more to preload.
func preloads() *maker {
	return &maker{reusable: true, startTime: 100 * time.Millisecond, preloadTime: 2 * time.Second, renewTime: time.Millisecond}
}

// The first caller does not wait for modules to be preloaded. Later callers get sandboxes that
// have them.
func TestFirstSandboxIsBare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := preloads()
		p := newPool(t, m, pool.Options{Target: 2, Max: 8})
		first := begin(t, p, m, preloading)
		elapse(100 * time.Millisecond)
		first.result(t)
		if !first.sandbox.Bare() {
			t.Error("the first sandbox has preloaded")
		}
		first.release()
		elapse(time.Millisecond)
		wantStats(t, p, pool.Stats{Idle: 1, Starting: 2})
		elapse(3 * time.Second)
		wantStats(t, p, pool.Stats{Idle: 2})
		if closed := m.closedNumbers(); len(closed) != 1 || closed[0] != first.sandbox.number {
			t.Errorf("closed: %v", closed)
		}
		next := begin(t, p, m, preloading)
		next.result(t)
		if next.sandbox.Bare() {
			t.Error("a later caller got a bare sandbox")
		}
		next.release()
	})
}

// A bare sandbox that is in use when there is another one is closed after its run, also while
// callers wait.
func TestBareSandboxInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := preloads()
		p := newPool(t, m, pool.Options{Target: 1, Max: 2})
		first := begin(t, p, m, preloading)
		elapse(3 * time.Second)
		first.result(t)
		second := begin(t, p, m, preloading)
		second.result(t)
		third := begin(t, p, m, preloading)
		first.release()
		elapse(3 * time.Second)
		third.result(t)
		if second.sandbox.Bare() || third.sandbox.Bare() {
			t.Error("a later caller got a bare sandbox")
		}
		second.release()
		third.release()
	})
}

// A template that was idle begins with a bare sandbox again.
func TestBareSandboxAfterIdleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := preloads()
		p := newPool(t, m, pool.Options{Target: 1, Max: 8, IdleAfter: time.Minute})
		p.Warm(preloading)
		elapse(5 * time.Minute)
		wantStats(t, p, pool.Stats{})
		l := begin(t, p, m, preloading)
		elapse(100 * time.Millisecond)
		l.result(t)
		l.release()
	})
}

// Where nothing would replace a bare sandbox, the first one preloads.
func TestNoBareSandbox(t *testing.T) {
	for name, opts := range map[string]pool.Options{
		"no target":       {Target: 0, Max: 8},
		"no room for two": {Target: 1, Max: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := preloads()
				p := newPool(t, m, opts)
				l := begin(t, p, m, preloading)
				elapse(3 * time.Second)
				l.result(t)
				if l.sandbox.Bare() {
					t.Error("the sandbox is bare")
				}
				l.release()
			})
		})
	}
}

// If an image names no modules, no sandbox lacks any: the first one stays.
func TestNothingToPreload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{reusable: true, startTime: 100 * time.Millisecond}
		p := newPool(t, m, pool.Options{Target: 2, Max: 8})
		p.Warm(preloading)
		elapse(time.Minute)
		wantStats(t, p, pool.Stats{Idle: 2})
		if made, _, _ := m.counts(); made != 2 {
			t.Errorf("%d sandboxes were started", made)
		}
		m.number(1).die()
		m.number(2).die()
		elapse(time.Minute) // from then on they start together
		begins := m.attemptTimes()[2:]
		if len(begins) != 2 || begins[0] != begins[1] {
			t.Errorf("the next ones start at %v", begins)
		}
	})
}
