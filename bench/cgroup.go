package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
)

// group is a cgroup: the folders in which its CPU time and its page faults are counted.
// With version 2 they are the same.
type group struct {
	version     int // 0: there is none
	cpu, memory string
}

// errNoGroup means that CPU time and page faults of sandboxes are unknown.
var errNoGroup = errors.New("no cgroup with the controllers for CPU time and memory")

// groupOf finds the cgroup of a process, which is a number or "self".
func groupOf(process string) (group, []*mountinfo.Info, error) {
	membership, err := os.ReadFile(filepath.Join("/proc", process, "cgroup"))
	if err != nil {
		return group{}, nil, errNoGroup
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return group{}, nil, fmt.Errorf("cgroups: %w", err)
	}
	g, err := locate(string(membership), mounts)
	return g, mounts, err
}

// locate finds the folders of the cgroup that a file /proc/PID/cgroup names. Version 1 is
// preferred: where both are mounted, it has the controllers.
func locate(membership string, mounts []*mountinfo.Info) (group, error) {
	one, two := group{version: 1}, group{version: 2}
	for line := range strings.Lines(membership) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			switch controller {
			case "cpuacct":
				one.cpu = mountedAt(mounts, controller, parts[2])
			case "memory":
				one.memory = mountedAt(mounts, controller, parts[2])
			case "":
				two.cpu = mountedAt(mounts, "", parts[2])
				two.memory = two.cpu
			}
		}
	}
	switch {
	case one.cpu != "" && one.memory != "":
		return one, nil
	case two.cpu != "":
		return two, nil
	}
	return group{}, errNoGroup
}

// mountedAt returns the folder in which a cgroup of a controller is seen, or "". The
// controller of version 2 is "".
func mountedAt(mounts []*mountinfo.Info, controller, path string) string {
	for _, m := range mounts {
		if controller == "" && m.FSType != "cgroup2" ||
			controller != "" && (m.FSType != "cgroup" || !slices.Contains(strings.Split(m.VFSOptions, ","), controller)) {
			continue
		}
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(m.Root, "/"))
		if ok && (rest == "" || rest[0] == '/') {
			return filepath.Join(m.Mountpoint, rest)
		}
	}
	return ""
}

// newGroup makes the cgroup below which those of this benchmark are: below this process's
// own with version 1, and below the root with version 2, where no group may have both
// processes and groups with controllers. Its name must not begin as those of the server
// do, which removes what it takes for its own.
func newGroup() (group, error) {
	parent, mounts, err := groupOf("self")
	if err != nil {
		return group{}, err
	}
	if parent.version == 2 {
		parent.cpu = mountedAt(mounts, "", "/")
		parent.memory = parent.cpu
	}
	return parent.makeParent("bench-vivarium-" + newName())
}

func newName() string { return strings.ToLower(rand.Text()[:8]) }

// makeParent makes a group below this one, for groups and not for processes.
func (g group) makeParent(name string) (group, error) {
	below, err := g.make(name)
	if err != nil || g.version != 2 {
		return below, err
	}
	err = os.WriteFile(filepath.Join(below.cpu, "cgroup.subtree_control"), []byte("+cpu +memory +pids"), 0)
	if err != nil {
		return group{}, errors.Join(err, below.remove())
	}
	return below, nil
}

// make makes a group below this one. Where there are none, it makes none.
func (g group) make(name string) (group, error) {
	if g.version == 0 {
		return g, nil
	}
	below := g.child(name)
	for _, folder := range below.folders() {
		if err := os.Mkdir(folder, 0o755); err != nil { //nolint:gosec // G301: as the kernel's own
			return group{}, errors.Join(err, below.remove())
		}
	}
	return below, nil
}

func (g group) child(name string) group {
	return group{g.version, filepath.Join(g.cpu, name), filepath.Join(g.memory, name)}
}

// above returns the group above, if this group's name contains a container's identifier.
func (g group) above(id string) (group, bool) {
	if !strings.Contains(filepath.Base(g.cpu), id) {
		return group{}, false
	}
	return g.parent(), true
}

