package execution_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// fill takes units for an owner until it gets no more.
func fill(s *execution.FairShare, owner execution.Owner) (count int) {
	for s.TryAcquire(owner, 1) {
		count++
	}
	return count
}

func TestFairShare(t *testing.T) {
	if got := fill(execution.NewFairShare(116), ""); got != 116 {
		t.Errorf("without authentication, %d may be taken", got)
	}
	s := execution.NewFairShare(116)
	anna := fill(s, "anna")
	if anna != 78 {
		t.Errorf("one alone: %d", anna)
	}
	for i := range 3 {
		if got := fill(s, execution.Owner(fmt.Sprint("late ", i))); got == 0 {
			t.Errorf("late %d finds no room", i)
		}
	}
	for range anna {
		s.Release("anna", 1)
	}
	if got := fill(s, "ben"); got < 40 {
		t.Errorf("after one has left: %d", got)
	}
	if one := execution.NewFairShare(1); !one.TryAcquire("anna", 1) || one.TryAcquire("ben", 1) {
		t.Error("a share of one")
	}
}

// One owner does not fill the queue.
func TestExecutorIsFair(t *testing.T) {
	const most = 9
	finish := make(chan struct{})
	running := make(chan struct{}, most)
	e := newExecutor(t, &shop{run: func(ctx context.Context, req execution.Request, l execution.Limits) (*execution.Result, error) {
		running <- struct{}{}
		<-finish
		return succeed(ctx, req, l)
	}}, most)
	var group sync.WaitGroup
	begin := func(owner execution.Owner) {
		group.Go(func() {
			if _, err := e.Execute(execution.WithOwner(t.Context(), owner), execution.Request{Code: "x"}); err != nil {
				t.Errorf("%s: %v", owner, err)
			}
		})
		<-running
	}
	for range 6 {
		begin("anna")
	}
	_, err := e.Execute(execution.WithOwner(t.Context(), "anna"), execution.Request{Code: "x"})
	if err == nil || execution.AsError(err).Code != execution.Busy {
		t.Errorf("one more: %v", err)
	}
	begin("ben")
	close(finish)
	group.Wait()
}
