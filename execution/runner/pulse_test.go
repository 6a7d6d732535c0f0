package runner_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
	python "github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// A silent sandbox is given up so soon after its last sign of life.
const (
	leastSilence = 1500 * time.Millisecond
	mostSilence  = 2 * time.Second
)

func wantSilent(t *testing.T, s *runner.Sandbox, began time.Time) {
	t.Helper()
	if took := time.Since(began); took < leastSilence || took > mostSilence {
		t.Errorf("it was given up after %v", took)
	}
	if !s.Silent() || s.Reusable() {
		t.Errorf("silent: %t, reusable: %t", s.Silent(), s.Reusable())
	}
	synctest.Wait() // the caller may hear of it before Done does
	select {
	case <-s.Done():
	default:
		t.Error("it is not done")
	}
}

// A sandbox that freezes before its program starts costs 2 s, and the run may be
// tried again.
func TestFrozenBeforeTheStart(t *testing.T) {
	large := request
	large.Code = strings.Repeat("x", 1<<20)
	for name, test := range map[string]struct {
		req  execution.Request
		then func(s *supervisor)
	}{
		"idle":            {request, func(s *supervisor) { s.stop() }},
		"idle, large job": {large, func(s *supervisor) { s.stop() }},
		"while staging":   {large, func(s *supervisor) { <-s.heard; s.stop() }},
		"before the start": {request, func(s *supervisor) {
			s.job()
			s.stop()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstance(t, ready(test.then))
				sandbox := open(t, i)
				synctest.Wait()
				began := time.Now()
				_, err := sandbox.Run(t.Context(), test.req, limits)
				if !errors.Is(err, execution.ErrNotStarted) {
					t.Errorf("the error is %v", err)
				}
				wantSilent(t, sandbox, began)
				_ = sandbox.Close()
				if i.killed.Load() == 0 {
					t.Error("it was asked to leave, which it cannot")
				}
			})
		})
	}
}

// One that freezes later is a result that says what is known.
func TestFrozenAfterTheStart(t *testing.T) {
	for name, test := range map[string]struct {
		then    func(s *supervisor)
		reason  execution.Reason
		message string
		files   int
	}{
		"while running": {func(s *supervisor) { s.say('O', "out") }, execution.SandboxLost, "did not answer any more", 0},
		"while collecting": {func(s *supervisor) {
			s.say('O', "out")
			s.say('X', fine)
			s.say('F', "a")
			s.say('F', "b")
		}, execution.Exited, "not all files could be fetched", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sandbox := open(t, newInstance(t, started(func(s *supervisor) {
					test.then(s)
					s.stop()
				})))
				began := time.Now()
				slow := request
				slow.Timeout = time.Minute
				result, err := sandbox.Run(t.Context(), slow, limits)
				if err != nil {
					t.Fatal(err)
				}
				wantSilent(t, sandbox, began)
				if result.End.Reason != test.reason || !strings.Contains(result.End.Message, test.message) ||
					result.Stdout != "out" || len(result.Files) != test.files {
					t.Errorf("the result is %+v", result)
				}
			})
		})
	}
}

// Where the program's time was up before its sandbox fell silent, that is its end.
func TestFrozenAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		result := run(t, started(func(s *supervisor) {
			time.Sleep(request.Timeout - 100*time.Millisecond)
			s.stop()
		}))
		if !result.TimedOut() || result.ExitCode != nil || !strings.Contains(result.End.Message, "did not report back") {
			t.Errorf("the result is %+v", result)
		}
	})
}

func TestFrozenWhileRenewing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sandbox := open(t, newInstance(t, many(func(s *supervisor) {
			s.say('X', fine)
			s.say('Z', "")
			s.stop()
		})))
		if _, err := sandbox.Run(t.Context(), request, limits); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := sandbox.Renew(t.Context()); err == nil {
			t.Error("no error")
		}
		wantSilent(t, sandbox, began)
	})
}

// An idle sandbox answers pings. One that does not is done before anybody needs it.
func TestFrozenWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, ready(func(s *supervisor) { time.Sleep(time.Hour); s.stop() }))
		sandbox := open(t, i)
		time.Sleep(time.Hour - time.Second)
		if sandbox.Silent() {
			t.Fatal("it was given up while it answered")
		}
		time.Sleep(time.Second)
		began := time.Now()
		<-sandbox.Done()
		if took := time.Since(began); took > python.Silence/3+mostSilence || !sandbox.Silent() {
			t.Errorf("it took %v; silent: %t", took, sandbox.Silent())
		}
	})
}

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		then func(s *supervisor)
		took time.Duration
		want string // in the error
	}{
		"alive":  {func(*supervisor) {}, 0, ""},
		"frozen": {func(s *supervisor) { s.stop() }, time.Second, "does not answer"},
		"gone":   {func(s *supervisor) { s.leave() }, 0, "ended"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sandbox := open(t, newInstance(t, ready(test.then)))
				synctest.Wait()
				began := time.Now()
				err := sandbox.Check(t.Context())
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("the error is %v", err)
				}
				if took := time.Since(began); took != test.took {
					t.Errorf("it took %v", took)
				}
				if sandbox.Silent() != (name == "frozen") {
					t.Errorf("silent: %t", sandbox.Silent())
				}
			})
		})
	}
}

func TestCheckHeedsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sandbox := open(t, newInstance(t, ready(func(s *supervisor) { s.stop() })))
		synctest.Wait() // until it has stopped
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := sandbox.Check(ctx); !errors.Is(err, context.DeadlineExceeded) || sandbox.Silent() {
			t.Errorf("%v, silent: %t", err, sandbox.Silent())
		}
	})
}

// The caller's departure frees the call, whatever its sandbox does.
func TestFrozenSandboxKeepsNoCaller(t *testing.T) {
	large := request
	large.Code = strings.Repeat("x", 1<<20)
	for name, then := range map[string]func(s *supervisor){
		"while sending":    func(s *supervisor) { s.stop() },
		"before the start": func(s *supervisor) { s.job(); s.stop() },
		"while running":    func(s *supervisor) { s.job(); s.say('A', ""); s.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sandbox := open(t, newInstance(t, ready(then)))
				ctx, leave := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer leave()
				began := time.Now()
				_, _ = sandbox.Run(ctx, large, limits)
				if took := time.Since(began); took != 300*time.Millisecond {
					t.Errorf("the caller was kept for %v", took)
				}
			})
		})
	}
}

// Slow is not frozen: any byte counts as life.
func TestSlowSandboxIsNotGivenUp(t *testing.T) {
	for name, then := range map[string]func(s *supervisor){
		"a slow start": func(s *supervisor) { time.Sleep(20 * time.Second); s.say('A', ""); s.say('X', fine); s.say('Z', "") },
		"a slow report": func(s *supervisor) {
			s.say('A', "")
			s.say('X', fine)
			time.Sleep(20 * time.Second)
			s.say('Z', "")
		},
		"a frame that comes byte by byte, without pongs": func(s *supervisor) {
			s.say('A', "")
			s.stop()
			for _, b := range (frame{'O', strings.Repeat("x", 20)}).bytes() {
				time.Sleep(time.Second)
				s.send(string(b))
			}
			s.say('X', fine)
			s.say('Z', "")
		},
		"silence with pongs": func(s *supervisor) {
			s.say('A', "")
			time.Sleep(59 * time.Second)
			s.say('X', fine)
			s.say('Z', "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sandbox := open(t, newInstance(t, ready(func(s *supervisor) { s.job(); then(s) })))
				slow := request
				slow.Timeout = time.Minute
				result, err := sandbox.Run(t.Context(), slow, limits)
				if err != nil || result.Failed() || result.End.Message != "" {
					t.Errorf("%+v, %v", result, err)
				}
			})
		})
	}
}

// A slow store or source is not the sandbox's silence.
func TestSlowServerIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, started(func(s *supervisor) {
			s.stop() // its answers are all that it says
			s.say('X', fine)
			sayFiles(s)
		}))
		k := &keeper{waits: map[string]time.Duration{"d/a": time.Minute}}
		req := withFile(3, func() (io.Reader, error) { return slowly{strings.NewReader("abc"), time.Minute}, nil })
		req.Keep = k.keep
		result, err := open(t, i).Run(t.Context(), req, limits)
		if err != nil || len(result.Files) != 3 {
			t.Errorf("%+v, %v", result, err)
		}
	})
}

// A short run hears no ping and says no pong.
func TestShortRunsSeeNoPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, started(func(s *supervisor) {
			time.Sleep(490 * time.Millisecond)
			s.say('X', fine)
			s.say('Z', "")
		}))
		if _, err := open(t, i).Run(t.Context(), request, limits); err != nil {
			t.Fatal(err)
		}
		if pings := len(i.supervisor.pings); pings != 0 {
			t.Errorf("%d pings", pings)
		}
	})
}

// A sandbox may freeze while it starts. Until Python has started there is no sign
// of life to expect.
func TestFrozenWhileStarting(t *testing.T) {
	for name, test := range map[string]struct {
		script func(s *supervisor)
		within time.Duration
	}{
		"before Python has started": {func(*supervisor) {}, 10 * time.Second},
		"after that":                {func(s *supervisor) { s.say('P', "") }, mostSilence},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newDeafInstance(t, test.script)
				began := time.Now()
				_, err := runner.Open(t.Context(), i, quiet)
				if err == nil || !strings.Contains(err.Error(), "does not answer") {
					t.Errorf("the error is %v", err)
				}
				if took := time.Since(began); took > test.within {
					t.Errorf("it takes %v", took)
				}
			})
		})
	}
}

// Imports may take long, with signs of life.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open(t, newInstance(t, func(s *supervisor) { time.Sleep(50 * time.Second); s.say('R', greeting) }))
	})
}
