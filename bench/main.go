// Command bench compares this server with the bare Docker Engine that it
// stands on: the same program, behind the same walls, on the same machine, in
// one run.
//
// The bare side does by hand, through the Docker client, what one run takes:
// create a container, start it, wait for it, read its output, remove it. Ours
// are servers that this command builds and starts, asked over HTTP: with
// ISOLATION=run and ISOLATION=container, in containers and, with -local, without an
// engine. All must print the right answer in every single run, or the benchmark
// fails.
//
// The sides take turns, so that whatever else the machine is doing hits all:
// the ratios are worth more than the times.
//
//	go run ./bench
//	POOL_SIZE=8 go run ./bench -rounds 4 -json result.json
//	go run ./bench -files 100 -ways 200 -n 0 -clients ""
//	go run ./bench -mcp 200 -n 0 -clients ""
//	go run ./bench -local -cold 20
//	go run ./bench -image vivarium/sandbox:latest -program pandas -clients 2
//
// The settings of the server come from the environment, as always; the walls of
// the bare containers come from the same settings.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run is the whole command.
func run(ctx context.Context, args []string, lookup lookup, stdout, stderr io.Writer) error {
	opts, err := parse(args, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, opts.limit, fmt.Errorf("it took longer than %v", opts.limit))
	defer cancel()
	results, err := benchmark(ctx, opts, lookup, stderr)
	if results == nil {
		return err
	}
	return errors.Join(publish(results, opts.jsonPath, stdout), err)
}

// benchmark sets both sides up, measures them and cleans up. Results beside an
// error are whole: what failed is the cleaning up.
func benchmark(ctx context.Context, opts options, lookup lookup, progress io.Writer) (results *report, err error) {
	settings, err := config.Load(ctx, lookup.with("PYTHON_EXECUTOR_DOCKER_IMAGE", opts.image))
	if err != nil {
		return nil, err
	}
	engine, err := newBare(ctx, settings)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, engine.close(ctx)) }()
	m := &measurement{opts: opts, progress: progress, engine: engine}
	m.sides = append(m.sides, contender{name: "bare engine", side: engine, pause: opts.pause, calls: opts.calls / slowCalls})
	for i, k := range opts.kinds() {
		server, err := openServer(ctx, opts, k, engine.host(), progress)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, server.stop()) }()
		ours := newOurs(server.address)
		side := contender{name: k.String(), side: ours, pause: opts.pause, calls: opts.calls}
		if i == 0 {
			m.server, m.ours = server, ours
		}
		if k.isolation == execution.IsolationContainer {
			side.pause, side.calls = opts.refill, opts.calls/slowCalls
		}
		if err := ours.ready(ctx); err != nil {
			return nil, err
		}
		m.sides = append(m.sides, side)
	}
	results = newReport(engine, settings, opts.program)
	if err := m.all(ctx, results); err != nil {
		return nil, err
	}
	return results, nil
}

// slowCalls is how many times fewer paced calls the slow sides make.
const slowCalls = 5

// lookup reads an environment variable.
type lookup func(name string) (string, bool)

// with returns a lookup in which one variable has another value.
func (l lookup) with(name, value string) lookup {
	return func(asked string) (string, bool) {
		if asked == name {
			return value, true
		}
		return l(asked)
	}
}

// sleep waits, or returns why ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
