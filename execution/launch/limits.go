package launch

import (
	"context"
	_ "embed"
	"errors"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// limitsSource is the program that makes the checks of limits. Each becomes a [Finding].
//
//go:embed limits.py
var limitsSource string

// hoardSource is a program that opens more sockets than a sandbox may have. It uses several
// processes, because without cgroups the limit on open files of one process is too low.
const hoardSource = `import os, socket, time
for _ in range(8):
    if os.fork() == 0:
        kept = []
        try:
            while True: kept.append(socket.socket())
        except OSError: time.sleep(60)
time.sleep(60)`

// Limits starts sandboxes that serve one run, and checks the limits in them that no cgroup
// enforces: on memory that the kernel keeps for programs, and on its work for them. A check
// that fails is a finding and not an error.
func (l *Launcher) Limits(ctx context.Context, spec execution.Spec) ([]Finding, error) {
	spec = withIsolation(execution.IsolationContainer, spec)
	result, err := l.runOnce(ctx, spec, limitsSource)
	if err != nil {
		return nil, err
	}
	findings, err := parseFindings(result)
	if err != nil && !errors.Is(err, errRefused) {
		return findings, err
	}
	result, err = l.runOnce(ctx, spec, hoardSource)
	if err != nil {
		return findings, err
	}
	ended := Finding{Name: "a program with too many sockets is ended", Holds: result.End.Reason == execution.MemoryLimit}
	return append(findings, ended), nil
}

// runOnce runs a program in a sandbox of its own.
func (l *Launcher) runOnce(ctx context.Context, spec execution.Spec, code string) (*execution.Result, error) {
	launched, err := l.Launch(ctx, spec)
	if err != nil {
		return nil, err
	}
	result, err := launched.Run(ctx, execution.Request{Code: code, Timeout: probeTime}, probeLimits())
	return result, errors.Join(err, launched.Close())
}