// parent returns the group above.
func (g group) parent() group { return group{g.version, filepath.Dir(g.cpu), filepath.Dir(g.memory)} }

func (g group) folders() []string { return slices.Compact([]string{g.cpu, g.memory}) }

// children returns the names of the groups below.
func (g group) children() []string {
	entries, _ := os.ReadDir(g.memory) // none if there is no group
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names
}

// enter returns the command line that enters the group and then becomes the given one.
func (g group) enter(line []string) []string {
	if g.version == 0 {
		return line
	}
	const script = `echo 0 >"$1" && echo 0 >"$2" && shift 2 && exec "$@"`
	return append([]string{"/bin/sh", "-c", script, "sh", filepath.Join(g.cpu, "cgroup.procs"), filepath.Join(g.memory, "cgroup.procs")}, line...)
}

// remove removes the group and those below when the last of their processes has gone. The
// kernel may refuse it for some time after that.
func (g group) remove() error {
	if g.version == 0 {
		return nil
	}
	const patience, pause = 5 * time.Second, 10 * time.Millisecond
	var failures []error
	for _, folder := range g.folders() {
		err := removeTree(folder)
		for began := time.Now(); err != nil && time.Since(began) < patience; err = removeTree(folder) {
			time.Sleep(pause)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("cgroup: %w", err))
		}
	}
	return errors.Join(failures...)
}

func removeTree(folder string) error {
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		if entry.IsDir() {
			_ = removeTree(filepath.Join(folder, entry.Name())) // or else the folder's removal fails
		}
	}
	if err := os.Remove(folder); !errors.Is(err, fs.ErrNotExist) { //nolint:gosec // G703: a folder of ours
		return err
	}
	return nil
}

// counts returns what the group's processes have used, those below and those that have
// ended included.
func (g group) counts() counts {
	if g.version == 0 {
		return unknown()
	}
	used := unknown()
	if g.version == 1 {
		if ns, ok := readNumber(filepath.Join(g.cpu, "cpuacct.usage"), ""); ok {
			used.cpu = ns / 1e9
		}
	} else if us, ok := readNumber(filepath.Join(g.cpu, "cpu.stat"), "usage_usec"); ok {
		used.cpu = us / 1e6
	}
	// Version 1 has the sum with groups below under a name of its own.
	for _, key := range []string{"total_pgfault", "pgfault"} {
		if faults, ok := readNumber(filepath.Join(g.memory, "memory.stat"), key); ok {
			used.faults = faults
			break
		}
	}
	return used
}

// memoryMB returns what the group's processes occupy, without files that are only cached.
// false is unknown.
func (g group) memoryMB() (float64, bool) {
	usage, cache := "memory.usage_in_bytes", "total_inactive_file"
	if g.version == 2 {
		usage, cache = "memory.current", "inactive_file"
	}
	all, ok := readNumber(filepath.Join(g.memory, usage), "")
	inactive, found := readNumber(filepath.Join(g.memory, "memory.stat"), cache)
	return (all - min(inactive, all)) / (1 << 20), ok && found
}

// meanMemoryMB returns the mean of the groups below that are wanted, in MB. NaN is unknown.
func (g group) meanMemoryMB(wanted func(name string) bool) float64 {
	sum, n := 0.0, 0.0
	for _, name := range g.children() {
		if !wanted(name) {
			continue
		}
		if mb, ok := g.child(name).memoryMB(); ok {
			sum, n = sum+mb, n+1
		}
	}
	return sum / n
}

// readNumber reads a number from a file: the one after a key, or the file's only one if
// the key is "".
func readNumber(file, key string) (float64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	return parseNumber(string(text), key)
}

func parseNumber(text, key string) (float64, bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if key != "" && (len(fields) < 2 || fields[0] != key) {
			continue
		}
		if len(fields) == 0 {
			return 0, false
		}
		n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		return n, err == nil
	}
	return 0, false
}
