package cli

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/vivarium-sandbox/vivarium/config"
)

// The collector's limit follows the memory for requests, unless GOMEMLIMIT is set.
func TestLimitMemory(t *testing.T) {
	t.Cleanup(func() { debug.SetMemoryLimit(math.MaxInt64) })
	for set, want := range map[string]int64{"": 100<<20 + ownBytes, "1GiB": math.MaxInt64} {
		debug.SetMemoryLimit(math.MaxInt64)
		limitMemory(config.Config{MaxInFlightMB: 100}, System{Lookup: func(name string) (string, bool) { return set, name == "GOMEMLIMIT" && set != "" }})
		if got := debug.SetMemoryLimit(-1); got != want {
			t.Errorf("with GOMEMLIMIT=%s the limit is %d, not %d", set, got, want)
		}
	}
}
