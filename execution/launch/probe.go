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
)

//go:embed probe.py
var probeSource string

const (
	// probeTime bounds each of a probe's programs.
	probeTime = 10 * time.Second
	// tryTime bounds the start and the probe of a sandbox for many runs, so that
	// time is left for another.
	tryTime = 25 * time.Second
)

// Finding is one thing that a probe looked at.
type Finding struct {
	Name  string
	Holds bool
}

// errRefused is the refusal of a sandbox that was there and said, or showed,
// what is wrong. Any other may have been bad luck.
var errRefused = errors.New("it cannot serve many runs")

// Probe starts a sandbox that serves many runs, and says what holds in it. The
// error says why there is none, or what does not hold.
func (l *Launcher) Probe(ctx context.Context, spec execution.Spec) ([]Finding, error) {
	opened, findings, err := l.try(ctx, withIsolation(execution.IsolationRun, spec))
	if err != nil {
		return findings, err
	}
	return findings, opened.Close()
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
	findings, err := runProbe(ctx, opened)
	if err != nil {
		return nil, findings, errors.Join(err, opened.Close())
	}
	return opened, findings, nil
}

// runProbe runs the probe twice: the second one must find nothing of the first.
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

// parseFindings reads what a probe has found. What fails is the error.
func parseFindings(result *execution.Result) ([]Finding, error) {
	if result.Failed() {
		return nil, fmt.Errorf("the probe failed (%s): %.300s", result.End.Reason, result.Stderr)
	}
	var findings []Finding
	var failing []string
	for line := range strings.Lines(result.Stdout) {
		verdict, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		findings = append(findings, Finding{Name: printableText(name), Holds: verdict == "holds"})
		if verdict != "holds" {
			failing = append(failing, printableText(name))
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

// printableText replaces what a terminal may act on: a sandbox can print anything.
func printableText(text string) string {
	return strings.Map(func(char rune) rune {
		if unicode.IsPrint(char) {
			return char
		}
		return '?'
	}, text)
}
