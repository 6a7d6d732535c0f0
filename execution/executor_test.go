package execution_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/executiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is a sandbox whose Run is a function.
type answers struct {
	*executiontest.Sandbox
	run func(ctx context.Context, req execution.Request, limits execution.Limits) (*execution.Result, error)
}

func (a answers) Run(ctx context.Context, req execution.Request, limits execution.Limits) (*execution.Result, error) {
	return a.run(ctx, req, limits)
}

// shop leases any number of sandboxes, unless lease limits them.
type shop struct {
	lease func(ctx context.Context) error // nil: no wait, no error
	run   func(ctx context.Context, req execution.Request, limits execution.Limits) (*execution.Result, error)

	leased, released atomic.Int64
}

func (s *shop) Lease(ctx context.Context) (execution.Sandbox, func(), error) {
	if s.lease != nil {
		if err := s.lease(ctx); err != nil {
			return nil, nil, err
		}
	}
	s.leased.Add(1)
	return answers{executiontest.NewSandbox(nil), s.run}, func() { s.released.Add(1) }, nil
}

func succeed(context.Context, execution.Request, execution.Limits) (*execution.Result, error) {
	return &execution.Result{ExitCode: new(int), Started: time.Now(), End: execution.End{Reason: execution.Exited}}, nil
}

// newExecutor makes an executor. In the end every sandbox must have been
// released.
func newExecutor(t *testing.T, s *shop, maxInFlight int) *execution.Executor {
	t.Helper()
	e := execution.NewExecutor(s, execution.Options{Limits: limits, MaxInFlight: maxInFlight})
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if leased, released := s.leased.Load(), s.released.Load(); leased != released {
			t.Errorf("%d sandboxes were leased, %d released", leased, released)
		}
	})
	return e
}

func TestExecutorLimits(t *testing.T) {
	if got := newExecutor(t, &shop{}, 1).Limits(); got != limits {
		t.Errorf("the limits are %+v", got)
	}
}

func TestExecute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shop{
			lease: func(context.Context) error { time.Sleep(time.Second); return nil },
			run: func(ctx context.Context, req execution.Request, l execution.Limits) (*execution.Result, error) {
				if req.Code != "code" || req.Timeout != execution.DefaultTimeout || l != limits {
					t.Errorf("the sandbox was asked for %+v, %+v", req, l)
				}
				result, err := succeed(ctx, req, l)
				time.Sleep(time.Minute)
				return result, err
			},
		}
		result, err := newExecutor(t, s, 1).Execute(t.Context(), execution.Request{Code: "code"})
		if err != nil {
			t.Fatal(err)
		}
		if result.Queue != time.Second {
			t.Errorf("the time in the queue is %v", result.Queue)
		}
	})
}

func TestExecuteRefusesInvalidRequests(t *testing.T) {
	s := &shop{run: succeed}
	_, err := newExecutor(t, s, 1).Execute(t.Context(), execution.Request{Timeout: -1})
	wantCode(t, err, execution.Invalid)
	if s.leased.Load() != 0 {
		t.Error("a sandbox was leased for it")
	}
}

func TestExecuteRefusesWhenBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 3
		finish := make(chan struct{})
		s := &shop{run: func(ctx context.Context, req execution.Request, l execution.Limits) (*execution.Result, error) {
			<-finish
			return succeed(ctx, req, l)
		}}
		e := newExecutor(t, s, most)
		var running sync.WaitGroup
		for range most {
			running.Go(func() {
				if _, err := e.Execute(t.Context(), execution.Request{}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		_, err := e.Execute(t.Context(), execution.Request{})
		wantCode(t, err, execution.Busy)
		close(finish)
		running.Wait()
		if _, err := e.Execute(t.Context(), execution.Request{}); err != nil {
			t.Errorf("with nothing running: %v", err)
		}
	})
}

// A request releases its place, however it ends.
func TestExecuteFreesItsPlace(t *testing.T) {
	broken := errors.New("broken")
	s := &shop{}
	s.lease = func(context.Context) error {
		if s.leased.Load()%2 == 1 {
			return broken
		}
		return nil
	}
	s.run = func(context.Context, execution.Request, execution.Limits) (*execution.Result, error) {
		return nil, broken
	}
	e := newExecutor(t, s, 1)
	for range 10 {
		_, err := e.Execute(t.Context(), execution.Request{})
		wantCode(t, err, execution.Internal)
	}
}

// A sandbox that died while it was idle costs one more attempt, and no more.
func TestExecuteTriesAgain(t *testing.T) {
	notStarted := fmt.Errorf("%w: the sandbox ended", execution.ErrNotStarted)
	for name, test := range map[string]struct {
		errs     []error // of the runs, in order
		attempts int64
		code     execution.Code // empty: success
	}{
		"success":                 {[]error{nil}, 1, ""},
		"not started, then well":  {[]error{notStarted, nil}, 2, ""},
		"not started twice":       {[]error{notStarted, notStarted, nil}, 2, execution.Unavailable},
		"broken":                  {[]error{errors.New("broken"), nil}, 1, execution.Internal},
		"not started, then else":  {[]error{notStarted, errors.New("broken")}, 2, execution.Internal},
		"too large":               {[]error{&execution.Error{Code: execution.TooLarge}, nil}, 1, execution.TooLarge},
		"not started, then large": {[]error{notStarted, &execution.Error{Code: execution.TooLarge}}, 2, execution.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shop{}
			s.run = func(ctx context.Context, req execution.Request, l execution.Limits) (*execution.Result, error) {
				if err := test.errs[s.leased.Load()-1]; err != nil {
					return nil, err
				}
				if s.released.Load() != s.leased.Load()-1 {
					t.Error("the dead sandbox was not released before the next was leased")
				}
				return succeed(ctx, req, l)
			}
			result, err := newExecutor(t, s, 1).Execute(t.Context(), execution.Request{})
			if s.leased.Load() != test.attempts {
				t.Errorf("%d attempts", s.leased.Load())
			}
			if test.code == "" {
				if err != nil || result == nil {
					t.Errorf("result %v, error %v", result, err)
				}
				return
			}
			last := test.errs[test.attempts-1]
			if domain := asError(t, err, test.code); !errors.Is(domain, last) {
				t.Errorf("the cause is lost: %v", domain)
			}
		})
	}
}

func TestExecuteReturnsLeaseErrors(t *testing.T) {
	foreign := errors.New("dial tcp: no route")
	for name, test := range map[string]struct {
		err  error
		want execution.Error
	}{
		"a domain error": {
			&execution.Error{Code: execution.Unavailable, Message: "no engine"},
			execution.Error{Code: execution.Unavailable, Message: "no engine"},
		},
		"a wrapped domain error": {
			fmt.Errorf("pool: %w", &execution.Error{Code: execution.NotFound, Message: "no image"}),
			execution.Error{Code: execution.NotFound, Message: "no image"},
		},
		"a foreign error": {
			foreign, execution.Error{Code: execution.Internal, Message: "internal error", Err: foreign},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shop{lease: func(context.Context) error { return test.err }}
			_, err := newExecutor(t, s, 1).Execute(t.Context(), execution.Request{})
			if !reflect.DeepEqual(err, error(&test.want)) {
				t.Errorf("the error is %#v", err)
			}
		})
	}
}

func TestExecuteCancelled(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	for name, s := range map[string]*shop{
		"while it waits": {lease: hang, run: succeed},
		"while it runs": {run: func(ctx context.Context, _ execution.Request, _ execution.Limits) (*execution.Result, error) {
			return nil, hang(ctx)
		}},
		"before its program starts": {run: func(ctx context.Context, _ execution.Request, _ execution.Limits) (*execution.Result, error) {
			return nil, fmt.Errorf("%w: %w", execution.ErrNotStarted, hang(ctx))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s.leased.Store(0)
				why := errors.New("the client hung up")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(why) })
				result, err := newExecutor(t, s, 1).Execute(ctx, execution.Request{})
				if domain := asError(t, err, execution.Cancelled); result != nil || !errors.Is(domain, why) {
					t.Errorf("result %v, error %v", result, err)
				}
				if s.leased.Load() > 1 {
					t.Error("it was tried again after the caller had left")
				}
			})
		})
	}
}

