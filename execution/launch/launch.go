// Package launch starts sandboxes and decides which isolation they have: whether one may
// serve many runs, each in a fresh inner sandbox, or serves one run.
package launch

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

//go:embed probe.py
var probeSource string

const (
	// probeTime bounds each of a probe's programs.
	probeTime = 10 * time.Second
	// readyTime bounds the start of a supervisor, which may import modules that take
	// their time on a slow machine.
	readyTime = time.Minute
	// tryTime bounds the start and the probe of a sandbox for many runs, so that
	// time is left for another.
	tryTime = 25 * time.Second
	// doubtTime is how long a refusal is believed that may have been bad luck.
	doubtTime = time.Minute
)

// Starter starts instances, as [execution.Backend] does.
type Starter interface {
	Start(ctx context.Context, spec execution.Spec) (execution.Instance, error)
}

// sandbox is an open sandbox, as [runner.Open] returns it.
type sandbox interface {
	execution.Sandbox
	// PreloadFault returns what could not be imported ahead, and why. Empty where all could.
	PreloadFault() string
}

// Launcher starts sandboxes. Where the isolation is left to it, it decides:
// before the first container of a kind may serve many runs, programs in it must
// find every wall standing. Where they do not, each run gets a container of its
// own. It is safe for concurrent use.
type Launcher struct {
	backend Starter
	open    func(ctx context.Context, instance execution.Instance) (sandbox, error)
	log     *slog.Logger

	probing chan struct{} // holds one token; whoever has it may probe

	mu       sync.Mutex
	verdicts map[kind]Verdict
}

// kind is what decides whether a container can serve many runs.
type kind struct{ image, runtime string }

// Verdict says which isolation a kind of sandbox has. The zero Verdict says
// that it is not known yet.
type Verdict struct {
	Isolation execution.Isolation
	// Refusal says why a container cannot serve many runs, where it cannot.
	Refusal string

	doubted time.Time // when to look again; zero is never
}

// Finding is one thing that a probe looked at.
type Finding struct {
	Name  string
	Holds bool
}

// NewLauncher makes a Launcher. It tells log what it decides.
func NewLauncher(backend Starter, log *slog.Logger) *Launcher {
	open := func(ctx context.Context, instance execution.Instance) (sandbox, error) {
		return runner.Open(ctx, instance, log)
	}
	return &Launcher{
		backend: backend, open: open, log: log, probing: make(chan struct{}, 1), verdicts: make(map[kind]Verdict),
	}
}

