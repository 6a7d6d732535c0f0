package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/sys/mountinfo"
)

func TestLocate(t *testing.T) {
	one := []*mountinfo.Info{
		{FSType: "cgroup", VFSOptions: "rw,cpu,cpuacct", Root: "/", Mountpoint: "/c/cpu,cpuacct"},
		{FSType: "cgroup", VFSOptions: "rw,memory", Root: "/", Mountpoint: "/c/memory"},
	}
	two := []*mountinfo.Info{{FSType: "cgroup2", VFSOptions: "rw", Root: "/", Mountpoint: "/c"}}
	inside := []*mountinfo.Info{{FSType: "cgroup2", Root: "/docker/x", Mountpoint: "/c"}}
	for name, test := range map[string]struct {
		membership string
		mounts     []*mountinfo.Info
		want       group
	}{
		"version 1":        {"4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/s\n", one, group{1, "/c/cpu,cpuacct", "/c/memory/a/b"}},
		"version 2":        {"0::/user.slice/x.scope\n", two, group{2, "/c/user.slice/x.scope", "/c/user.slice/x.scope"}},
		"both":             {"4:memory:/a\n2:cpu,cpuacct:/b\n0::/d\n", slices.Concat(one, two), group{1, "/c/cpu,cpuacct/b", "/c/memory/a"}},
		"in a container":   {"0::/docker/x/y\n", inside, group{2, "/c/y", "/c/y"}},
		"outside":          {"0::/docker/xy\n", inside, group{}},
		"no memory":        {"2:cpu,cpuacct:/b\n", one, group{}},
		"not mounted":      {"4:memory:/a/b\n2:cpu,cpuacct:/\n", nil, group{}},
		"nothing readable": {"x\n", one, group{}},
	} {
		got, err := locate(test.membership, test.mounts)
		if got != test.want || (err != nil) != (test.want == group{}) || err != nil && !errors.Is(err, errNoGroup) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestParseNumber(t *testing.T) {
	const stat = "cache 4096\npgfault 12\ntotal_pgfault 345\nbroken\n"
	for _, test := range []struct {
		text, key string
		want      float64
		ok        bool
	}{
		{"123456\n", "", 123456, true},
		{stat, "pgfault", 12, true},
		{stat, "total_pgfault", 345, true},
		{stat, "pgmajfault", 0, false},
		{stat, "broken", 0, false},
		{"", "", 0, false},
		{"max\n", "", 0, false},
	} {
		if got, ok := parseNumber(test.text, test.key); got != test.want || ok != test.ok {
			t.Errorf("%q: got %v, %v", test.key, got, ok)
		}
	}
}

func TestCounts(t *testing.T) {
	one := group{1, t.TempDir(), t.TempDir()}
	write(t, one.cpu, "cpuacct.usage", "2500000000\n")
	write(t, one.memory, "memory.stat", "pgfault 12\ntotal_pgfault 345\n")
	folder := t.TempDir()
	two := group{2, folder, folder}
	write(t, folder, "cpu.stat", "usage_usec 2500000\nuser_usec 1\n")
	write(t, folder, "memory.stat", "anon 4096\npgfault 345\n")
	for _, g := range []group{one, two} {
		if got, want := g.counts(), (counts{2.5, 345}); got != want {
			t.Errorf("version %d: got %v, want %v", g.version, got, want)
		}
	}
	for _, g := range []group{{}, {1, folder, folder}} {
		if got := g.counts(); !math.IsNaN(got.cpu) {
			t.Errorf("%v: got %v", g, got)
		}
	}
}

func TestMeanMemory(t *testing.T) {
	folder := t.TempDir()
	g := group{2, folder, folder}
	for name, sizes := range map[string][2]string{"a": {"3145728", "1048576"}, "b": {"4194304", "0"}, "server": {"99999999", "0"}} {
		if err := os.Mkdir(filepath.Join(folder, name), 0o750); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, name), "memory.current", sizes[0]+"\n")
		write(t, filepath.Join(folder, name), "memory.stat", "inactive_file "+sizes[1]+"\n")
	}
	if got := g.meanMemoryMB(func(name string) bool { return name != "server" }); got != 3 {
		t.Errorf("got %v", got)
	}
}

func TestAbove(t *testing.T) {
	g := group{1, "/c/cpu/docker/abc", "/c/memory/docker/abc"}
	if got, ok := g.above("abc"); !ok || got != (group{1, "/c/cpu/docker", "/c/memory/docker"}) {
		t.Errorf("got %v, %v", got, ok)
	}
	if _, ok := g.above("xyz"); ok { // a process of another machine has that number
		t.Error("the group of another container was taken")
	}
}

// What stands in place of cgroups is folders: this tests what is made and removed.
func TestGroupsAreMadeAndRemoved(t *testing.T) {
	g := group{1, t.TempDir(), t.TempDir()}
	below, err := g.makeParent("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := below.make("b"); err != nil {
		t.Fatal(err)
	}
	if got := g.children(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("made %v", got)
	}
	if err := below.remove(); err != nil || len(g.children()) > 0 {
		t.Errorf("left %v, %v", g.children(), err)
	}
	if none, err := (group{}).makeParent("a"); err != nil || none != (group{}) || none.remove() != nil {
		t.Errorf("without cgroups: got %v, %v", none, err)
	}
}

func TestEnter(t *testing.T) {
	g := group{1, t.TempDir(), t.TempDir()}
	l := launcher{groups: g}
	cmd, own, err := l.command(t.Context(), "echo", "a b", "$c")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.Output(); err != nil || string(out) != "a b $c\n" {
		t.Errorf("got %q, %v", out, err)
	}
	for _, folder := range own.folders() {
		if text, err := os.ReadFile(filepath.Join(folder, "cgroup.procs")); err != nil || string(text) != "0\n" {
			t.Errorf("got %q, %v", text, err)
		}
	}
}

func write(t *testing.T, folder, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