// A result that is there counts, even if the caller has just left.
func TestExecuteReturnsTheResultToACallerWhoLeft(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &shop{run: func(ctx context.Context, req execution.Request, l execution.Limits) (*execution.Result, error) {
		cancel()
		return succeed(ctx, req, l)
	}}
	if result, err := newExecutor(t, s, 1).Execute(ctx, execution.Request{}); err != nil || result == nil {
		t.Errorf("result %v, error %v", result, err)
	}
}

func TestExecutorCloseFailsWaitersAndLetsRunsFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shop{run: func(ctx context.Context, req execution.Request, l execution.Limits) (*execution.Result, error) {
			time.Sleep(time.Minute)
			if ctx.Err() != nil {
				t.Errorf("the run was stopped: %v", context.Cause(ctx))
			}
			return succeed(ctx, req, l)
		}}
		s.lease = func(ctx context.Context) error {
			if s.leased.Load() == 0 {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}
		e := newExecutor(t, s, 10)
		errs := make(chan error, 2)
		execute := func() {
			_, err := e.Execute(t.Context(), execution.Request{})
			errs <- err
		}
		go execute()
		synctest.Wait()
		go execute()
		synctest.Wait()

		began := time.Now()
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("Close took %v, not the minute of the run", took)
		}
		wantCode(t, <-errs, execution.Unavailable)
		if err := <-errs; err != nil {
			t.Errorf("the run: %v", err)
		}
		_, err := e.Execute(t.Context(), execution.Request{})
		wantCode(t, err, execution.Unavailable)
	})
}

func TestExecutorCloseReturnsWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shop{run: func(ctx context.Context, req execution.Request, l execution.Limits) (*execution.Result, error) {
			time.Sleep(time.Minute)
			return succeed(ctx, req, l)
		}}
		e := newExecutor(t, s, 1)
		go func() { _, _ = e.Execute(t.Context(), execution.Request{}) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := e.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("Close took %v", took)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("closing again: %v", err)
		}
	})
}

func TestExecutorCloseTwice(t *testing.T) {
	e := newExecutor(t, &shop{}, 1)
	for range 3 {
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// With nothing under way there is nothing to wait for, not even with a context
// that has ended.
func TestExecutorCloseOfAnIdleOne(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if err := newExecutor(t, &shop{}, 1).Close(ctx); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
}

// Many callers come and leave while the executor closes.
func TestExecutorStress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 8
		var running, peak atomic.Int64
		s := &shop{run: func(ctx context.Context, req execution.Request, l execution.Limits) (*execution.Result, error) {
			defer running.Add(-1)
			n := running.Add(1)
			for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); {
				old = peak.Load()
			}
			select {
			case <-time.After(req.Timeout):
				return succeed(ctx, req, l)
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}}
		e := newExecutor(t, s, most)
		var callers sync.WaitGroup
		for n := range 50 {
			callers.Go(func() {
				for turn := range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%7+1)*10*time.Millisecond)
					_, err := e.Execute(ctx, execution.Request{Timeout: time.Duration(turn%5+1) * 10 * time.Millisecond})
					cancel()
					if err != nil && execution.AsError(err).Code == execution.Internal {
						t.Error(err)
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if left := running.Load(); left != 0 {
			t.Errorf("%d runs after Close", left)
		}
		callers.Wait()
		if peak.Load() > most || peak.Load() < 2 {
			t.Errorf("%d ran at once, of at most %d", peak.Load(), most)
		}
	})
}