// Launch starts a sandbox and waits until it is ready.
func (l *Launcher) Launch(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	if spec.Isolation == execution.IsolationContainer {
		return l.start(ctx, spec)
	}
	if isolation, known := l.known(spec); known {
		return l.start(ctx, as(isolation, spec))
	}
	select { // one probe is enough: the others wait for what it finds
	case l.probing <- struct{}{}:
		defer func() { <-l.probing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if isolation, known := l.known(spec); known {
		return l.start(ctx, as(isolation, spec))
	}
	return l.launchUnknown(ctx, spec)
}

// known gives the isolation that was decided for a kind, unless that is in doubt
// or not what was asked for.
func (l *Launcher) known(spec execution.Spec) (execution.Isolation, bool) {
	verdict := l.Verdict(spec)
	doubtful := !verdict.doubted.IsZero() && time.Now().After(verdict.doubted)
	refused := verdict.Isolation == execution.IsolationContainer && spec.Isolation == execution.IsolationRun
	return verdict.Isolation, verdict.Isolation != "" && !doubtful && !refused
}

// launchUnknown probes, and decides.
func (l *Launcher) launchUnknown(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	opened, _, refusal := l.try(ctx, as(execution.IsolationRun, spec))
	switch {
	case refusal == nil:
		l.decide(ctx, spec, Verdict{Isolation: execution.IsolationRun})
		return opened, nil
	case ctx.Err() != nil:
		return nil, refusal
	case spec.Isolation == execution.IsolationRun:
		return nil, fmt.Errorf("ISOLATION=run cannot be had: %w", refusal)
	}
	// What keeps every container from starting says nothing about the isolation.
	single, err := l.start(ctx, as(execution.IsolationContainer, spec))
	if err != nil {
		return nil, err
	}
	verdict := Verdict{Isolation: execution.IsolationContainer, Refusal: refusal.Error()}
	if !errors.Is(refusal, errRefused) {
		verdict.doubted = time.Now().Add(doubtTime)
	}
	l.decide(ctx, spec, verdict)
	return single, nil
}

// errRefused is the refusal of a sandbox that was there and said, or showed,
// what is wrong. Any other may have been bad luck.
var errRefused = errors.New("it cannot serve many runs")

// Verdict gives what was decided for a kind of sandbox.
func (l *Launcher) Verdict(spec execution.Spec) Verdict {
	if spec.Isolation == execution.IsolationContainer {
		return Verdict{Isolation: execution.IsolationContainer}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.verdicts[kind{spec.Image, spec.Runtime}]
}

// Probe starts a sandbox that serves many runs, and says what holds in it. The
// error says why there is none, or what does not hold.
func (l *Launcher) Probe(ctx context.Context, spec execution.Spec) ([]Finding, error) {
	opened, findings, err := l.try(ctx, as(execution.IsolationRun, spec))
	if err != nil {
		return findings, err
	}
	return findings, opened.Close()
}

func as(isolation execution.Isolation, spec execution.Spec) execution.Spec {
	spec.Isolation = isolation
	return spec
}

// decide keeps a verdict, and tells it when it is news.
func (l *Launcher) decide(ctx context.Context, spec execution.Spec, v Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := kind{spec.Image, spec.Runtime}
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

func (l *Launcher) start(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	instance, err := l.backend.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return l.ready(ctx, instance)
}

// ready waits until the supervisor of an instance is ready.
func (l *Launcher) ready(ctx context.Context, instance execution.Instance) (sandbox, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTime, fmt.Errorf("it was not ready within %v", readyTime))
	defer cancel()
	opened, err := l.open(ctx, instance)
	if err != nil {
		return nil, err
	}
	if fault := opened.PreloadFault(); fault != "" {
		l.log.WarnContext(ctx, "not every module could be imported ahead", "reason", fault)
	}
	return opened, nil
}

// try starts a sandbox that serves many runs and has programs look around in it.
func (l *Launcher) try(ctx context.Context, spec execution.Spec) (sandbox, []Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	instance, err := l.backend.Start(ctx, spec)
	if err != nil {
		return nil, nil, err
	}
	opened, err := l.ready(ctx, instance)
	if err != nil {
		if instance.Diagnostics() != "" { // the supervisor has said why
			err = fmt.Errorf("%w: %w", errRefused, err)
		}
		return nil, nil, err
	}
	findings, err := lookAround(ctx, opened)
	if err != nil {
		return nil, findings, errors.Join(err, opened.Close())
	}
	return opened, findings, nil
}

// lookAround runs the probe twice: the second one must find nothing of the first.
func lookAround(ctx context.Context, s execution.Sandbox) ([]Finding, error) {
	var findings []Finding
	for range 2 {
		result, err := s.Run(ctx, execution.Request{Code: probeSource, Timeout: probeTime}, probeLimits())
		if err != nil {
			return nil, err
		}
		if findings, err = parseFindings(result); err != nil {
			return findings, err
		}
		if err := s.Renew(ctx); err != nil {
			return findings, err
		}
	}
	return findings, nil
}

func probeLimits() execution.Limits {
	return execution.Limits{MaxTimeout: probeTime, CPUTime: probeTime, OutputBytes: 64 << 10}
}

// parseFindings reads what a probe has found. What fails is the error.
func parseFindings(result *execution.Result) ([]Finding, error) {
	if result.Failed() {
		return nil, fmt.Errorf("the probe failed (%s): %.300s", result.End.Reason, result.Stderr)
	}
	var findings []Finding
	var failing []string
	for line := range strings.Lines(result.Stdout) {
		verdict, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		findings = append(findings, Finding{Name: printable(name), Holds: verdict == "holds"})
		if verdict != "holds" {
			failing = append(failing, printable(name))
		}
	}
	switch {
	case len(findings) == 0:
		return nil, errors.New("the probe found nothing")
	case len(failing) > 0:
		return findings, fmt.Errorf("%w: does not hold: %s", errRefused, strings.Join(failing, "; "))
	}
	return findings, nil
}

// printable replaces what a terminal may act on: a sandbox can print anything.
func printable(text string) string {
	return strings.Map(func(char rune) rune {
		if unicode.IsPrint(char) {
			return char
		}
		return '?'
	}, text)
}
