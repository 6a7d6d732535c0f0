package cli

import (
	"runtime/debug"

	"github.com/vivarium-sandbox/vivarium/config"
)

// ownBytes is what the server takes beside the memory for requests: what it knows of
// sandboxes, files and sessions. With the program itself, which the collector does not
// count, and what the collector lags behind, it is below 64 MB.
const ownBytes = 16 << 20

// limitMemory has the collector keep what is left of past requests within the memory
// for requests, unless the environment says otherwise.
func limitMemory(c config.Config, system System) {
	if set, _ := system.Lookup("GOMEMLIMIT"); set == "" {
		debug.SetMemoryLimit(int64(c.MaxInFlightMB)<<20 + ownBytes)
	}
}
