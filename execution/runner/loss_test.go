package runner_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// examined is an instance whose backend finds out why it ended.
type examined struct {
	*instance
	why    string
	memory bool
	hangs  bool // until its context ends
}

func (e examined) Postmortem(ctx context.Context) (why string, memory bool) {
	if e.hangs {
		<-ctx.Done()
	}
	return e.why, e.memory
}

// What a backend finds out of the end of a sandbox is the reason, and in the message.
func TestPostmortem(t *testing.T) {
	const unknown = "the sandbox ended before the program did, with its files (out of memory, or the engine stopped)"
	for name, test := range map[string]struct {
		examined
		script  func(s *supervisor)
		reason  execution.Reason
		message string
	}{
		"memory": {
			examined{memory: true},
			(*supervisor).leave, execution.MemoryLimit,
			"the kernel stopped it: more memory than the sandbox has; the sandbox ended before the program did, with its files",
		},
		"memory, in words": {
			examined{why: "OOMKilled", memory: true},
			(*supervisor).leave, execution.MemoryLimit,
			"the kernel stopped it: more memory than the sandbox has; the sandbox ended before the program did, with its files: OOMKilled",
		},
		"something else": {
			examined{why: "its machine\x1b was lost"},
			(*supervisor).leave, execution.SandboxLost,
			`the sandbox ended before the program did, with its files: its machine\x1b was lost`,
		},
		"nothing":             {examined{}, (*supervisor).leave, execution.SandboxLost, unknown},
		"nothing in time":     {examined{hangs: true}, (*supervisor).leave, execution.SandboxLost, unknown},
		"a broken protocol":   {examined{why: "no"}, func(s *supervisor) { s.say('Q', "") }, execution.SandboxLost, unknown},
		"it has ended before": {examined{why: "no"}, func(s *supervisor) { s.say('X', fine); s.leave() }, execution.Exited, "not all files could be fetched: the sandbox ended: EOF"},
		"it has not ended": {
			examined{why: "no"},
			func(*supervisor) {}, execution.Timeout,
			"stopped after 2000 ms; the sandbox did not report back and was destroyed; the run's files are lost",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := test.examined
				i.instance = newInstance(t, many(test.script))
				sandbox, err := runner.Open(t.Context(), i, quiet)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = sandbox.Close() }()
				began := time.Now()
				result, err := sandbox.Run(t.Context(), request, limits)
				if err != nil {
					t.Fatal(err)
				}
				want := execution.End{Reason: test.reason, Message: test.message}
				if test.reason == execution.MemoryLimit {
					want.Signal = "SIGKILL"
				}
				if result.End != want || result.ExitCode != nil && test.memory && *result.ExitCode != 137 {
					t.Errorf("the end is %+v", result.End)
				}
				if took := time.Since(began); test.hangs && took != 5*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// So it is for a call of a session, also for one whose start was not reported.
func TestPostmortemOfASession(t *testing.T) {
	for name, test := range map[string]struct {
		script  func(s *supervisor)
		message string
	}{
		"in a call": {func(s *supervisor) { s.job(); s.say('A', ""); s.leave() }, "the session ended, or the connection to it: OOMKilled"},
		"before": {
			func(s *supervisor) { s.job(); s.leave() },
			"the session ended, or the connection to it, before it said that the program starts; it may have run: OOMKilled",
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := examined{why: "OOMKilled", memory: true, instance: newInstance(t, func(s *supervisor) {
				s.say('R', greeting)
				test.script(s)
			})}
			session, err := hostOf(i).Start(t.Context(), execution.Spec{})
			if err != nil {
				t.Fatal(err)
			}
			defer session.Detach()
			result, err := runPython(t.Context(), session)
			if err != nil {
				t.Fatal(err)
			}
			want := "the kernel stopped it: more memory than the sandbox has; " + test.message
			if result.End != (execution.End{Reason: execution.MemoryLimit, Signal: "SIGKILL", Message: want}) {
				t.Errorf("the end is %+v", result.End)
			}
		})
	}
}
