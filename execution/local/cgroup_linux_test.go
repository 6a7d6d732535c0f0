package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/local/inside"
)

// The kernel's files determine where a server may make cgroups.
func TestHierarchies(t *testing.T) {
	const mounts = `25 30 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
33 24 0:29 / /sys/fs/cgroup/memory rw shared:16 - cgroup cgroup rw,memory
34 24 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:17 - cgroup cgroup rw,cpu,cpuacct
35 24 0:31 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
`
	const membership = `9:pids:/docker/abcd/server
9:pids:/docker/abc/server
8:memory:/user.slice
7:cpu,cpuacct:/
0::/user.slice
`
	found := version1(membership, parseMounts(t, mounts))
	want := map[string]string{
		"memory": "/sys/fs/cgroup/memory/user.slice", "cpu": "/sys/fs/cgroup/cpu,cpuacct", "pids": "/sys/fs/cgroup/pids/server",
	}
	if diff := cmp.Diff(want, found.folders); found.version != 1 || diff != "" {
		t.Errorf("version %d:\n%s", found.version, diff)
	}
	if found := version1("0::/user.slice\n", parseMounts(t, mounts)); len(found.folders) > 0 {
		t.Errorf("version 1 is found where there is none: %v", found.folders)
	}
	if folder, ok := version2(membership, parseMounts(t, mounts)); !ok || folder != "/sys/fs/cgroup/unified/user.slice" {
		t.Errorf("version 2 is at %q (%v)", folder, ok)
	}
	if folder, ok := version2("8:memory:/\n", parseMounts(t, mounts)); ok {
		t.Errorf("version 2 is found where there is none, at %q", folder)
	}
}

// The kernel writes a space in the path of a mount as \040: proc_pid_mountinfo(5).
func TestHierarchyWithSpaces(t *testing.T) {
	const mounts = `25 30 0:23 /my\040pod /sys/fs/my\040groups rw - cgroup2 cgroup2 rw` + "\n"
	if folder, ok := version2("0::/my pod/server\n", parseMounts(t, mounts)); !ok || folder != "/sys/fs/my groups/server" {
		t.Errorf("version 2 is at %q (%v)", folder, ok)
	}
}

func parseMounts(t *testing.T, text string) []*mountinfo.Info {
	t.Helper()
	mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return mounts
}

// The limits are written in the files of each version.
func TestLimitsOfGroups(t *testing.T) {
	settings := execution.Settings{MemoryBytes: 256 << 20, CPUs: 0.5}
	for _, test := range []struct {
		version int
		want    map[string]string
	}{
		{1, map[string]string{
			"memory/memory.limit_in_bytes": "268435456", "memory/memory.kmem.tcp.limit_in_bytes": "33554432",
			"cpu/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "50000", "memory/memory.memsw.limit_in_bytes": "268435456",
		}},
		{2, map[string]string{
			"memory/memory.max": "268435456", "memory/memory.swap.max": "0", "cpu/cpu.max": "50000 100000",
		}},
	} {
		g := group{test.version, map[string]string{"memory": "memory", "pids": "pids", "cpu": "cpu"}}
		got := make(map[string]string)
		for _, l := range g.limits(settings) {
			got[l.file] = l.value
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("version %d:\n%s", test.version, diff)
		}
	}
}

// hierarchy makes a folder that looks like a cgroup of version 2.
func hierarchy(t *testing.T, controllers, inside string) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{"cgroup.controllers": controllers, "cgroup.procs": inside, "cgroup.subtree_control": ""} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// A group of version 2 is one folder, whatever the controllers.
func TestVersion2(t *testing.T) {
	folder := hierarchy(t, "cpuset cpu io memory pids\n", "")
	c, err := divide(folder, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "cgroup.subtree_control"))
	asked := strings.Fields(string(text))
	slices.Sort(asked)
	if diff := cmp.Diff([]string{"+cpu", "+memory", "+pids"}, asked); err != nil || diff != "" {
		t.Errorf("asked for (%v):\n%s", err, diff)
	}
	g, err := c.make("1-2.3", execution.Settings{MemoryBytes: 1, CPUs: 3})
	if err != nil {
		t.Fatal(err)
	}
	if own := g.unique(); len(own) != 1 || own[0] != filepath.Join(folder, "vivarium-1-2.3") {
		t.Errorf("the group is %v", own)
	}
	if diff := cmp.Diff([]inside.Tree{{From: g.folders["memory"], To: "/sys/fs/cgroup", NoExec: true}}, g.trees()); diff != "" {
		t.Error(diff)
	}
	if err := g.bound(64); err != nil {
		t.Fatal(err)
	}
	if most, err := os.ReadFile(filepath.Join(folder, "vivarium-1-2.3", "pids.max")); err != nil || string(most) != "64" {
		t.Errorf("processes: %q (%v)", most, err)
	}
	strays := c.strays(func(server string) bool { return server != "1-2" })
	if len(strays) == 0 || strays[0].unique()[0] != g.unique()[0] {
		t.Errorf("the strays are %v", strays)
	}
	living := func(string) bool { return true }
	if strays := c.strays(living); len(strays) != 0 {
		t.Errorf("living servers' groups are strays: %v", strays)
	}
	past := time.Now().Add(-2 * strayAge)
	if err := os.Chtimes(g.unique()[0], past, past); err != nil {
		t.Fatal(err)
	}
	if strays := c.strays(living); len(strays) == 0 {
		t.Error("a group that a living server could not remove is not tried again")
	}
}

