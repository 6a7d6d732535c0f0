package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// groupPrefix is how the names of our cgroups begin.
const groupPrefix = "vivarium-"

// controllers has the folders in which this server may make cgroups, by controller. With
// version 2 it is the same folder for all.
type controllers struct {
	version int
	folders map[string]string
}

// Names of the controllers.
const (
	memoryController = "memory"
	pidsController   = "pids"
	cpuController    = "cpu"
)

// findControllers finds where this server may make cgroups, or returns why it may not.
// It may move this process: to a group below its own, to be able to divide that, or to
// a group that enter requests from systemd. enter must not be nil.
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

// findVersion1 finds the hierarchies of version 1 that this process is in. Those of
// memory and processes must be among them.
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
func readMembership() (membership string, mounts []*mountinfo.Info, err error) {
	in, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", nil, errors.New("the kernel has no cgroups")
	}
	mounts, err = mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	return string(in), mounts, err
}

func version1(membership string, mounts []*mountinfo.Info) controllers {
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

// findVersion2 finds a group of version 2 that this process may divide: its own, or
// else one that enter has made for it.
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

// divideOwn enables controllers for groups below the group of version 2 that this
// process is in.
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

// errUnits means that this process must not leave its group: the group has a limit or
// belongs to a service of the system, and that is meant for this server.
var errUnits = errors.New("this server's cgroup is not its own to divide: its unit needs Delegate=yes")

// isLimited reports whether a group has a limit. That of processes does not count, since
// systemd sets one for every group.
func isLimited(folder string) bool {
	for _, name := range []string{"memory.max", "memory.high", "cpu.max"} {
		if text, err := os.ReadFile(filepath.Join(folder, name)); err == nil && !strings.HasPrefix(string(text), "max") {
			return true
		}
	}
	return false
}

// isService reports whether a group belongs to a service of the system, not of a user.
func isService(folder string) bool {
	return strings.HasSuffix(folder, ".service") && !strings.Contains(folder, "/user@")
}

// version2 returns the folder of the group of version 2 that this process is in.
func version2(membership string, mounts []*mountinfo.Info) (string, bool) {
	for line := range strings.Lines(membership) {
		if path, unified := strings.CutPrefix(strings.TrimSpace(line), "0::"); unified {
			return mountedAt(mounts, "cgroup2", "", path)
		}
	}
	return "", false
}

// divide enables the controllers for groups below a folder. The kernel refuses that while
// a process is in the group itself. If this process is the only one, it moves below.
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

// offered returns the controllers of a group of version 2. Only that of CPU time may be
// missing: a run has a time limit anyway.
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

// moveBelow moves this process to a group below its own, in which no other process may be.
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

// mountedAt returns the folder in which a cgroup of a hierarchy is seen.
func mountedAt(mounts []*mountinfo.Info, kind, controller, path string) (string, bool) {
	for _, m := range mounts {
		if m.FSType != kind || controller != "" && !slices.Contains(strings.Split(m.VFSOptions, ","), controller) {
			continue
		}
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(m.Root, "/"))
		if ok && (rest == "" || rest[0] == '/') {
			return filepath.Join(m.Mountpoint, rest), true
		}
	}
	return "", false
}
