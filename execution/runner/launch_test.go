package runner_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

const (
	manyRuns = "protocol=3\npython=3.13.5\nisolation=run\npreloaded=\npreload_failed=\n"
	renewed  = "clean_us=1\nprepare_us=1\n"
	allHolds = "holds\tone wall\nholds\tanother wall\n"
)

// starter starts fakes, by the isolation that is asked for, and notes what was.
type starter struct {
	run  func() (execution.Instance, error)
	only func() (execution.Instance, error)

	mu    sync.Mutex
	asked []execution.Isolation
}

func (s *starter) Start(_ context.Context, spec execution.Spec) (execution.Instance, error) {
	s.mu.Lock()
	s.asked = append(s.asked, spec.Isolation)
	s.mu.Unlock()
	if spec.Isolation == execution.IsolationRun {
		return s.run()
	}
	return s.only()
}

// probed plays a supervisor for many runs whose probes print something.
func probed(t *testing.T, prints ...string) func() (execution.Instance, error) {
	t.Helper()
	return func() (execution.Instance, error) {
		return newInstance(t, func(s *supervisor) {
			s.say('R', manyRuns)
			for _, text := range prints {
				if s.job() == nil {
					return
				}
				s.say('A', "")
				if text != "" {
					s.say('O', text)
				}
				s.say('X', fine)
				s.say('Z', "")
				s.say('R', renewed)
			}
		}), nil
	}
}

func single(t *testing.T) func() (execution.Instance, error) {
	t.Helper()
	return func() (execution.Instance, error) { return newInstance(t, ready(func(*supervisor) {})), nil }
}

func fails(err error) func() (execution.Instance, error) {
	return func() (execution.Instance, error) { return nil, err }
}

var spec = execution.Spec{Image: "sha256:a", Settings: execution.Settings{Isolation: execution.IsolationAuto}}

func launcher(s *starter) (*runner.Launcher, *strings.Builder) {
	log := &strings.Builder{}
	return runner.NewLauncher(s, slog.New(slog.NewTextHandler(log, nil))), log
}

func closeSandbox(t *testing.T, s execution.Sandbox) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Where every wall stands, containers serve many runs; the probe is not made
// again.
func TestLaunchDecidesForRun(t *testing.T) {
	s := &starter{run: probed(t, allHolds, allHolds), only: fails(errors.New("not needed"))}
	l, log := launcher(s)
	first, err := l.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSandbox(t, first)
	if !first.Reusable() || l.Verdict(spec) != (runner.Verdict{Isolation: execution.IsolationRun}) {
		t.Errorf("reusable %v, verdict %+v", first.Reusable(), l.Verdict(spec))
	}
	s.run = probed(t) // takes no job
	second, err := l.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	closeSandbox(t, second)
	if strings.Count(log.String(), "serves many runs") != 1 {
		t.Errorf("the log: %s", log)
	}
}

// What keeps a container from serving many runs is told once, and each run
// gets its own from then on.
func TestLaunchFallsBack(t *testing.T) {
	for name, test := range map[string]struct {
		run  func() (execution.Instance, error)
		want string
	}{
		"the engine refuses":       {fails(errors.New("no such profile")), "no such profile"},
		"the supervisor refuses":   {func() (execution.Instance, error) { return newInstance(t, (*supervisor).leave), nil }, "did not start"},
		"a wall is missing":        {probed(t, "holds\tone wall\nfails\tanother wall\n"), "does not hold: another wall"},
		"it is missing later":      {probed(t, allHolds, "fails\tno files of another run\n"), "does not hold: no files of another run"},
		"the probe prints nothing": {probed(t, ""), "found nothing"},
		"the sandbox is not renewed": {func() (execution.Instance, error) {
			return newInstance(t, func(s *supervisor) {
				s.say('R', manyRuns)
				s.job()
				s.say('A', "")
				s.say('O', allHolds)
				s.say('X', fine)
				s.say('Z', "")
				s.leave()
			}), nil
		}, "the sandbox ended"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &starter{run: test.run, only: single(t)}
			l, log := launcher(s)
			for range 2 {
				sandbox, err := l.Launch(t.Context(), spec)
				if err != nil {
					t.Fatal(err)
				}
				if sandbox.Reusable() {
					t.Error("it is reusable")
				}
				closeSandbox(t, sandbox)
			}
			want := []execution.Isolation{execution.IsolationRun, execution.IsolationContainer, execution.IsolationContainer}
			if diff := cmp.Diff(want, s.asked); diff != "" {
				t.Errorf("started (-want +got):\n%s", diff)
			}
			v := l.Verdict(spec)
			if v.Isolation != execution.IsolationContainer || !strings.Contains(v.Refusal, test.want) || !strings.Contains(log.String(), test.want) {
				t.Errorf("the verdict is %+v; the log: %s", v, log)
			}
		})
	}
}

// An engine that starts nothing says nothing about isolation.
func TestLaunchDecidesNothingWithoutAnEngine(t *testing.T) {
	s := &starter{run: fails(errors.New("down")), only: fails(errors.New("down too"))}
	l, _ := launcher(s)
	if _, err := l.Launch(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "down too") {
		t.Errorf("the error is %v", err)
	}
	if v := l.Verdict(spec); v != (runner.Verdict{}) {
		t.Errorf("the verdict is %+v", v)
	}
}

