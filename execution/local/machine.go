package local

import (
	"context"
	"runtime"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Machine returns what sandboxes may use together: see [Machine].
func (b *Backend) Machine(context.Context) (execution.Machine, error) { return Machine(), nil }

// Machine returns what this process and its cgroups may use. Memory that is not known is zero.
// Go's scheduler has counted the cores: a cgroup's quota may allow fewer than there are.
func Machine() execution.Machine {
	memory, _ := machineMemory()
	return execution.Machine{Memory: memory, Cores: runtime.GOMAXPROCS(0)}
}
