package pool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

func newKeeper(t *testing.T, m *maker, r *resolver) *pool.Keeper {
	t.Helper()
	p := newPool(t, m, pool.Options{Target: 1, Max: 2})
	return &pool.Keeper{
		Pool: p, Digests: newDigests(t, r, 4), Image: "python",
		Settings: execution.Settings{Network: "none", MemoryBytes: 1 << 20},
	}
}

func TestKeeperLeasesItsTemplate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		k := newKeeper(t, m, &resolver{})
		got, release, err := k.Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := execution.Spec{Image: "sha256:python-1", Settings: k.Settings}
		if spec := m.behind(got).spec; spec != want {
			t.Errorf("the sandbox is of %+v", spec)
		}
		release()
	})
}

// The keeper follows a tag that moves.
func TestKeeperFollowsTheImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		k := newKeeper(t, m, &resolver{})
		for want := 1; want <= 3; want++ {
			got, release, err := k.Lease(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if image := m.behind(got).spec.Image; image != fmt.Sprint("sha256:python-", want) {
				t.Errorf("lease %d is of %s", want, image)
			}
			release()
			elapse(time.Minute)
		}
	})
}

func TestKeeperWithoutImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maker{}
		k := newKeeper(t, m, &resolver{fail: func(int) error { return errResolve }})
		if _, _, err := k.Lease(t.Context()); !errors.Is(err, errResolve) {
			t.Errorf("Lease: %v", err)
		}
		if err := k.Warm(t.Context()); !errors.Is(err, errResolve) {
			t.Errorf("Warm: %v", err)
		}
		wantStats(t, k.Pool, pool.Stats{})
	})
}

func TestKeeperHealth(t *testing.T) {
	t.Run("before the first request", func(t *testing.T) {
		k := newKeeper(t, &maker{}, &resolver{})
		err := k.Health()
		wantUnavailable(t, err)
		if text := execution.AsError(err).Explain(); !strings.Contains(text, "prepared yet") {
			t.Errorf("the text is %q", text)
		}
	})
	t.Run("warm", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := newKeeper(t, &maker{}, &resolver{})
			warmUp(t, k)
			if err := k.Health(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("starting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := newKeeper(t, &maker{startTime: time.Minute}, &resolver{})
			warmUp(t, k)
			if err := k.Health(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("failing, then recovered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := newKeeper(t, &maker{fail: func(attempt int) error {
				if attempt < 4 {
					return errStart
				}
				return nil
			}}, &resolver{})
			warmUp(t, k)
			if err := k.Health(); !errors.Is(err, errStart) {
				t.Errorf("the fault is %v", err)
			}
			elapse(time.Minute)
			if err := k.Health(); err != nil {
				t.Error(err)
			}
		})
	})
}

// A failed start does not make the server unhealthy forever.
func TestHealthRecovers(t *testing.T) {
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

type resolverFunc func() (string, error)

func (f resolverFunc) Resolve(context.Context, string) (string, error) { return f() }

func warmUp(t *testing.T, k *pool.Keeper) {
	t.Helper()
	if err := k.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}
