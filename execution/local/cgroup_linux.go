package local

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/local/inside"
)

// cpuPeriod is the period of a quota of CPU time, in microseconds. Container engines
// use the same.
const cpuPeriod = 100_000

// try makes a group and takes it away again.
func (c controllers) try(server string) error {
	g, err := c.make(server+"."+newID(), execution.Settings{MemoryBytes: 1 << 30, CPUs: 1})
	if err != nil {
		return fmt.Errorf("this server may not make cgroups (%w)", err)
	}
	if err := g.bound(10); err != nil {
		return errors.Join(fmt.Errorf("this server may not limit processes (%w)", err), g.remove())
	}
	return g.remove()
}

// group is a sandbox's cgroup: a folder a controller.
type group struct {
	version int
	folders map[string]string
}

// make makes a group with the limits of a sandbox, except that of processes: see bound.
func (c controllers) make(name string, s execution.Settings) (group, error) {
	g := group{version: c.version, folders: make(map[string]string)}
	for controller, parent := range c.folders {
		folder := filepath.Join(parent, groupPrefix+name)
		// The supervisor, another user, reads its counters.
		if err := os.Mkdir(folder, 0o755); err != nil && (c.version == 1 || !errors.Is(err, fs.ErrExist)) {
			return g, errors.Join(err, g.remove())
		}
		g.folders[controller] = folder
	}
	for _, l := range g.limits(s) {
		err := os.WriteFile(l.file, []byte(l.value), 0)
		if err != nil && (!l.optional || !errors.Is(err, fs.ErrNotExist)) {
			return g, errors.Join(err, g.remove())
		}
	}
	return g, nil
}

// bound limits how many processes the group may have. It is called when the supervisor
// runs: the process that becomes it may have more threads than the limit.
func (g group) bound(processes int64) error {
	folder := g.folders[pidsController]
	if folder == "" {
		return nil // there are no cgroups
	}
	return os.WriteFile(filepath.Join(folder, "pids.max"), []byte(strconv.FormatInt(processes, 10)), 0o600)
}

// limit is a file of the kernel's, and what to write to it.
type limit struct {
	file, value string
	optional    bool // not every kernel has it
}

func (g group) limits(s execution.Settings) []limit {
	var all []limit
	add := func(controller, file, value string, optional bool) {
		if folder := g.folders[controller]; folder != "" {
			all = append(all, limit{filepath.Join(folder, file), value, optional})
		}
	}
	memory := strconv.FormatInt(s.MemoryBytes, 10)
	quota := strconv.FormatInt(int64(math.Round(s.CPUs*cpuPeriod)), 10)
	if g.version == 1 {
		add(memoryController, "memory.limit_in_bytes", memory, false)
		add(memoryController, "memory.memsw.limit_in_bytes", memory, true) // with swap
		add(memoryController, "memory.kmem.tcp.limit_in_bytes", strconv.FormatInt(hardening.SocketBytes(s.MemoryBytes), 10), true)
		add(cpuController, "cpu.cfs_period_us", strconv.Itoa(cpuPeriod), true)
		add(cpuController, "cpu.cfs_quota_us", quota, true)
		return all
	}
	add(memoryController, "memory.max", memory, false)
	add(memoryController, "memory.swap.max", "0", true)
	add(cpuController, "cpu.max", quota+" "+strconv.Itoa(cpuPeriod), true)
	return all
}

// add puts a process into the group.
func (g group) add(pid int) error {
	for _, folder := range g.unique() {
		if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// trees returns the folders of the group that the supervisor reads, and where it expects
// them.
func (g group) trees() []inside.Tree {
	if g.version == 2 {
		return []inside.Tree{{From: g.folders[memoryController], To: "/sys/fs/cgroup", NoExec: true}}
	}
	var all []inside.Tree
	for controller, folder := range g.folders {
		all = append(all, inside.Tree{From: folder, To: "/sys/fs/cgroup/" + controller, NoExec: true})
	}
	return all
}

// remove removes the group when the last of its processes has gone.
func (g group) remove() error {
	const patience = time.Second
	var failures []error
	for _, folder := range g.unique() {
		err := unix.Rmdir(folder)
		for began := time.Now(); errors.Is(err, unix.EBUSY) && time.Since(began) < patience; {
			time.Sleep(5 * time.Millisecond) // what was killed is gone a little later
			err = unix.Rmdir(folder)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			failures = append(failures, fmt.Errorf("%s: %w", folder, err))
		}
	}
	return errors.Join(failures...)
}

// empty reports whether no process is in the group: a session may outlive its server.
func (g group) empty() bool {
	for _, folder := range g.unique() {
		inside, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
		if err == nil && len(inside) > 0 {
			return false
		}
	}
	return true
}

func (g group) unique() []string {
	var all []string
	for _, folder := range g.folders {
		if !slices.Contains(all, folder) {
			all = append(all, folder)
		}
	}
	return all
}

// strayAge is when a group without processes cannot be one that is being made: see makeTime.
const strayAge = time.Minute

// strays lists the groups without processes whose server is gone, which their names tell,
// and those that a living server has left: the kernel may refuse to remove a group for some
// time after its last process.
func (c controllers) strays(alive func(server string) bool) []group {
	var all []group
	for controller, parent := range c.folders {
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			name, ours := strings.CutPrefix(entry.Name(), groupPrefix)
			server, _, _ := strings.Cut(name, ".")
			g := group{c.version, map[string]string{controller: filepath.Join(parent, entry.Name())}}
			left := !alive(server) || isOld(g.folders[controller], strayAge)
			if ours && entry.IsDir() && left && g.empty() {
				all = append(all, g)
			}
		}
	}
	return all
}
