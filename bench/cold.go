package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// command is a command that runs a program and ends.
type command struct {
	launcher *launcher
	line     []string // the program's code follows
}

// run runs the command. What counts is the time until its end.
func (c *command) run(ctx context.Context, p program) (timing, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	cmd, g, err := c.launcher.command(ctx, append(slices.Clip(c.line), p.code)...)
	if err != nil {
		return timing{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return timing{}, errors.Join(fmt.Errorf("%s: %w", c.line[0], err), g.remove())
	}
	err = awaitEnd(cmd.Process.Pid)
	t := timing{took: time.Since(began), server: processCounts(cmd.Process.Pid)}
	err = errors.Join(err, cmd.Wait(), g.remove())
	if !cmd.ProcessState.Exited() {
		return timing{}, fmt.Errorf("%s: %w", c.line[0], err)
	}
	return t, p.check(cmd.ProcessState.ExitCode(), stdout.String(), stderr.String())
}

// firstOverPipe starts a server of MCP over stdio. What counts is the time until the
// answer to the first call.
type firstOverPipe struct{ launcher *launcher }

func (f *firstOverPipe) run(ctx context.Context, p program) (timing, error) {
	began := time.Now()
	pipe, err := f.launcher.openPipe(ctx, p)
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	t := timing{took: took, server: processCounts(pipe.cmd.Process.Pid)}
	return t, pipe.close()
}

// firstOverHTTP starts a server. What counts is the time until the answer to the first
// request, which is sent as soon as the server listens.
type firstOverHTTP struct{ launcher *launcher }

func (f *firstOverHTTP) run(ctx context.Context, p program) (timing, error) {
	began := time.Now()
	s, err := f.launcher.serve(ctx)
	if err != nil {
		return timing{}, err
	}
	_, err = s.ours.plain().run(ctx, p)
	t := timing{took: time.Since(began), server: processCounts(s.meter.pid)}
	return t, errors.Join(err, s.stop())
}