// Groups without a controller for CPU time do; those without one for memory or
// processes do not.
func TestControllersOnOffer(t *testing.T) {
	c, err := divide(hierarchy(t, "memory pids\n", ""), os.Getpid())
	if err != nil || len(c.folders) != 2 || c.folders["cpu"] != "" {
		t.Errorf("without cpu: %v (%v)", c.folders, err)
	}
	if _, err := divide(hierarchy(t, "cpu pids\n", ""), os.Getpid()); err == nil || !strings.Contains(err.Error(), "no controller for memory") {
		t.Errorf("without memory: %v", err)
	}
	if _, err := divide(filepath.Join(t.TempDir(), "gone"), os.Getpid()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}

// A server that is alone in its group moves below it, to be able to divide it.
func TestMoveBelow(t *testing.T) {
	const self = 4711
	folder := hierarchy(t, "memory pids\n", "4711\n")
	if err := moveBelow(folder, self); err != nil {
		t.Fatal(err)
	}
	if moved, err := os.ReadFile(filepath.Join(folder, "vivarium-server", "cgroup.procs")); err != nil || string(moved) != "4711" {
		t.Errorf("moved: %q (%v)", moved, err)
	}
	for _, inside := range []string{"4711\n4712\n", "1\n", ""} {
		folder := hierarchy(t, "memory pids\n", inside)
		if err := moveBelow(folder, self); err == nil || !strings.Contains(err.Error(), "other processes") {
			t.Errorf("with %q inside: %v", inside, err)
		}
		if _, err := os.Stat(filepath.Join(folder, "vivarium-server")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("with %q inside a group is made (%v)", inside, err)
		}
	}
}

// A service of the system stays where its unit has put it.
func TestServices(t *testing.T) {
	for folder, want := range map[string]bool{
		"/sys/fs/cgroup/system.slice/vivarium.service":                                                  true,
		"/sys/fs/cgroup/system.slice/vivarium-1-2.scope":                                                false,
		"/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope":                                     false,
		"/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/app-code@1.service":      false,
		"/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/session.slice/dbus-broker.service": false,
		"/sys/fs/cgroup": false,
	} {
		if got := isService(folder); got != want {
			t.Errorf("%s: %v", folder, got)
		}
	}
}

func TestIsLimited(t *testing.T) {
	for text, want := range map[string]bool{"max\n": false, "1048576\n": true, "": true} {
		folder := hierarchy(t, "memory pids\n", "")
		if err := os.WriteFile(filepath.Join(folder, "memory.max"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := isLimited(folder); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if isLimited(hierarchy(t, "memory pids\n", "")) {
		t.Error("without a file for it")
	}
}

func TestProcessNames(t *testing.T) {
	name, err := processName(os.Getpid())
	if err != nil || !isAlive(name) {
		t.Errorf("this process is %q (%v), and not alive", name, err)
	}
	for _, other := range []string{"", "x", "0-0", name + "1", "1", "99999999-1"} {
		if isAlive(other) {
			t.Errorf("%q is alive", other)
		}
	}
}

// A backend that is made and, since an engine is chosen, not asked for anything
// makes no cgroups and moves no process.
func TestNewLooksForNoGroups(t *testing.T) {
	b, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if b.groups.folders != nil || b.groupsFault != nil || len(b.filters) > 0 {
		t.Errorf("it has found %+v (%v)", b.groups, b.groupsFault)
	}
}
