package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

var errResolve = errors.New("no such image")

// resolver is a fake whose answer to its Nth call is "sha256:IMAGE-N".
type resolver struct {
	takes time.Duration
	fail  func(call int) error
	asked atomic.Int64
}

func (r *resolver) Resolve(ctx context.Context, image string) (string, error) {
	call := int(r.asked.Add(1))
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-after(r.takes):
	}
	if r.fail != nil {
		if err := r.fail(call); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("sha256:%s-%d", image, call), nil
}

func newDigests(t *testing.T, r *resolver, size int) *pool.Digests {
	t.Helper()
	d, err := pool.NewDigests(r, size)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func wantDigest(t *testing.T, d *pool.Digests, image, want string) {
	t.Helper()
	if got, err := d.Get(t.Context(), image); err != nil || got != want {
		t.Errorf("the digest of %s is %q, %v; not %q", image, got, err, want)
	}
}

func TestNewDigestsRejectsSizeZero(t *testing.T) {
	if _, err := pool.NewDigests(&resolver{}, 0); err == nil {
		t.Error("no error")
	}
}

func TestDigestsAreCachedFor10Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDigests(t, &resolver{}, 4)
		wantDigest(t, d, "a", "sha256:a-1")
		elapse(9 * time.Second)
		wantDigest(t, d, "a", "sha256:a-1")
		elapse(2 * time.Second)
		wantDigest(t, d, "a", "sha256:a-2")
		wantDigest(t, d, "b", "sha256:b-3")
	})
}

func TestDigestsEvictTheOldest(t *testing.T) {
	d := newDigests(t, &resolver{}, 1)
	wantDigest(t, d, "a", "sha256:a-1")
	wantDigest(t, d, "b", "sha256:b-2")
	wantDigest(t, d, "a", "sha256:a-3")
}

func TestConcurrentCallsShareOneResolution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &resolver{takes: time.Second}
		d := newDigests(t, r, 4)
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() { wantDigest(t, d, "a", "sha256:a-1") })
		}
		callers.Wait()
		if asked := r.asked.Load(); asked != 1 {
			t.Errorf("20 callers led to %d calls", asked)
		}
	})
}

func TestResolutionOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &resolver{takes: time.Minute}
		d := newDigests(t, r, 4)
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.Get(impatient, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
		wantDigest(t, d, "a", "sha256:a-1") // by the resolution that is still running
		wantDigest(t, d, "a", "sha256:a-1")
	})
}

func TestDigestErrorsAreNotCached(t *testing.T) {
	d := newDigests(t, &resolver{fail: func(call int) error {
		if call == 1 {
			return errResolve
		}
		return nil
	}}, 4)
	if _, err := d.Get(t.Context(), "a"); !errors.Is(err, errResolve) {
		t.Errorf("the error is %v", err)
	}
	wantDigest(t, d, "a", "sha256:a-2")
}
