package launch

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

// probeSource is the program that makes the checks. Each of its checks becomes a [Finding].
//
//go:embed probe.py
var probeSource string

const (
	// probeTime bounds each run of a probe's program.
	probeTime = 10 * time.Second
	// tryTime bounds the start and the probe of a sandbox for many runs, so that the
	// caller has time left for a sandbox of the other isolation.
	tryTime = 25 * time.Second
)

// Finding is the outcome of one check in a sandbox.
type Finding struct {
	// Name is what should hold.
	Name string
	// Holds reports whether it does.
	Holds bool
}

// errRefused marks a refusal that is not temporary: the sandbox started, and its supervisor
// or a failed check showed the reason.
var errRefused = errors.New("the sandbox cannot serve many runs")

// Probe starts a sandbox for many runs, makes the checks in it and closes it. It returns the
// findings so far, and an error if the sandbox does not start or a check fails. It neither
// uses nor changes the verdict.
func (l *Launcher) Probe(ctx context.Context, spec execution.Spec) ([]Finding, error) {
	opened, _, findings, err := l.try(ctx, withIsolation(execution.IsolationRun, spec))
	if err != nil {
		return findings, err
	}
	return findings, opened.Close()
}

// try starts a sandbox for many runs and makes the checks in it. The class is that of its
// machine, if it was started.
func (l *Launcher) try(ctx context.Context, spec execution.Spec) (_ sandbox, class string, _ []Finding, _ error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	instance, err := l.backend.Start(ctx, spec)
	if err != nil {
		return nil, "", nil, err
	}
	class = classOf(instance)
	opened, err := l.ready(ctx, instance)
	if err != nil {
		if errors.Is(err, runner.ErrExplained) {
			err = fmt.Errorf("%w: %w", errRefused, err)
		}
		return nil, class, nil, err
	}
	findings, err := runProbe(ctx, opened)
	if err != nil {
		return nil, class, findings, errors.Join(err, opened.Close())
	}
	return opened, class, findings, nil
}

// runProbe runs the probe twice and returns the findings of the last run. The second run
// must not find any trace of the first.
func runProbe(ctx context.Context, s execution.Sandbox) ([]Finding, error) {
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

// parseFindings returns the findings in a probe's output: lines of "holds" or "fails", a tab
// and the name. If checks failed, it also returns an error that wraps errRefused.
func parseFindings(result *execution.Result) ([]Finding, error) {
	if result.Failed() {
		return nil, fmt.Errorf("the probe failed (%s): %.300s", result.End.Reason, result.Stderr)
	}
	var findings []Finding
	var failed []string
	for line := range strings.Lines(result.Stdout) {
		outcome, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		finding := Finding{Name: printableText(name), Holds: outcome == "holds"}
		findings = append(findings, finding)
		if !finding.Holds {
			failed = append(failed, finding.Name)
		}
	}
	switch {
	case len(findings) == 0:
		return nil, errors.New("the probe printed no findings")
	case len(failed) > 0:
		return findings, fmt.Errorf("%w: failed checks: %s", errRefused, strings.Join(failed, "; "))
	}
	return findings, nil
}

// printableText replaces characters that a terminal could act on: a sandbox can print
// anything.
func printableText(text string) string {
	return strings.Map(func(char rune) rune {
		if unicode.IsPrint(char) {
			return char
		}
		return '?'
	}, text)
}
