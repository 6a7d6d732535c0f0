package local

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineMemory returns how many bytes of memory this process and its cgroups may take: those
// of the machine, or fewer where a cgroup has a limit.
func machineMemory() (int64, error) {
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err != nil {
		return 0, err
	}
	memory := int64(min(uint64(machine.Totalram)*uint64(machine.Unit), math.MaxInt64)) //nolint:unconvert // the types differ by machine
	return min(memory, groupMemory()), nil
}

// groupMemory returns the lowest limit of the cgroups that this process is in.
func groupMemory() int64 {
	membership, mounts, err := readMembership()
	if err != nil {
		return math.MaxInt64
	}
	least := int64(math.MaxInt64)
	if folder, ok := version2(membership, mounts); ok {
		least = leastLimit(folder, "memory.max")
	}
	if folder := version1(membership, mounts).folders[memoryController]; folder != "" {
		least = min(least, leastLimit(folder, "memory.limit_in_bytes"))
	}
	return least
}

// leastLimit returns the lowest limit of a cgroup and of those above it, as far as they are
// seen. Each has it in the same file.
func leastLimit(folder, file string) int64 {
	least := int64(math.MaxInt64)
	for ; folder != "/"; folder = filepath.Dir(folder) {
		text, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			break // the root of version 2 has none
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit > 0 { // "max" is none
			least = min(least, limit)
		}
	}
	return least
}
