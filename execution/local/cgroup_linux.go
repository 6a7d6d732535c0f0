package local

import (
	"context"
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
)

// groupPrefix is how the names of our cgroups begin.
const groupPrefix = "vivarium-"

// cpuPeriod is the time for which a quota of CPU time counts, in microseconds,
// as container engines have it.
const cpuPeriod = 100_000

// controllers is where this server may make cgroups: folders of the kernel's, by
// controller. With version 2 they are one.
type controllers struct {
	version int
	folders map[string]string
}

// Places of cgroups in the sandbox, and what each bounds.
const (
	memoryController = "memory"
	pidsController   = "pids"
	cpuController    = "cpu"
)

// findControllers looks where this server may make cgroups. The error says why
// it may not. It may move this process: to below its cgroup, to be able to divide that,
// or to one that enter, which must not be nil, has somebody else make for it.
func findControllers(ctx context.Context, server string, enter func(context.Context) error) (controllers, error) {
	c, err := findVersion1()
	if err != nil {
		c, err = findVersion2(ctx, enter)
	}
	if err != nil {
		return controllers{}, err
	}
	return c, c.try(server)
}

// findVersion1 finds the hierarchies of version 1 that this process is in. They
// must be those without which memory and processes are not bounded.
func findVersion1() (controllers, error) {
	membership, mounts, err := readMembership()
	if err != nil {
		return controllers{}, err
	}
	c := version1(membership, mounts)
	if c.folders[memoryController] == "" || c.folders[pidsController] == "" {
		return controllers{}, errNoGroups
	}
	return c, nil
}

var errNoGroups = errors.New("no cgroups are mounted")

// readMembership reads which cgroups this process is in, and where they are mounted.
func readMembership() (membership, mounts string, err error) {
	in, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", errors.New("the kernel has no cgroups")
	}
	at, err := os.ReadFile("/proc/self/mountinfo")
	return string(in), string(at), err
}

func version1(membership, mounts string) controllers {
	c := controllers{version: 1, folders: make(map[string]string)}
	for line := range strings.Lines(membership) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			if name != memoryController && name != pidsController && name != cpuController {
				continue
			}
			if folder, ok := mountedAt(mounts, "cgroup", name, parts[2]); ok {
				c.folders[name] = folder
			}
		}
	}
	return c
}

// findVersion2 finds a group of version 2 that is this process's to divide: the one that
// it is in, or else one that enter has made for it.
func findVersion2(ctx context.Context, enter func(context.Context) error) (controllers, error) {
	c, err := divideOwn()
	if err == nil || errors.Is(err, errNoGroups) || errors.Is(err, errUnits) {
		return c, err
	}
	if refused := enter(ctx); refused != nil {
		return controllers{}, fmt.Errorf("this server's cgroup is not its own to divide (%w), and it is given none (%w)", err, refused)
	}
	return divideOwn()
}

// divideOwn makes the group of version 2 that this process is in one below which
// groups have the controllers that they need.
func divideOwn() (controllers, error) {
	membership, mounts, err := readMembership()
	if err != nil {
		return controllers{}, err
	}
	folder, ok := version2(membership, mounts)
	if !ok {
		return controllers{}, errNoGroups
	}
	c, err := divide(folder, os.Getpid())
	if err != nil && (isService(folder) || isLimited(folder)) {
		err = fmt.Errorf("%w (%w)", errUnits, err)
	}
	return c, err
}

// errUnits says that the group is not to be left: somebody has limited it, or it is a
// service's of the system, and this server is meant too.
var errUnits = errors.New("this server's cgroup is not its own to divide: its unit needs Delegate=yes")

// isLimited says whether a group has a limit of its own. That of processes does not count:
// systemd gives one to all.
func isLimited(folder string) bool {
	for _, name := range []string{"memory.max", "memory.high", "cpu.max"} {
		if text, err := os.ReadFile(filepath.Join(folder, name)); err == nil && !strings.HasPrefix(string(text), "max") {
			return true
		}
	}
	return false
}

