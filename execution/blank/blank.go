// Package blank defines what the PID 1 of a pod becomes when a server claims the pod. Servers send that, and a pod has it
// ahead, so that most of it is done when a server comes. Both compute it from the same settings.
package blank

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/link"
	"github.com/vivarium-sandbox/vivarium/execution/seccomp"
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// networkOfPod is the network of a sandbox that has that of its pod.
const networkOfPod = "pod"

// Maker makes what pods become.
type Maker struct {
	command supervisor.Command
	filters map[string][]byte // seccomp filters, by GOARCH
}

// NewMaker assembles the filters and reads the supervisor's modules.
func NewMaker() (Maker, error) {
	command, err := supervisor.NewCommand()
	if err != nil {
		return Maker{}, err
	}
	filters, err := seccomp.NodeFilters(true)
	return Maker{command, filters}, err
}

// Boot returns what the PID 1 of a blank becomes, in a pod with these facts. It is never bare: a blank mostly has had the
// time to preload modules.
func (m Maker) Boot(spec execution.Spec, facts link.Facts) (link.Boot, error) {
	filter, err := m.filter(facts)
	if err != nil {
		return link.Boot{}, err
	}
	spec.Bare = false
	return link.Boot{
		Generation: 1, Texts: m.command.Boot(spec), Environment: environment(spec),
		OwnNetwork: spec.Network != networkOfPod, Lasting: spec.Isolation == execution.IsolationSession,
		Zygotes: spec.Isolation == execution.IsolationRun, Filter: filter, Limits: processLimits(spec),
	}, nil
}

// Ahead returns what servers with these settings send to blanks.
func (m Maker) Ahead(settings execution.Settings, facts link.Facts) ([]link.Boot, error) {
	kinds := []execution.Isolation{execution.IsolationRun, execution.IsolationSession}
	if settings.Isolation == execution.IsolationContainer {
		kinds[0] = settings.Isolation
	}
	var all []link.Boot
	for _, settings.Isolation = range kinds {
		boot, err := m.Boot(execution.Spec{Settings: settings}, facts)
		if err != nil {
			return nil, err
		}
		all = append(all, boot)
	}
	return all, nil
}

// filter returns the seccomp filter of a pod that has none of its runtime.
func (m Maker) filter(facts link.Facts) ([]byte, error) {
	if facts.Seccomp {
		return nil, nil
	}
	if filter := m.filters[facts.Arch]; len(filter) > 0 {
		return filter, nil
	}
	return nil, fmt.Errorf("its runtime filters no system calls, and this server has no filter for %q", facts.Arch)
}

// leastPtys is how many pseudo-terminals the programs of a sandbox may always have open. A pod has
// them in any case. All containers of a node share a few thousand.
const leastPtys = 16

// environment returns the variables of PID 1 and of programs.
func environment(spec execution.Spec) []string {
	spec.Ptys = max(spec.Ptys, leastPtys)
	return slices.Concat(supervisor.Environment(), hardening.Environment(spec), []string{
		"HOSTNAME=" + hardening.Hostname,
		// At its limit the cgroup of a pod may end PID 1 too. The supervisor ends programs before that.
		"VIVARIUM_WATCH_MEMORY=" + strconv.FormatInt(spec.MemoryBytes, 10),
	})
}

// Numbers of resources, as Linux has them on each machine that it runs pods on (getrlimit(2)). The
// server may be another system.
const (
	limitData           = 2
	limitCore           = 4
	limitProcesses      = 6
	limitOpenFiles      = 7
	limitLockedBytes    = 8
	limitPendingSignals = 11
	limitMessageQueues  = 12
	smallestCore        = 1 // where dumps go to a program, 0 does not keep them from it: core(5)
)

// processLimits returns the limits that a pod's specification cannot express. The first bounds the
// private memory that a process may write to, also where it has not used it yet: so no single process
// takes memory faster than the supervisor looks, and a session keeps its interpreter. With the
// libraries of the data image it has 20 to 50 MB more of it than it uses.
func processLimits(spec execution.Spec) []link.Limit {
	return []link.Limit{
		{Resource: limitData, Most: uint64(spec.MemoryBytes)},
		{Resource: limitCore, Most: smallestCore},
		{Resource: limitProcesses, Most: uint64(hardening.Processes(spec))},
		{Resource: limitOpenFiles, Most: hardening.OpenFiles},
		{Resource: limitLockedBytes, Most: hardening.LockedBytes},
		{Resource: limitPendingSignals, Most: hardening.Signals},
		{Resource: limitMessageQueues, Most: 0},
	}
}
