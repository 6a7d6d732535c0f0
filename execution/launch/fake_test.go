package launch

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const allHolds = "holds\tone check\nholds\tanother check\n"

// starter starts fakes by the requested isolation, which it records.
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

// instance is a started sandbox. Its fields decide whether it can be opened.
type instance struct {
	execution.Instance
	class     string // of its machine
	used      bool   // it was opened
	destroyed bool
	hangs     bool   // it never becomes ready
	refuses   error  // why it does not become ready
	opened    opened // what it is once it is ready
}

func (i *instance) Class() string { return i.class }

func (i *instance) Destroy(context.Context) error {
	i.destroyed = true
	return nil
}

// opened is an open sandbox whose programs print given texts.
type opened struct {
	execution.Sandbox
	reusable bool
	bare     bool
	preload  string
	prints   []string // one for each program, in order
	renewal  error
}

func (o *opened) Reusable() bool              { return o.reusable }
func (o *opened) Bare() bool                  { return o.bare }
func (o *opened) PreloadFault() string        { return o.preload }
func (o *opened) Renew(context.Context) error { return o.renewal }
func (o *opened) Close() error                { return nil }

func (o *opened) Run(context.Context, execution.Request, execution.Limits) (*execution.Result, error) {
	if len(o.prints) == 0 {
		return nil, errors.New("the fake expects no program")
	}
	text := o.prints[0]
	o.prints = o.prints[1:]
	status := 0
	return &execution.Result{Stdout: text, ExitCode: &status, End: execution.End{Reason: execution.Exited}}, nil
}

// openFake opens an instance according to its fields.
func openFake(ctx context.Context, i execution.Instance) (sandbox, error) {
	fake := i.(*instance)
	fake.used = true
	switch {
	case fake.hangs:
		<-ctx.Done()
		return nil, context.Cause(ctx)
	case fake.refuses != nil:
		return nil, fake.refuses
	}
	return &fake.opened, nil
}

// probed starts a sandbox for many runs whose probes print given texts.
func probed(prints ...string) func() (execution.Instance, error) {
	return func() (execution.Instance, error) {
		return &instance{opened: opened{reusable: true, prints: prints}}, nil
	}
}

// single starts a sandbox for one run.
func single() (execution.Instance, error) { return &instance{}, nil }

func starts(i *instance) func() (execution.Instance, error) {
	return func() (execution.Instance, error) { return i, nil }
}

func fails(err error) func() (execution.Instance, error) {
	return func() (execution.Instance, error) { return nil, err }
}

var spec = execution.Spec{Image: "sha256:a", Settings: execution.Settings{Isolation: execution.IsolationAuto}}

func launcher(s *starter) (*Launcher, *strings.Builder) {
	log := &strings.Builder{}
	l := NewLauncher(s, slog.New(slog.NewTextHandler(log, nil)))
	l.open = openFake
	return l, log
}

func closeSandbox(t *testing.T, s execution.Sandbox) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