// Nor does a caller who leaves.
func TestLaunchDecidesNothingWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &starter{run: func() (execution.Instance, error) { cancel(); return nil, ctx.Err() }, only: single(t)}
	l, _ := launcher(s)
	if _, err := l.Launch(ctx, spec); !errors.Is(err, context.Canceled) || l.Verdict(spec) != (runner.Verdict{}) {
		t.Errorf("%v, %+v", err, l.Verdict(spec))
	}
}

// A refusal that may have been bad luck is not believed for ever; one that shows
// a missing wall is.
func TestLaunchLooksAgain(t *testing.T) {
	for name, test := range map[string]struct {
		refuses func(t *testing.T) (execution.Instance, error)
		again   bool
	}{
		"bad luck":  {func(*testing.T) (execution.Instance, error) { return nil, errors.New("create: 500, once") }, true},
		"a verdict": {func(t *testing.T) (execution.Instance, error) { t.Helper(); return probed(t, "fails\ta wall\n")() }, false},
		"the supervisor's word": {func(t *testing.T) (execution.Instance, error) {
			t.Helper()
			i := newInstance(t, (*supervisor).leave)
			i.diagnostics = "unshare: Operation not permitted"
			return i, nil
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &starter{run: func() (execution.Instance, error) { return test.refuses(t) }, only: single(t)}
				l, _ := launcher(s)
				launch := func() bool {
					sandbox, err := l.Launch(t.Context(), spec)
					if err != nil {
						t.Fatal(err)
					}
					defer closeSandbox(t, sandbox)
					return sandbox.Reusable()
				}
				if launch() {
					t.Error("it is reusable")
				}
				s.run = probed(t, allHolds, allHolds)
				time.Sleep(59 * time.Second)
				if launch() {
					t.Error("it is looked at too soon")
				}
				time.Sleep(2 * time.Second)
				if launch() != test.again {
					t.Errorf("reusable after a while: %v", !test.again)
				}
			})
		})
	}
}

// A supervisor that hangs is given up in time for another.
func TestLaunchGivesUpOnOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &starter{run: func() (execution.Instance, error) { return newInstance(t, func(*supervisor) {}), nil }, only: single(t)}
		l, _ := launcher(s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		sandbox, err := l.Launch(ctx, spec)
		if err != nil {
			t.Fatal(err)
		}
		closeSandbox(t, sandbox)
	})
}

// Of many starts at once, one probes.
func TestLaunchProbesOnce(t *testing.T) {
	s := &starter{run: probed(t, allHolds, allHolds), only: fails(errors.New("not needed"))}
	l, _ := launcher(s)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			sandbox, err := l.Launch(t.Context(), spec)
			if err != nil {
				t.Error(err)
				return
			}
			closeSandbox(t, sandbox)
		})
	}
	group.Wait()
	if len(s.asked) != 4 {
		t.Errorf("%d starts", len(s.asked))
	}
}

func TestLaunchInsistsOnRun(t *testing.T) {
	strict := spec
	strict.Isolation = execution.IsolationRun
	s := &starter{run: probed(t, "fails\ta wall\n"), only: fails(errors.New("must not be asked for"))}
	l, _ := launcher(s)
	if _, err := l.Launch(t.Context(), strict); err == nil || !strings.Contains(err.Error(), "ISOLATION=run cannot be had: it cannot serve many runs: does not hold: a wall") {
		t.Errorf("the error is %v", err)
	}
}

func TestLaunchOfAContainerForEachRun(t *testing.T) {
	simple := spec
	simple.Isolation = execution.IsolationContainer
	s := &starter{run: fails(errors.New("must not be asked for")), only: single(t)}
	l, _ := launcher(s)
	sandbox, err := l.Launch(t.Context(), simple)
	if err != nil {
		t.Fatal(err)
	}
	closeSandbox(t, sandbox)
	if v := l.Verdict(simple); v != (runner.Verdict{Isolation: execution.IsolationContainer}) {
		t.Errorf("the verdict is %+v", v)
	}
}

func TestProbe(t *testing.T) {
	s := &starter{run: probed(t, allHolds, allHolds)}
	l, _ := launcher(s)
	got, err := l.Probe(t.Context(), spec)
	want := []runner.Finding{{Name: "one wall", Holds: true}, {Name: "another wall", Holds: true}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// What could not be imported ahead is told.
func TestLaunchTellsFailedPreloads(t *testing.T) {
	s := &starter{run: func() (execution.Instance, error) {
		return newInstance(t, func(s *supervisor) {
			s.say('R', "protocol=3\npython=3.13.5\nisolation=run\npreload_failed=nosuch: ModuleNotFoundError\x1b\n")
			s.job()
			s.leave()
		}), nil
	}, only: single(t)}
	l, log := launcher(s)
	sandbox, err := l.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	closeSandbox(t, sandbox)
	if !strings.Contains(log.String(), `nosuch: ModuleNotFoundError\\x1b`) {
		t.Errorf("the log: %s", log)
	}
}
