package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
)

const (
	// mostDefaultMB is MEMORY_LIMIT_MB where it is not set: on a machine with at least
	// machineParts times as much.
	mostDefaultMB = 1024
	machineParts  = 4
	// leastMemoryMB is the least MEMORY_LIMIT_MB, on a machine of any size.
	leastMemoryMB = 32
	// leastTmpMB is how large /tmp is in a sandbox that has little memory.
	leastTmpMB = 64
	// mostDefaultPool bounds POOL_SIZE where it is not set: idle sandboxes take memory.
	mostDefaultPool = 16
	// sandboxesPerCore, but at least leastDefaultSandboxes, is MAX_SANDBOXES where it is
	// not set. It is more than cores can serve, because programs may wait for something.
	sandboxesPerCore      = 4
	leastDefaultSandboxes = 16
)

// Machine is the machine that sandboxes run on.
type Machine struct {
	Memory int64 // in bytes; zero means that it is not known
	Cores  int   // zero means that it is not known
}

// largestMachine returns a machine on which no default is lower than on another. With its
// defaults, Load finds the settings that fit no machine.
func largestMachine() Machine { return Machine{Memory: math.MaxInt64, Cores: math.MaxInt16} }

// givenNames returns the variables that are set. One that is empty counts as unset.
func givenNames(lookup func(name string) (string, bool)) map[string]bool {
	set := make(map[string]bool)
	for _, s := range Settings() {
		value, _ := lookup(s.Name)
		set[s.Name] = value != ""
	}
	return set
}

// ForMachine returns the settings for sandboxes on a machine. Those that are not set and
// depend on it follow it. The error names those that are set and do not fit.
func (c Config) ForMachine(m Machine) (Config, error) {
	c.derive(m)
	return c, errors.Join(c.keepBounds()...)
}

// WithoutPool returns settings with which no sandbox is kept warm.
func (c Config) WithoutPool() Config {
	c.given = maps.Clone(c.given)
	c.given["POOL_SIZE"], c.PoolSize = true, 0
	return c
}

// AtWork returns how many sandboxes can use the cores of the machine at once: with more, each
// is slower. One of them may be cleaned meanwhile. Where the cores are not known, as in a cluster,
// whose sandboxes are on other machines, all can.
func (c Config) AtWork() int {
	if c.cores == 0 {
		return c.MaxSandboxes
	}
	return int(math.Ceil(float64(c.cores)/min(1, c.CPULimit))) + 1
}

// derive sets the settings that are not set and follow others, or the machine. What the files
// of a sandbox take is memory, so their limits are parts of it. The time of a processor
// follows each request's timeout: it stays 0.
func (c *Config) derive(m Machine) {
	follow := func(name string, value *int, followed int) {
		if !c.given[name] {
			*value = followed
		}
	}
	const half, quarter = 2, 4
	memoryMB := mostDefaultMB
	if m.Memory > 0 {
		memoryMB = int(min(mostDefaultMB, m.Memory>>20/machineParts))
	}
	c.cores = m.Cores
	cores := max(1, c.cores)
	follow("MAX_SANDBOXES", &c.MaxSandboxes, max(leastDefaultSandboxes, sandboxesPerCore*cores))
	follow("POOL_SIZE", &c.PoolSize, min(mostDefaultPool, cores+1))
	follow("MEMORY_LIMIT_MB", &c.MemoryLimitMB, max(leastMemoryMB, memoryMB))
	_ = c.keepBounds() // others follow what is within its bounds; the caller reports faults
	follow("WORKSPACE_LIMIT_MB", &c.WorkspaceLimitMB, max(c.MemoryLimitMB/half, c.MaxFileSizeMB))
	follow("TMP_LIMIT_MB", &c.TmpLimitMB, max(c.MemoryLimitMB/quarter, leastTmpMB))
	_ = c.keepBounds()
	follow("MAX_RESULT_MB", &c.MaxResultMB, max(c.WorkspaceLimitMB, c.MaxFileSizeMB))
}

// keepBounds finds settings that exceed the one that bounds them. A default is lowered
// instead, so that users can lower one setting without setting another.
func (c *Config) keepBounds() []error {
	var faults []error
	fields, settings := reflect.ValueOf(c).Elem(), byName()
	for _, s := range Settings() {
		name, part := s.bound()
		if name == "" {
			continue
		}
		value, bound := fields.FieldByIndex(s.field.Index), fields.FieldByIndex(settings[name].field.Index).Int()
		switch {
		case value.Int() <= bound/part:
		case !c.given[s.Name]:
			value.SetInt(bound / part)
		case part > 1:
			faults = append(faults, fmt.Errorf("%s is %d: must be at most %s / %d, which is %d%s", s.Name, value.Int(), name, part, bound/part, c.unless(name)))
		default:
			faults = append(faults, fmt.Errorf("%s is %d: must be at most %s, which is %d%s", s.Name, value.Int(), name, bound, c.unless(name)))
		}
	}
	return faults
}

// unless returns what an error adds to the value of a setting that is not set, or "".
func (c Config) unless(name string) string {
	if c.given[name] {
		return ""
	}
	return " unless it is set"
}
