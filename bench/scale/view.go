package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
)

// view is what a server has of the pods.
type view struct {
	backend *kubernetes.Backend
	spec    execution.Spec
}

// newView has the backend list the pods, and reports what that takes.
func newView(ctx context.Context, pods int, settings config.Config, pool *cluster.Pool, say func(format string, args ...any)) (*view, error) {
	sandboxes := execution.Settings{
		Isolation: execution.IsolationRun, Network: settings.Network,
		MemoryBytes: int64(settings.MemoryLimitMB) << 20, CPUs: settings.CPULimit, Processes: int64(settings.PidsLimit),
		WorkspaceBytes: int64(settings.WorkspaceLimitMB) << 20, TempBytes: int64(settings.TmpLimitMB) << 20,
	}
	backend, err := kubernetes.New(kubernetes.Options{
		Kubeconfig: pool.Kubeconfig, Namespace: pool.Namespace, Pool: pool.Name, Port: settings.KubernetesLinkPort, Settings: sandboxes, Dial: nowhere,
		UserAgent: "vivarium-scale",
	})
	if err != nil {
		return nil, err
	}
	before, cpu := heap(), processorTime()
	peak := watchPeak()
	began := time.Now()
	if err := check(ctx, backend); err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	took, cpu := time.Since(began), processorTime()-cpu
	highest := peak()
	after := heap()
	say("first list: %.2f s, %.2f s of CPU time; heap %.1f MB more, %.2f KB a pod; at its highest %.1f MB more",
		took.Seconds(), cpu.Seconds(), mb(after-before), float64(after-before)/1024/float64(pods), mb(highest-before))
	v := &view{backend: backend}
	digest, err := backend.Resolve(ctx, "")
	if err != nil {
		digest = "" // where there is no blank
	}
	v.spec = execution.Spec{Image: digest, Settings: sandboxes}
	return v, nil
}

// check waits until the first list is there. The backend's own bound may be too low for so many pods:
// then it answers that there is no list yet, and goes on.
func check(ctx context.Context, backend *kubernetes.Backend) error {
	const listTime = 5 * time.Minute
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	for {
		err := backend.Check(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// nowhere is a connection to a pod that reads what it is sent.
func nowhere(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	return ours, nil
}

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // also what finalizers have let go
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func mb(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// watchPeak returns a function that returns how many bytes were in use at most since.
func watchPeak() func() int64 {
	const pause = 5 * time.Millisecond
	stop, highest := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		for {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			most = max(most, int64(stats.HeapAlloc))
			select {
			case <-time.After(pause):
			case <-stop:
				highest <- most
				return
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-highest
	}
}

// processorTime returns the CPU time of this process.
func processorTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // never fails
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// count reports what it takes to count sessions, as each new one does.
func (v *view) count(ctx context.Context, say func(format string, args ...any)) error {
	const times = 100
	began := processorTime()
	for range times {
		if _, _, err := v.backend.Count(ctx, execution.Owner("nobody"), nil); err != nil {
			return err
		}
	}
	say("counting sessions: %.0f us of CPU time", float64((processorTime()-began).Microseconds())/times)
	return nil
}

// claim has claims under way for a time, or until nothing is left to claim.
func (v *view) claim(ctx context.Context, claimants int, each time.Duration, say func(format string, args ...any)) error {
	var mu sync.Mutex
	var times []time.Duration
	claimCtx, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	group, began, cpu := errgroup.Group{}, time.Now(), processorTime()
	for range claimants {
		group.Go(func() error {
			for {
				start := time.Now()
				instance, err := v.backend.Start(claimCtx, v.spec)
				if claimCtx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					return fmt.Errorf("claim: %w", err)
				}
				instance.Detach()
				mu.Lock()
				times = append(times, time.Since(start))
				mu.Unlock()
			}
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	took, used := time.Since(began), processorTime()-cpu
	slices.Sort(times)
	if len(times) == 0 {
		return errors.New("no pod was claimed")
	}
	at := func(percent int) float64 { return float64(times[(len(times)-1)*percent/100].Microseconds()) / 1000 }
	say("claims, %d at once: %.0f a second, p50 %.1f ms, p99 %.1f ms, %.2f ms of CPU time each",
		claimants, float64(len(times))/took.Seconds(), at(50), at(99), float64(used.Microseconds())/1000/float64(len(times)))
	return nil
}
