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

func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sandbox := open(t, newInstance(t, func(s *supervisor) {
			time.Sleep(time.Second)
			s.say('R', greeting)
		}))
		if python := sandbox.Python(); python != "3.13.5" {
			t.Errorf("Python is %q", python)
		}
		select {
		case <-sandbox.Done():
			t.Error("the sandbox has ended")
		default:
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		script func(s *supervisor)
		want   string // in the error
	}{
		"another first frame":   {func(s *supervisor) { s.say('A', greeting) }, `'A'`},
		"text that is no frame": {func(s *supervisor) { s.send("Traceback (most recent call last)") }, "frame of"},
		"a newer protocol":      {func(s *supervisor) { s.say('R', "protocol=4\n") }, `"4"`},
		"a protocol below zero": {func(s *supervisor) { s.say('R', "protocol=-1\n") }, `"-1"`},
		"a huge protocol":       {func(s *supervisor) { s.say('R', "protocol=18446744073709551617\n") }, "protocol"},
		"no protocol":           {func(s *supervisor) { s.say('R', "python=3.13.5\n") }, `""`},
		"no fields":             {func(s *supervisor) { s.say('R', "\n\n==\n") }, `""`},
		"a long Python":         {func(s *supervisor) { s.say('R', "protocol=3\npython="+strings.Repeat("3", 21)) }, "Python"},
		"a frame of 4 GB":       {func(s *supervisor) { s.send("R\xff\xff\xff\xff") }, "4294967295"},
		"the stream's end":      {func(s *supervisor) { s.leave() }, "EOF"},
		"half a greeting":       {func(s *supervisor) { s.send("R\x00\x00\x00\x1bproto"); s.leave() }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, test.script)
			i.diagnostics = "python3: not found"
			sandbox, err := runner.Open(t.Context(), i, quiet)
			if err == nil {
				_ = sandbox.Close()
				t.Fatal("no error")
			}
			for _, want := range []string{test.want, "python3: not found"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in the error: %v", want, err)
				}
			}
			if i.destroyed.Load() != 1 {
				t.Errorf("the instance was destroyed %d times", i.destroyed.Load())
			}
		})
	}
}

func TestOpenWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, func(*supervisor) {})
		i.destroyErr = errors.New("the engine does not answer")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		_, err := runner.Open(ctx, i, quiet)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, i.destroyErr) {
			t.Errorf("the error is %v", err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

func TestDoneTellsThatAnIdleSandboxEnded(t *testing.T) {
	for name, then := range map[string]func(s *supervisor){
		"it leaves":          func(s *supervisor) { s.leave() },
		"it breaks a frame":  func(s *supervisor) { s.send("O\xff\xff\xff\xff") },
		"it stops in a word": func(s *supervisor) { s.send("O\x00"); s.leave() },
	} {
		t.Run(name, func(t *testing.T) {
			<-open(t, newInstance(t, ready(then))).Done()
		})
	}
}

func TestClose(t *testing.T) {
	i := newInstance(t, ready(func(*supervisor) {}))
	sandbox := open(t, i)
	if err := sandbox.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	select {
	case <-sandbox.Done():
	default:
		t.Error("Close returned before the stream had ended")
	}
	if err := sandbox.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func TestCloseTellsThatDestroyFailed(t *testing.T) {
	i := newInstance(t, ready(func(*supervisor) {}))
	i.destroyErr = errors.New("the engine does not answer")
	if err := open(t, i).Close(); !errors.Is(err, i.destroyErr) {
		t.Errorf("Close: %v", err)
	}
}

// lingering is an instance that takes its time to end, and talks meanwhile.
type lingering struct{ *instance }

func (l lingering) Destroy(ctx context.Context) error {
	for range 1000 {
		l.supervisor.say('O', "I am not done yet")
	}
	return l.instance.Destroy(ctx)
}

// An end is not held up by what nobody wants to hear.
func TestCloseListensToTheEnd(t *testing.T) {
	sandbox, err := runner.Open(t.Context(), lingering{newInstance(t, ready(func(*supervisor) {}))}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := sandbox.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// The supervisor ends itself when it hears nothing for [python.Silence].
func TestPings(t *testing.T) {
	for name, script := range map[string]func(s *supervisor){
		"of an idle sandbox": ready(func(*supervisor) {}),
		"during a run":       started(func(*supervisor) {}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstance(t, script)
				sandbox := open(t, i)
				over := make(chan struct{})
				go func() {
					defer close(over)
					if name == "during a run" {
						_, _ = sandbox.Run(t.Context(), execution.Request{Timeout: time.Hour}, limits)
					}
				}()
				last := time.Now()
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := len(i.supervisor.pings); got < 15 {
					t.Errorf("%d pings in a minute", got)
				}
				for len(i.supervisor.pings) > 0 {
					ping := <-i.supervisor.pings
					if gap := ping.Sub(last); gap > python.Silence/2 {
						t.Errorf("nothing for %v: one lost ping ends the sandbox", gap)
					}
					last = ping
				}
				_ = sandbox.Close()
				<-over
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(i.supervisor.pings) > 0 {
					t.Error("pings after Close")
				}
			})
		})
	}
}

// A supervisor that stopped reading is not trusted with a program.
func TestRunAfterAPingGotStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sandbox := open(t, newDeafInstance(t, ready(func(*supervisor) {})))
		time.Sleep(time.Minute)
		began := time.Now()
		if _, err := sandbox.Run(t.Context(), request, limits); !errors.Is(err, execution.ErrNotStarted) {
			t.Errorf("the error is %v", err)
		}
		if took := time.Since(began); took > python.Silence {
			t.Errorf("it took %v", took)
		}
	})
}

// refusing is an instance whose connection is closed already.
type refusing struct{ *instance }

func (refusing) SetWriteDeadline(time.Time) error { return io.ErrClosedPipe }

func TestRunOnAClosedConnection(t *testing.T) {
	sandbox, err := runner.Open(t.Context(), refusing{newInstance(t, ready(func(*supervisor) {}))}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sandbox.Run(t.Context(), request, limits); !errors.Is(err, execution.ErrNotStarted) {
		t.Errorf("the error is %v", err)
	}
	if err := sandbox.Close(); err != nil {
		t.Error(err)
	}
}

// What a sandbox reports of modules is text that its log can show.
func TestPreloadFault(t *testing.T) {
	i := newInstance(t, func(s *supervisor) {
		s.say('R', "protocol=3\npython=3.13.5\nisolation=run\npreload_failed=nosuch: ModuleNotFoundError\x1b\n")
	})
	if got, want := open(t, i).PreloadFault(), `nosuch: ModuleNotFoundError\x1b`; got != want {
		t.Errorf("the fault is %q, not %q", got, want)
	}
}

// going is an instance whose machine may be drained.
type going struct {
	*instance
	doomed chan struct{}
}

func (g going) Doomed() <-chan struct{} { return g.doomed }

func TestDoomed(t *testing.T) {
	if open(t, newInstance(t, ready(func(*supervisor) {}))).Doomed() != nil {
		t.Error("a sandbox is doomed whose instance knows nothing of that")
	}
	i := going{newInstance(t, ready(func(*supervisor) {})), make(chan struct{})}
	sandbox, err := runner.Open(t.Context(), i, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sandbox.Close() }()
	close(i.doomed)
	<-sandbox.Doomed()
}
