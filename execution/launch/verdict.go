package launch

import (
	"context"
	"maps"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// temporaryTime is how long a verdict stands whose refusal may be temporary.
const temporaryTime = time.Minute

// verdictKey is what decides whether sandboxes can serve many runs: a part of their template,
// and the class of their machine. That a bare sandbox can says nothing of one with all
// modules.
type verdictKey struct {
	image, runtime string
	class          string // "" where the backend has none
	bare           bool
}

func keyOf(spec execution.Spec, class string) verdictKey {
	return verdictKey{image: spec.Image, runtime: spec.Runtime, class: class, bare: spec.Bare}
}

func classOf(instance execution.Instance) string {
	if classed, ok := instance.(execution.Classed); ok {
		return classed.Class()
	}
	return ""
}

// Verdict is the decision on the isolation of a template's sandboxes. The zero Verdict means
// that there is none yet.
type Verdict struct {
	Isolation execution.Isolation
	// Refusal is the reason why a sandbox cannot serve many runs. It is empty if it can,
	// or if that was not asked for.
	Refusal string

	expires time.Time // when to probe again; zero means never
}

func (v Verdict) isExpired() bool { return !v.expires.IsZero() && time.Now().After(v.expires) }

// Verdict returns the decision on a template. Where the setting asks for one run per
// sandbox, it is that. That on sandboxes with all modules holds for bare ones too. If there
// are machines of several classes, those decide whose sandboxes serve many runs, then those
// on which there is no decision yet.
func (l *Launcher) Verdict(spec execution.Spec) Verdict {
	if spec.Isolation == execution.IsolationContainer {
		return Verdict{Isolation: execution.IsolationContainer}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var refused Verdict
	undecided := false
	for key := range l.verdicts {
		if key != keyOf(spec, key.class) && key != keyOf(withModules(spec), key.class) {
			continue
		}
		switch v := l.verdictLocked(spec, key.class); v.Isolation {
		case execution.IsolationRun:
			return v
		case "":
			undecided = true
		default:
			if !refused.isExpired() {
				refused = v
			}
		}
	}
	if undecided {
		return Verdict{}
	}
	return refused
}

func withModules(spec execution.Spec) execution.Spec {
	spec.Bare = false
	return spec
}

// verdictLocked returns the decision on a template on machines of a class. It needs l.mu.
func (l *Launcher) verdictLocked(spec execution.Spec, class string) Verdict {
	if v := l.verdicts[keyOf(withModules(spec), class)]; v.Isolation != "" {
		return v
	}
	return l.verdicts[keyOf(spec, class)]
}

// known returns the isolation that was decided on. It returns false if a probe must decide:
// there is no verdict, or it has expired, or the setting demands many runs and the verdict
// refuses them.
func (l *Launcher) known(spec execution.Spec) (execution.Isolation, bool) {
	verdict := l.Verdict(spec)
	refused := verdict.Isolation == execution.IsolationContainer && spec.Isolation == execution.IsolationRun
	return verdict.Isolation, verdict.Isolation != "" && !verdict.isExpired() && !refused
}

// see notes the class of an instance's machine, and returns the decision on that class. If
// there is none, the next start probes.
func (l *Launcher) see(spec execution.Spec, instance execution.Instance) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	class := classOf(instance)
	v := l.verdictLocked(spec, class)
	if v.isExpired() {
		v = Verdict{}
	}
	if _, seen := l.verdicts[keyOf(spec, class)]; !seen && v.Isolation == "" {
		l.verdicts[keyOf(spec, class)] = v
	}
	return v
}

// decide stores a verdict, and logs it if it differs from the one before.
func (l *Launcher) decide(ctx context.Context, key verdictKey, v Verdict) {
	old := l.replaceVerdict(key, v)
	if key.bare || old.Isolation == v.Isolation && old.Refusal == v.Refusal {
		return
	}
	log := l.log.With("isolation", v.Isolation)
	if key.class != "" {
		log = log.With("machines", key.class)
	}
	if v.Refusal != "" {
		log.WarnContext(ctx, "each run gets its own sandbox, which is slower: a sandbox cannot serve many runs here", "reason", v.Refusal)
		return
	}
	log.InfoContext(ctx, "a sandbox serves many runs, each in a fresh inner sandbox")
}

// replaceVerdict stores a verdict and returns the one before. It forgets those that have
// expired: of a start that failed, the class is not known, so that no other verdict would
// replace them.
func (l *Launcher) replaceVerdict(key verdictKey, v Verdict) (old Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old = l.verdicts[key]
	maps.DeleteFunc(l.verdicts, func(_ verdictKey, v Verdict) bool { return v.isExpired() })
	l.verdicts[key] = v
	return old
}