// isService says whether a group is one of a service of the system, not of a user's.
func isService(folder string) bool {
	return strings.HasSuffix(folder, ".service") && !strings.Contains(folder, "/user@")
}

// version2 gives the folder of the group of version 2 that this process is in.
func version2(membership, mounts string) (string, bool) {
	for line := range strings.Lines(membership) {
		if path, unified := strings.CutPrefix(strings.TrimSpace(line), "0::"); unified {
			return mountedAt(mounts, "cgroup2", "", path)
		}
	}
	return "", false
}

// divide has the groups below a folder know the controllers that they need. Where a
// process is in it the kernel refuses that; if it is this one alone, it moves below.
func divide(folder string, self int) (controllers, error) {
	c, err := offered(folder)
	if err != nil {
		return controllers{}, err
	}
	control, wanted := filepath.Join(folder, "cgroup.subtree_control"), ""
	for name := range c.folders {
		wanted += " +" + name
	}
	err = os.WriteFile(control, []byte(wanted), 0)
	if errors.Is(err, unix.EBUSY) {
		if err = moveBelow(folder, self); err == nil {
			err = os.WriteFile(control, []byte(wanted), 0)
		}
	}
	return c, err
}

// offered are the controllers of a group of version 2. CPU time alone may be left
// unbounded: a run has an end anyway.
func offered(folder string) (controllers, error) {
	text, err := os.ReadFile(filepath.Join(folder, "cgroup.controllers"))
	if err != nil {
		return controllers{}, err
	}
	c := controllers{version: 2, folders: make(map[string]string)}
	for name := range strings.FieldsSeq(string(text)) {
		if name == memoryController || name == pidsController || name == cpuController {
			c.folders[name] = folder
		}
	}
	for _, name := range []string{memoryController, pidsController} {
		if c.folders[name] == "" {
			return controllers{}, fmt.Errorf("%s has no controller for %s", folder, name)
		}
	}
	return c, nil
}

// moveBelow moves this process from a group, in which nobody else may be, to one below it.
func moveBelow(folder string, self int) error {
	inside, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
	if err != nil {
		return err
	}
	if others := strings.Fields(string(inside)); len(others) != 1 || others[0] != strconv.Itoa(self) {
		return fmt.Errorf("%s has other processes in it", folder)
	}
	own := filepath.Join(folder, groupPrefix+"server")
	if err := os.Mkdir(own, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(self)), 0o600)
}

// mountedAt gives the folder in which a cgroup of a hierarchy is seen.
func mountedAt(mounts, kind, controller, path string) (string, bool) {
	for line := range strings.Lines(mounts) {
		left, right, _ := strings.Cut(line, " - ")
		fields, types := strings.Fields(left), strings.Fields(right)
		if len(fields) < 5 || len(types) < 3 || types[0] != kind {
			continue
		}
		options := strings.Split(types[2], ",")
		if controller != "" && !slices.Contains(options, controller) {
			continue
		}
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(fields[3], "/")) // the root of the mount
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		return filepath.Join(fields[4], rest), true
	}
	return "", false
}

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

// make makes a group with the limits of a sandbox, but for that of processes: see bound.
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

// bound limits how many processes the group may have. It is for when the supervisor
// is there: what becomes it has more threads than a sandbox may be allowed.
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

// trees are what of the group the supervisor reads, where it looks for it.
func (g group) trees() []tree {
	if g.version == 2 {
		return []tree{{From: g.folders[memoryController], To: "/sys/fs/cgroup", NoExec: true}}
	}
	var all []tree
	for controller, folder := range g.folders {
		all = append(all, tree{From: folder, To: "/sys/fs/cgroup/" + controller, NoExec: true})
	}
	return all
}

// remove takes the group away, when the last of its processes has gone.
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

// empty says whether no process is in the group: a session may outlive its server.
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
