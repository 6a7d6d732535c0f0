package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Where a server may make cgroups is read from what the kernel says of it.
func TestHierarchies(t *testing.T) {
	const mounts = `25 30 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
33 24 0:29 / /sys/fs/cgroup/memory rw shared:16 - cgroup cgroup rw,memory
34 24 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:17 - cgroup cgroup rw,cpu,cpuacct
35 24 0:31 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
`
	const membership = `9:pids:/docker/abc/server
8:memory:/user.slice
7:cpu,cpuacct:/
0::/user.slice
`
	found, ok := findVersion1(membership, mounts)
	want := map[string]string{
		"memory": "/sys/fs/cgroup/memory/user.slice", "cpu": "/sys/fs/cgroup/cpu,cpuacct", "pids": "/sys/fs/cgroup/pids/server",
	}
	if diff := cmp.Diff(want, found.folders); !ok || found.version != 1 || diff != "" {
		t.Errorf("version %d (%v):\n%s", found.version, ok, diff)
	}
	if _, ok := findVersion1("0::/user.slice\n", mounts); ok {
		t.Error("version 1 is found where there is none")
	}
	if folder, ok := mountedAt(mounts, "cgroup2", "", "/user.slice"); !ok || folder != "/sys/fs/cgroup/unified/user.slice" {
		t.Errorf("version 2 is at %q (%v)", folder, ok)
	}
	if _, err := findVersion2("8:memory:/\n", mounts); err == nil || !strings.Contains(err.Error(), "no cgroups") {
		t.Errorf("without version 2: %v", err)
	}
}

// The limits are written as each version has them.
func TestLimitsOfGroups(t *testing.T) {
	settings := execution.Settings{MemoryBytes: 256 << 20, Processes: 64, CPUs: 0.5}
	for _, test := range []struct {
		version int
		want    map[string]string
	}{
		{1, map[string]string{
			"memory/memory.limit_in_bytes": "268435456", "pids/pids.max": "64",
			"cpu/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "50000", "memory/memory.memsw.limit_in_bytes": "268435456",
		}},
		{2, map[string]string{
			"memory/memory.max": "268435456", "memory/memory.swap.max": "0", "pids/pids.max": "64", "cpu/cpu.max": "50000 100000",
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

// A group of version 2 is one folder, whatever the controllers, and a server moves
// below its own to be able to divide it.
func TestDelegation(t *testing.T) {
	folder := t.TempDir()
	if err := delegate(folder); err != nil { // as where nobody is in it
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(folder, "cgroup.subtree_control")); err != nil || string(text) != "+memory +pids +cpu" {
		t.Errorf("%q (%v)", text, err)
	}
	if err := delegate(filepath.Join(folder, "other")); err == nil || !strings.Contains(err.Error(), "Delegate=yes") {
		t.Errorf("where it may not: %v", err)
	}
	c := controllers{version: 2, folders: map[string]string{"memory": folder, "pids": folder, "cpu": folder}}
	g, err := c.make("1-2.3", execution.Settings{MemoryBytes: 1, Processes: 2, CPUs: 3})
	if err != nil {
		t.Fatal(err)
	}
	if own := g.unique(); len(own) != 1 || own[0] != filepath.Join(folder, "vivarium-1-2.3") {
		t.Errorf("the group is %v", own)
	}
	if diff := cmp.Diff([]tree{{From: g.folders["memory"], To: "/sys/fs/cgroup", NoExec: true}}, g.trees()); diff != "" {
		t.Error(diff)
	}
	strays := c.strays(func(server string) bool { return server != "1-2" })
	if len(strays) == 0 || strays[0].unique()[0] != g.unique()[0] {
		t.Errorf("the strays are %v", strays)
	}
	if strays := c.strays(func(string) bool { return true }); len(strays) != 0 {
		t.Errorf("living servers' groups are strays: %v", strays)
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
