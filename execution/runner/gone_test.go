package runner_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// A supervisor that does not start says why over the stream, where a backend does not have
// its stderr.
func TestGoneAtTheStart(t *testing.T) {
	for name, test := range map[string]struct {
		script func(s *supervisor)
		stderr string
		want   string // after "the sandbox ended: EOF"; "": nothing
		cause  execution.Cause
	}{
		"a reason":            {func(s *supervisor) { s.say('G', "no room\n") }, "", ": no room\n", ""},
		"a cause":             {func(s *supervisor) { s.say('G', "cause=namespaces_denied\nunshare: no") }, "", ": unshare: no", execution.NamespacesDenied},
		"a cause alone":       {func(s *supervisor) { s.say('G', "cause=zygote_ended") }, "", "", execution.ZygoteEnded},
		"stderr as well":      {func(s *supervisor) { s.say('G', "no room") }, "no room, it wrote", ": no room, it wrote", ""},
		"a long reason":       {func(s *supervisor) { s.say('G', strings.Repeat("x", 60_000)) }, "", ": " + strings.Repeat("x", 2048), ""},
		"among signs of life": {func(s *supervisor) { s.say('P', ""); s.say('G', "no room"); s.say('P', "") }, "", ": no room", ""},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, func(s *supervisor) {
				test.script(s)
				s.leave()
			})
			i.diagnostics = test.stderr
			_, err := runner.Open(t.Context(), i, quiet)
			if want := "the supervisor did not start: the sandbox ended: EOF" + test.want; err == nil || err.Error() != want {
				t.Errorf("the error is %.200v, not %.200s", err, want)
			}
			if !errors.Is(err, runner.ErrExplained) || execution.CauseOf(err) != test.cause {
				t.Errorf("it is explained: %v, by %q", errors.Is(err, runner.ErrExplained), execution.CauseOf(err))
			}
		})
	}
	_, err := runner.Open(t.Context(), newInstance(t, (*supervisor).leave), quiet)
	if err == nil || errors.Is(err, runner.ErrExplained) {
		t.Errorf("without a reason: %v", err)
	}
}

// It also says why it ends under a program, among its output, and why it cannot clean up.
func TestGoneLater(t *testing.T) {
	log := new(strings.Builder)
	i := newInstance(t, many(func(s *supervisor) {
		s.say('O', "out")
		s.say('G', "cause=zygote_ended\nthe zygote ended")
		s.leave()
	}))
	sandbox, err := runner.Open(t.Context(), i, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sandbox.Close() }()
	result, err := sandbox.Run(t.Context(), request, limits)
	if err != nil || result.Stdout != "out" || result.End.Reason != execution.SandboxLost {
		t.Errorf("the run returns %+v, %v", result, err)
	}
	if !strings.Contains(log.String(), `diagnostics="the zygote ended"`) {
		t.Errorf("the log: %s", log)
	}

	cleaned := open(t, newInstance(t, many(func(s *supervisor) {
		s.say('X', fine)
		s.say('Z', "")
		s.say('G', "a file cannot be deleted")
		s.leave()
	})))
	if _, err := cleaned.Run(t.Context(), request, limits); err != nil {
		t.Fatal(err)
	}
	if err := cleaned.Renew(t.Context()); err == nil || !strings.HasSuffix(err.Error(), ": a file cannot be deleted") {
		t.Errorf("renewing returns %v", err)
	}
}

// It ends once.
func TestGoneTwice(t *testing.T) {
	sandbox, _ := openResettable(t, many(func(s *supervisor) {
		s.say('G', "first")
		s.say('G', "second")
	}), many())
	if _, err := sandbox.Run(t.Context(), request, limits); err != nil {
		t.Fatal(err)
	}
	if <-sandbox.Done(); sandbox.Resettable() {
		t.Error("it is trusted")
	}
}
