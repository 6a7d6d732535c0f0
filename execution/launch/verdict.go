package launch

import (
	"context"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// temporaryTime is how long a verdict stands whose refusal may be temporary.
const temporaryTime = time.Minute

// verdictKey is the part of a template that decides whether its sandboxes can serve many
// runs. That a bare sandbox can says nothing of one with all modules.
type verdictKey struct {
	image, runtime string
	bare           bool
}

func keyOf(spec execution.Spec) verdictKey { return verdictKey{spec.Image, spec.Runtime, spec.Bare} }

// Verdict is the decision on the isolation of a template's sandboxes. The zero Verdict means
// that there is none yet.
type Verdict struct {
	Isolation execution.Isolation
	// Refusal is the reason why a sandbox cannot serve many runs. It is empty if it can,
	// or if that was not asked for.
	Refusal string

	expires time.Time // when to probe again; zero means never
}

// Verdict returns the decision on a template. Where the setting asks for one run per
// sandbox, it is that. That on sandboxes with all modules holds for bare ones too.
func (l *Launcher) Verdict(spec execution.Spec) Verdict {
	if spec.Isolation == execution.IsolationContainer {
		return Verdict{Isolation: execution.IsolationContainer}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	all := keyOf(spec)
	all.bare = false
	if v, decided := l.verdicts[all]; decided || !spec.Bare {
		return v
	}
	return l.verdicts[keyOf(spec)]
}

// known returns the isolation that was decided on. It returns false if a probe must decide:
// there is no verdict, or it has expired, or the setting demands many runs and the verdict
// refuses them.
func (l *Launcher) known(spec execution.Spec) (execution.Isolation, bool) {
	verdict := l.Verdict(spec)
	expired := !verdict.expires.IsZero() && time.Now().After(verdict.expires)
	refused := verdict.Isolation == execution.IsolationContainer && spec.Isolation == execution.IsolationRun
	return verdict.Isolation, verdict.Isolation != "" && !expired && !refused
}

// decide stores a verdict, and logs it if it differs from the one before.
func (l *Launcher) decide(ctx context.Context, spec execution.Spec, v Verdict) {
	old := l.replaceVerdict(spec, v)
	if spec.Bare || old.Isolation == v.Isolation && old.Refusal == v.Refusal {
		return
	}
	if v.Refusal != "" {
		l.log.WarnContext(ctx, "each run gets its own sandbox, which is slower: a sandbox cannot serve many runs here",
			"isolation", v.Isolation, "reason", v.Refusal)
		return
	}
	l.log.InfoContext(ctx, "a sandbox serves many runs, each in a fresh inner sandbox", "isolation", v.Isolation)
}

// replaceVerdict stores a verdict and returns the one before.
func (l *Launcher) replaceVerdict(spec execution.Spec, v Verdict) (old Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old = l.verdicts[keyOf(spec)]
	l.verdicts[keyOf(spec)] = v
	return old
}
