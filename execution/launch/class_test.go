package launch

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// machines start sandboxes on machines of several classes, in order. Sandboxes of the class
// "old" cannot serve many runs.
type machines struct {
	classes []string
	started []*instance
	asked   []string // class and isolation of each start
}

func (m *machines) Start(_ context.Context, spec execution.Spec) (execution.Instance, error) {
	if len(m.classes) == 0 {
		return nil, errors.New("there are no machines")
	}
	i := &instance{class: m.classes[0]}
	m.classes = m.classes[1:]
	if spec.Isolation == execution.IsolationRun {
		i.opened = opened{reusable: true, prints: []string{allHolds, allHolds}}
		if i.class == "old" {
			i.opened.prints = []string{"fails\ta check\n"}
		}
	}
	m.started = append(m.started, i)
	m.asked = append(m.asked, i.class+" "+string(spec.Isolation))
	return i, nil
}

// launch launches a sandbox that is started on machines of some classes. It returns what the
// machines were asked for, and whether the sandbox serves many runs.
func (m *machines) launch(t *testing.T, l *Launcher, spec execution.Spec, classes ...string) (asked string, reusable bool) {
	t.Helper()
	m.classes, m.started, m.asked = classes, nil, nil
	sandbox, err := l.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	closeSandbox(t, sandbox)
	for _, i := range m.started {
		if i.destroyed == i.used {
			t.Errorf("a sandbox of class %s is opened: %v, destroyed without that: %v", i.class, i.used, i.destroyed)
		}
	}
	return strings.Join(m.asked, ", "), sandbox.Reusable()
}

// A verdict holds for the machines of one class.
func TestVerdictOfAClass(t *testing.T) {
	type step struct {
		classes  []string // in the order in which sandboxes are started
		asked    string
		reusable bool
		verdict  execution.Isolation // afterwards, on all classes
	}
	run, single := execution.IsolationRun, execution.IsolationContainer
	for name, steps := range map[string][]step{
		"a class that serves many runs first": {
			{[]string{"new"}, "new run", true, run},
			{[]string{"new"}, "new run", true, run},
			{[]string{"old", "new"}, "old run, new run", true, run}, // the second one is of a class that was decided on
			{[]string{"old", "old", "old", "old"}, "old run, old run, old run, old container", false, run},
			{[]string{"old", "new"}, "old run, new container", false, run},
			{[]string{"new"}, "new run", true, run},
		},
		"a class that does not first": {
			{[]string{"old", "old"}, "old run, old container", false, single},
			{[]string{"old"}, "old container", false, single},
			{[]string{"new"}, "new container", false, ""},
			{[]string{"old", "old"}, "old run, old container", false, ""},
			{[]string{"new"}, "new run", true, run},
			{[]string{"new"}, "new run", true, run},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := new(machines)
			l, log := launcher(&starter{})
			l.backend = m
			for n, step := range steps {
				asked, reusable := m.launch(t, l, spec, step.classes...)
				if diff := cmp.Diff(step.asked, asked); diff != "" || reusable != step.reusable {
					t.Errorf("step %d: reusable %v, (-want +got):\n%s", n, reusable, diff)
				}
				if v := l.Verdict(spec); v.Isolation != step.verdict {
					t.Errorf("step %d: the verdict is %+v", n, v)
				}
			}
			for _, want := range []string{"isolation=run machines=new", "isolation=container machines=old"} {
				if strings.Count(log.String(), want) != 1 {
					t.Errorf("%q is not in the log once: %s", want, log)
				}
			}
		})
	}
}

// The class of a machine on which a start failed is not known. What was decided for want of
// one does not stand for ever.
func TestVerdictWithoutAClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(machines)
		l, _ := launcher(&starter{run: fails(errors.New("no machine is free")), only: single})
		sandbox, err := l.Launch(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		closeSandbox(t, sandbox)
		l.backend = m
		for _, step := range []struct {
			after time.Duration
			asked string
		}{
			{59 * time.Second, "old container"}, // now its class is known to be undecided
			{0, "old run, old container"},
			{0, "old container"},
			{time.Hour, "old run, old container"}, // the first verdict has expired
			{time.Hour, "old container"},
		} {
			time.Sleep(step.after)
			if asked, _ := m.launch(t, l, spec, "old", "old"); asked != step.asked {
				t.Errorf("asked for %q, not %q", asked, step.asked)
			}
		}
	})
}
