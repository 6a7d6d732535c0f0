package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// command is a command line that runs a program and ends.
type command struct {
	name        string
	line        func(p program) []string
	environment []string
}

// cold measures commands that run the program and end, in turns: ours without an
// engine and with one, beside the engine's own and the interpreter without a sandbox.
func (m *measurement) cold(ctx context.Context) ([]sideResult, error) {
	m.say("cold: %d commands each", m.opts.cold)
	ours := func(p program) []string { return []string{m.server.binary, "exec", p.code} }
	commands := []command{
		{"docker run", func(p program) []string {
			return []string{"docker", "run", "--rm", "--network=none", m.opts.image, "python3", "-c", p.code}
		}, []string{"DOCKER_HOST=" + m.engine.host()}},
		{"exec, docker", ours, []string{
			"EXECUTOR_BACKEND=" + dockerBackend, "DOCKER_HOST=" + m.engine.host(), "PYTHON_EXECUTOR_DOCKER_IMAGE=" + m.opts.image,
		}},
		{"exec, local", ours, []string{"EXECUTOR_BACKEND=" + localBackend}},
		{"python3, no sandbox", func(p program) []string { return []string{"/usr/bin/python3", "-c", p.code} }, nil},
	}
	tallies := make([]tally, len(commands))
	for range m.opts.cold {
		for i, c := range commands {
			took, err := c.run(ctx, m.opts.program)
			if err != nil {
				return nil, err
			}
			tallies[i].timings = append(tallies[i].timings, timing{answer: took, whole: took})
		}
	}
	var results []sideResult
	first := tallies[0].summary()
	for i, c := range commands {
		s := tallies[i].summary()
		results = append(results, sideResult{Side: c.name, summary: s, Faster: ratio(first.P50, s.P50)})
	}
	return results, nil
}

// run runs the command and gives the time until its end.
func (c command) run(ctx context.Context, p program) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	line := c.line(p)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), c.environment...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if cmd.ProcessState == nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	if err := p.check(cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()); err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	return took, nil
}
