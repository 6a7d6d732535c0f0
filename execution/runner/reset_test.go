package runner_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// resettable is an instance that starts anew as another one.
type resettable struct {
	*instance
	anew *instance
	err  error
}

func (r resettable) Reset(ctx context.Context) (execution.Instance, error) {
	if r.err != nil {
		return nil, r.err
	}
	_ = r.Close()
	r.supervisor.leave()
	return r.anew, context.Cause(ctx)
}

func openResettable(t *testing.T, script, anew func(s *supervisor)) (*runner.Sandbox, resettable) {
	t.Helper()
	i := resettable{instance: newInstance(t, script), anew: newInstance(t, anew)}
	s, err := runner.Open(t.Context(), i, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, i
}

// A sandbox can be reset after every run but one that shows that its supervisor cannot be
// trusted, or hears nothing.
func TestResettable(t *testing.T) {
	fact := func(name, value string) string { return strings.ReplaceAll(fine, name+"=0", name+"="+value) }
	for name, test := range map[string]struct {
		script func(s *supervisor)
		want   bool
	}{
		"all is well":       {ends(fine), true},
		"timeout":           {ends(fact("timed_out", "1")), true},
		"memory kill":       {ends(fact("memory_kills", "1")), true},
		"refused processes": {ends(fact("refused_processes", "3")), true},
		"the end":           {(*supervisor).leave, true},
		"no report in time": {func(*supervisor) {}, true},
		"silence":           {(*supervisor).stop, false},
		"an unknown frame":  {func(s *supervisor) { s.say('Q', "") }, false},
		"a huge frame":      {func(s *supervisor) { s.send("O\xff\xff\xff\xff") }, false},
		"strange facts":     {func(s *supervisor) { s.say('X', "") }, false},
		"a strange path":    {func(s *supervisor) { s.say('X', fine); s.say('F', "../x") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sandbox, _ := openResettable(t, many(test.script), many(ends(fine)))
				if _, err := sandbox.Run(t.Context(), request, limits); err != nil {
					t.Fatal(err)
				}
				if got := sandbox.Resettable(); got != test.want {
					t.Errorf("it can be reset: %v", got)
				}
				anew, err := sandbox.Reset(t.Context())
				if (err == nil) != test.want {
					t.Errorf("the error is %v", err)
				}
				if err != nil {
					return
				}
				result, err := anew.Run(t.Context(), request, limits)
				if err != nil || result.Failed() || !anew.Reusable() {
					t.Errorf("then a run returns %+v, %v", result, err)
				}
				if err := anew.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A sandbox is reset in the middle of a run that its caller has left.
func TestResetOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sandbox, _ := openResettable(t, many(func(s *supervisor) {
			for range 20 { // more than the server keeps unread
				s.say('O', "and")
			}
		}), many(ends(fine)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := sandbox.Run(ctx, request, limits); err == nil {
			t.Fatal("no error")
		}
		anew, err := sandbox.Reset(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		<-sandbox.Done()
		if err := anew.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What cannot be reset is left to its caller.
func TestResetFails(t *testing.T) {
	t.Run("one run", func(t *testing.T) {
		sandbox, _ := openResettable(t, ready(func(*supervisor) {}), ready(func(*supervisor) {}))
		if _, err := sandbox.Reset(t.Context()); err == nil || sandbox.Resettable() {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("an instance that cannot", func(t *testing.T) {
		sandbox := open(t, newInstance(t, many()))
		if _, err := sandbox.Reset(t.Context()); err == nil || sandbox.Resettable() {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("the instance fails", func(t *testing.T) {
		i := resettable{instance: newInstance(t, many()), err: errors.New("nobody answers")}
		sandbox, err := runner.Open(t.Context(), i, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sandbox.Reset(t.Context()); !errors.Is(err, i.err) || i.destroyed.Load() != 0 {
			t.Errorf("the error is %v; it is destroyed %d times", err, i.destroyed.Load())
		}
		if err := sandbox.Close(); err != nil || i.destroyed.Load() != 1 {
			t.Errorf("closing returns %v; it is destroyed %d times", err, i.destroyed.Load())
		}
	})
	t.Run("the supervisor does not start", func(t *testing.T) {
		sandbox, i := openResettable(t, many(), (*supervisor).leave)
		if _, err := sandbox.Reset(t.Context()); err == nil || i.anew.destroyed.Load() != 1 {
			t.Errorf("the error is %v; the new one is destroyed %d times", err, i.anew.destroyed.Load())
		}
	})
}
