package pool_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

func BenchmarkLease(b *testing.B) {
	for _, size := range []int{1, 4, 16, 64} {
		for _, clients := range []int{1, 4, 16, 64} {
			b.Run(fmt.Sprintf("size=%d/clients=%d", size, clients), func(b *testing.B) {
				benchmarkLease(b, size, clients)
			})
		}
	}
}

func benchmarkLease(b *testing.B, size, clients int) {
	b.Helper()
	start := func(_ context.Context, spec execution.Spec) (execution.Sandbox, error) {
		return &sandbox{spec: spec, maker: &maker{}, done: make(chan struct{})}, nil
	}
	p, err := pool.New(start, pool.Options{Target: size, Max: 2 * size, Starts: size})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.Close(context.Background()) }()
	p.Warm(red)
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range clients {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				_, release, err := p.Lease(context.Background(), red)
				if err != nil {
					b.Error(err)
					return
				}
				release()
			}
		})
	}
	group.Wait()
}
