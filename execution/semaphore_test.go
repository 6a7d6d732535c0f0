package execution_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// An owner with many requests waits for its own only.
func TestOwnerSemaphore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := execution.NewOwnerSemaphore(2)
		as := func(owner execution.Owner) context.Context { return execution.WithOwner(t.Context(), owner) }
		take := func(ctx context.Context) func() {
			t.Helper()
			leave, err := slots.Acquire(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		first, second := take(as("anna")), take(as("anna"))
		var came atomic.Int32
		for range 2 {
			go func() {
				take(as("anna"))()
				came.Add(1)
			}()
		}
		impatient, leave := context.WithCancelCause(as("anna"))
		left := make(chan error)
		go func() {
			_, err := slots.Acquire(impatient)
			left <- err
		}()
		synctest.Wait()
		if came.Load() != 0 {
			t.Errorf("%d too many go on", came.Load())
		}
		take(as("ben"))()
		take(as(""))()
		gone := errors.New("gone")
		leave(gone)
		if err := <-left; execution.AsError(err).Code != execution.Cancelled || !errors.Is(err, gone) {
			t.Errorf("the caller who leaves gets %v", err)
		}
		first()
		synctest.Wait()
		if came.Load() != 2 {
			t.Errorf("%d of two go on", came.Load())
		}
		second()
		take(as("anna"))()
	})
}
