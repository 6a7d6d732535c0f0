package launch

import (
	"context"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// doubtTime is how long a refusal is believed that may have been bad luck.
const doubtTime = time.Minute

// verdictKey is what decides whether a container can serve many runs.
type verdictKey struct{ image, runtime string }

// Verdict says which isolation a kind of sandbox has. The zero Verdict says
// that it is not known yet.
type Verdict struct {
	Isolation execution.Isolation
	// Refusal says why a container cannot serve many runs, where it cannot.
	Refusal string

	doubted time.Time // when to look again; zero is never
}

// Verdict gives what was decided for a kind of sandbox.
func (l *Launcher) Verdict(spec execution.Spec) Verdict {
	if spec.Isolation == execution.IsolationContainer {
		return Verdict{Isolation: execution.IsolationContainer}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.verdicts[verdictKey{spec.Image, spec.Runtime}]
}

// known gives the isolation that was decided for a kind, unless that is in doubt
// or not what was asked for.
func (l *Launcher) known(spec execution.Spec) (execution.Isolation, bool) {
	verdict := l.Verdict(spec)
	doubtful := !verdict.doubted.IsZero() && time.Now().After(verdict.doubted)
	refused := verdict.Isolation == execution.IsolationContainer && spec.Isolation == execution.IsolationRun
	return verdict.Isolation, verdict.Isolation != "" && !doubtful && !refused
}

// decide keeps a verdict, and tells it when it is news.
func (l *Launcher) decide(ctx context.Context, spec execution.Spec, v Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := verdictKey{spec.Image, spec.Runtime}
	old := l.verdicts[k]
	l.verdicts[k] = v
	switch {
	case old.Isolation == v.Isolation && old.Refusal == v.Refusal:
	case v.Refusal != "":
		l.log.WarnContext(ctx, "each run gets a sandbox of its own, which is slow: one cannot serve many here",
			"isolation", v.Isolation, "reason", v.Refusal)
	default:
		l.log.InfoContext(ctx, "a sandbox serves many runs, each in a fresh inner one", "isolation", v.Isolation)
	}
}
