package runner_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// many plays a supervisor that serves many runs, each by a script.
func many(scripts ...func(s *supervisor)) func(s *supervisor) {
	return func(s *supervisor) {
		s.say('R', manyRuns)
		for _, script := range scripts {
			if s.job() == nil {
				return
			}
			s.say('A', "")
			script(s)
		}
	}
}

func ends(facts string) func(s *supervisor) {
	return func(s *supervisor) {
		s.say('X', facts)
		s.say('Z', "")
		s.say('R', renewed)
	}
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sandbox := open(t, newInstance(t, many(ends(fine), func(s *supervisor) {
			s.say('X', fine)
			s.say('Z', "")
			time.Sleep(time.Second)
			s.say('R', "clean_us=200\nprepare_us=300\n")
		}, ends(fine))))
		for i := range 3 {
			result, err := sandbox.Run(t.Context(), request, limits)
			if err != nil || result.Failed() {
				t.Fatalf("run %d: %v %+v", i, err, result)
			}
			if i == 2 && (result.Stages.Clean != 200*time.Microsecond || result.Stages.Prepare != 300*time.Microsecond) {
				t.Errorf("the stages are %+v", result.Stages)
			}
			if !sandbox.Reusable() {
				t.Fatal("it is not reusable")
			}
			if err := sandbox.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A sandbox for one run is not renewed.
func TestRenewOfASingleRun(t *testing.T) {
	sandbox := open(t, newInstance(t, started(func(s *supervisor) {
		s.say('X', fine)
		s.say('Z', "")
	})))
	if _, err := sandbox.Run(t.Context(), request, limits); err != nil {
		t.Fatal(err)
	}
	if sandbox.Reusable() || sandbox.Renew(t.Context()) == nil {
		t.Error("it can be used again")
	}
}

// After anything odd a sandbox is not used again.
func TestOddRuns(t *testing.T) {
	facts := func(name, value string) string {
		return strings.ReplaceAll(fine, name+"=0", name+"="+value)
	}
	for name, script := range map[string]func(s *supervisor){
		"timeout":         ends(facts("timed_out", "1")),
		"memory kill":     ends(facts("memory_kills", "1")),
		"pids exhaustion": ends(facts("refused_processes", "3")),
		"broken protocol": func(s *supervisor) { s.say('Q', "") },
		"files out of bounds": func(s *supervisor) {
			s.say('X', fine)
			s.say('F', "../x")
		},
		"silence past the deadline": func(*supervisor) {},
		"the end":                   (*supervisor).leave,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sandbox := open(t, newInstance(t, many(script)))
				if _, err := sandbox.Run(t.Context(), request, limits); err != nil {
					t.Fatal(err)
				}
				if sandbox.Reusable() || sandbox.Renew(t.Context()) == nil {
					t.Error("it can be used again")
				}
			})
		})
	}
}

func TestRunThatIsCancelledIsOdd(t *testing.T) {
	sandbox := open(t, newInstance(t, many(func(*supervisor) {})))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := sandbox.Run(ctx, request, limits); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if sandbox.Reusable() {
		t.Error("it can be used again")
	}
}

func TestRenewFails(t *testing.T) {
	for name, test := range map[string]struct {
		then func(s *supervisor)
		want string
	}{
		"the end":        {(*supervisor).leave, "the sandbox ended"},
		"another frame":  {func(s *supervisor) { s.say('O', "late output") }, "frame 'O' instead of ready"},
		"a wrong number": {func(s *supervisor) { s.say('R', "clean_us=-1\nprepare_us=0\n") }, "clean_us"},
		"silence":        {func(*supervisor) {}, "time is up"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sandbox := open(t, newInstance(t, many(func(s *supervisor) {
					s.say('X', fine)
					s.say('Z', "")
					test.then(s)
				})))
				if _, err := sandbox.Run(t.Context(), request, limits); err != nil {
					t.Fatal(err)
				}
				if err := sandbox.Renew(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("the error is %v", err)
				}
				if sandbox.Reusable() {
					t.Error("it can be used again")
				}
			})
		})
	}
}
