package cli

import (
	"runtime/debug"

	"github.com/vivarium-sandbox/vivarium/config"
)

// ownBytes is the server's memory besides that for requests: its state of sandboxes,
// files and sessions. The program itself, which the collector does not count, and the
// collector's lag come on top; all together stay below 64 MB.
const ownBytes = 16 << 20

// limitMemory sets the collector's limit, so that garbage of past requests stays
// within the memory for requests. GOMEMLIMIT in the environment takes precedence.
func limitMemory(c config.Config, system System) {
	if set, _ := system.Lookup("GOMEMLIMIT"); set == "" {
		debug.SetMemoryLimit(int64(c.MaxInFlightMB)<<20 + ownBytes)
	}
}
