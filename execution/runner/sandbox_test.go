package runner_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
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
			sandbox, err := runner.Open(t.Context(), i)
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
		_, err := runner.Open(ctx, i)
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
	sandbox, err := runner.Open(t.Context(), lingering{newInstance(t, ready(func(*supervisor) {}))})
	if err != nil {
		t.Fatal(err)
	}
	if err := sandbox.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// The supervisor ends itself when it hears nothing for [runner.Silence].
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
					if gap := ping.Sub(last); gap > runner.Silence/2 {
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
		if took := time.Since(began); took > runner.Silence {
			t.Errorf("it took %v", took)
		}
	})
}

// refusing is an instance whose connection is closed already.
type refusing struct{ *instance }

func (refusing) SetWriteDeadline(time.Time) error { return io.ErrClosedPipe }

func TestRunOnAClosedConnection(t *testing.T) {
	sandbox, err := runner.Open(t.Context(), refusing{newInstance(t, ready(func(*supervisor) {}))})
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

func TestCommand(t *testing.T) {
	makeCommand, err := runner.NewCommand()
	if err != nil {
		t.Fatal(err)
	}
	settings := execution.Settings{Isolation: execution.IsolationRun, Preload: "numpy"}
	command := makeCommand.Line(execution.Spec{Settings: settings})
	if !slices.Equal(command[:3], []string{"python3", "-I", "-c"}) || len(command) != 11 {
		t.Fatalf("the command is %.60q", command)
	}
	want := []string{runner.Workspace, strconv.Itoa(int(runner.Silence.Seconds())), "run", "numpy"}
	if !slices.Equal(command[5:9], want) {
		t.Errorf("the arguments are %q, not %q", command[5:9], want)
	}
	const instruction = 16 // digits
	if command[9] == "" || len(command[10]) < 20*instruction || len(command[10])%instruction != 0 {
		t.Errorf("the filter is %q for %q", command[10], command[9])
	}
	settings.Isolation = execution.IsolationSession
	session := makeCommand.Line(execution.Spec{Settings: settings, Session: execution.SessionInfo{Expires: time.Unix(1700000000, 5e6)}})
	if len(session) != 13 || session[11] != "1700000000005" || !strings.Contains(session[12], "class Session") {
		t.Errorf("a session's arguments are %.60q", session[11:])
	}
	compiled := makeCommand.CompiledLine(execution.Spec{Settings: settings}, "/opt/x")
	if !slices.Equal(compiled[:3], command[:3]) || compiled[4] != "/opt/x" || compiled[5] != runner.Workspace {
		t.Errorf("from a file the command is %.60q", compiled)
	}
	for i, argument := range append(session, makeCommand.CompileLine()...) {
		if len(argument) >= 128<<10 { // MAX_ARG_STRLEN
			t.Errorf("argument %d is longer than Linux takes: %d bytes", i, len(argument))
		}
	}
}

// Programs see no variable of the server's: there are ours alone.
func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "hunter2")
	seen := make(map[string]bool)
	for _, variable := range runner.Environment() {
		name, value, found := strings.Cut(variable, "=")
		if !found || value == "" || seen[name] {
			t.Errorf("%q is malformed, empty or there twice", variable)
		}
		seen[name] = true
	}
	if seen["SECRET_TOKEN"] || !seen["PATH"] || !seen["HOME"] {
		t.Errorf("the environment is %v", runner.Environment())
	}
}
