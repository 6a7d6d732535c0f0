// Command bench measures this server beside another version of it, or beside the bare
// Docker Engine or a cluster without a server: the same program, with the same limits, on the same machine, in one run.
//
// The sides take turns in each of several rounds, so that whatever else the machine does
// affects both. For each figure it prints the medians of the rounds, the median of the
// rounds' ratios, and an interval that contains the true median. Ratios are worth more
// than times. All sides must print the right answer in every run, or the benchmark ends.
//
// It also prints what each run costs: the CPU time and the page faults of the server and
// of its sandboxes, from cgroups and the kernel's clock of the server's process. What an
// engine itself uses, such as dockerd and the shims of its containers, is only in the CPU time
// of the machine, with whatever else it does.
// Where no cgroup can be made, which takes root, the parts that need one are unknown.
//
// One command judges a change:
//
//	git worktree add /tmp/before HEAD^ && (cd /tmp/before && CGO_ENABLED=0 go build -o /tmp/vivarium-before .)
//	go run ./bench -against /tmp/vivarium-before
//
// Others:
//
//	go run ./bench -against /tmp/vivarium-before -local -root /srv/data,/srv/slim
//	go run ./bench -against /tmp/vivarium-before -cases 'paced|clients' -rounds 12 -stages
//	POOL_SIZE=8 go run ./bench -image vivarium/sandbox:latest -program pandas -json result.json
//
// With -kubernetes, sandboxes are pods of a cluster whose only node is best this machine. Without
// -against, the other side makes a pod for each run, and copies the program in and files out by
// commands in it:
//
//	go run ./bench -kubernetes KUBECONFIG -image vivarium/sandbox:slim -against docker -each 10s
//	go run ./bench -kubernetes KUBECONFIG -image vivarium/sandbox:slim -clients 1,4 -burst '' -each 20s -cases ^print
//
// The folders of -root are unpacked images: docker export $(docker create IMAGE) | tar -x -C FOLDER
//
// The settings of all servers come from the environment, as always. The limits of the bare
// engine's containers come from the same settings.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
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

// benchmark measures all places. Results beside an error are what was measured before it.
func benchmark(ctx context.Context, opts options, lookup lookup, progress io.Writer) (results *report, err error) {
	if opts.binary == "" {
		folder, err := os.MkdirTemp("", "vivarium-bench-")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(folder) }()
		opts.binary = filepath.Join(folder, "vivarium")
		if err := build(ctx, opts.binary, opts.kubeconfig != "", progress); err != nil {
			return nil, err
		}
	}
	w := &workbench{opts: opts, lookup: lookup, progress: progress}
	results, host := newReport(opts, lookup), ""
	if opts.kubeconfig != "" {
		if w.cluster, err = cluster.Connect(opts.kubeconfig); err != nil {
			return nil, err
		}
		if results.Machine.Cluster, err = w.cluster.Version(ctx); err != nil {
			return nil, err
		}
	}
	if opts.needsEngine() {
		if w.engine, results.Machine.Engine, err = connect(ctx); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, w.engine.Close()) }()
		host = w.engine.DaemonHost()
	}
	if w.groups, err = newGroup(); err != nil {
		_, _ = fmt.Fprintf(progress, "CPU time and page faults of sandboxes are unknown: %v\n", err)
	}
	defer func() { err = errors.Join(err, w.groups.remove()) }()
	for _, p := range opts.places(host) {
		measured, err := w.measure(ctx, p)
		results.Places = append(results.Places, measured)
		if err != nil {
			return results, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return results, nil
}

// lookup reads an environment variable.
type lookup func(name string) (string, bool)

// with returns a lookup in which some variables, each NAME=VALUE, have other values.
func (l lookup) with(environment []string) lookup {
	return func(asked string) (string, bool) {
		for _, entry := range environment {
			if name, value, _ := strings.Cut(entry, "="); name == asked {
				return value, true
			}
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
