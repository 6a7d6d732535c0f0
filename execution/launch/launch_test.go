package launch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// If all checks hold, sandboxes serve many runs, and there is no second probe.
func TestLaunchDecidesForManyRuns(t *testing.T) {
	s := &starter{run: probed(allHolds, allHolds), only: fails(errors.New("not needed"))}
	l, log := launcher(s)
	first, err := l.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSandbox(t, first)
	if !first.Reusable() || l.Verdict(spec) != (Verdict{Isolation: execution.IsolationRun}) {
		t.Errorf("reusable %v, verdict %+v", first.Reusable(), l.Verdict(spec))
	}
	s.run = probed() // takes no job
	second, err := l.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	closeSandbox(t, second)
	if strings.Count(log.String(), "serves many runs") != 1 {
		t.Errorf("the log: %s", log)
	}
}

// That a bare sandbox can serve many runs says nothing of one with all modules, which is probed
// too. What refuses a bare one refuses all, and so does one that lacks nothing decide for all.
func TestBareVerdict(t *testing.T) {
	yes, no := Verdict{Isolation: execution.IsolationRun}, Verdict{Isolation: execution.IsolationContainer}
	for name, test := range map[string]struct {
		instance  opened
		all, bare Verdict
	}{
		"bare":          {opened{reusable: true, bare: true, prints: []string{allHolds, allHolds}}, Verdict{}, yes},
		"lacks nothing": {opened{reusable: true, prints: []string{allHolds, allHolds}}, yes, yes},
		"refused":       {opened{reusable: true, bare: true, prints: []string{"fails\tsome check\n"}}, no, no},
	} {
		t.Run(name, func(t *testing.T) {
			l, log := launcher(&starter{run: starts(&instance{opened: test.instance}), only: single})
			asked := spec
			asked.Bare = true
			sandbox, err := l.Launch(t.Context(), asked)
			if err != nil {
				t.Fatal(err)
			}
			closeSandbox(t, sandbox)
			if all, bare := l.Verdict(spec).Isolation, l.Verdict(asked).Isolation; all != test.all.Isolation || bare != test.bare.Isolation {
				t.Errorf("the verdict is %q, on bare ones %q", all, bare)
			}
			if decided := test.all.Isolation != ""; decided != (log.String() != "") {
				t.Errorf("the log: %s", log)
			}
		})
	}
}

// The reason why a sandbox cannot serve many runs is logged once. From then on each run gets
// its own sandbox.
func TestLaunchFallsBack(t *testing.T) {
	for name, test := range map[string]struct {
		run  func() (execution.Instance, error)
		want string
	}{
		"the engine fails":                {fails(errors.New("no such profile")), "no such profile"},
		"the supervisor fails":            {starts(&instance{refuses: errors.New("it did not start")}), "did not start"},
		"a check fails":                   {probed("holds\tone check\nfails\tanother check\n"), "failed checks: another check"},
		"a check fails in the second run": {probed(allHolds, "fails\tno files of another run\n"), "failed checks: no files of another run"},
		"the probe prints nothing":        {probed(""), "printed no findings"},
		"the sandbox is not renewed": {starts(&instance{opened: opened{
			prints: []string{allHolds}, renewal: errors.New("the sandbox ended"),
		}}), "the sandbox ended"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &starter{run: test.run, only: single}
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

// If the engine starts no sandbox at all, there is no verdict.
func TestLaunchDecidesNothingWithoutAnEngine(t *testing.T) {
	s := &starter{run: fails(errors.New("down")), only: fails(errors.New("down too"))}
	l, _ := launcher(s)
	if _, err := l.Launch(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "down too") {
		t.Errorf("the error is %v", err)
	}
	if v := l.Verdict(spec); v != (Verdict{}) {
		t.Errorf("the verdict is %+v", v)
	}
}

// If the caller leaves, there is no verdict.
func TestLaunchDecidesNothingWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &starter{run: func() (execution.Instance, error) { cancel(); return nil, ctx.Err() }, only: single}
	l, _ := launcher(s)
	if _, err := l.Launch(ctx, spec); !errors.Is(err, context.Canceled) || l.Verdict(spec) != (Verdict{}) {
		t.Errorf("%v, %+v", err, l.Verdict(spec))
	}
}

// A refusal that may be temporary is probed again after a minute. One that the sandbox itself
// has shown is not.
func TestTemporaryRefusalExpires(t *testing.T) {
	for name, test := range map[string]struct {
		refuses func() (execution.Instance, error)
		again   bool
	}{
		"an error of the engine": {fails(errors.New("create: 500, once")), true},
		"a failed check":         {probed("fails\ta check\n"), false},
		"the supervisor's diagnostics": {starts(&instance{
			refuses: fmt.Errorf("unshare: Operation not permitted (%w)", runner.ErrExplained),
		}), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &starter{run: test.refuses, only: single}
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
				s.run = probed(allHolds, allHolds)
				time.Sleep(59 * time.Second)
				if launch() {
					t.Error("it is probed too soon")
				}
				time.Sleep(2 * time.Second)
				if launch() != test.again {
					t.Errorf("reusable after a minute: %v", !test.again)
				}
			})
		})
	}
}

// A supervisor that hangs is given up while there is time left to start another sandbox.
func TestLaunchGivesUpOnHangingSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &starter{run: starts(&instance{hangs: true}), only: single}
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

// Of concurrent starts, one probes.
func TestLaunchProbesOnce(t *testing.T) {
	s := &starter{run: probed(allHolds, allHolds), only: fails(errors.New("not needed"))}
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

func TestLaunchFailsWithoutManyRuns(t *testing.T) {
	strict := spec
	strict.Isolation = execution.IsolationRun
	s := &starter{run: probed("fails\ta check\n"), only: fails(errors.New("must not be asked for"))}
	l, _ := launcher(s)
	if _, err := l.Launch(t.Context(), strict); err == nil || !strings.Contains(err.Error(), "ISOLATION=run is not available here: the sandbox cannot serve many runs: failed checks: a check") {
		t.Errorf("the error is %v", err)
	}
}

func TestLaunchForOneRun(t *testing.T) {
	simple := spec
	simple.Isolation = execution.IsolationContainer
	s := &starter{run: fails(errors.New("must not be asked for")), only: single}
	l, _ := launcher(s)
	sandbox, err := l.Launch(t.Context(), simple)
	if err != nil {
		t.Fatal(err)
	}
	closeSandbox(t, sandbox)
	if v := l.Verdict(simple); v != (Verdict{Isolation: execution.IsolationContainer}) {
		t.Errorf("the verdict is %+v", v)
	}
}

func TestProbe(t *testing.T) {
	s := &starter{run: probed(allHolds, allHolds)}
	l, _ := launcher(s)
	got, err := l.Probe(t.Context(), spec)
	want := []Finding{{Name: "one check", Holds: true}, {Name: "another check", Holds: true}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// Modules that could not be preloaded are logged.
func TestLaunchLogsFailedPreloads(t *testing.T) {
	s := &starter{run: starts(&instance{opened: opened{
		preload: "nosuch: ModuleNotFoundError", prints: []string{allHolds, allHolds},
	}})}
	l, log := launcher(s)
	sandbox, err := l.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	closeSandbox(t, sandbox)
	if !strings.Contains(log.String(), "nosuch: ModuleNotFoundError") {
		t.Errorf("the log: %s", log)
	}
}
