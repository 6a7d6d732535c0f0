package link

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestFindFacts(t *testing.T) {
	f, err := FindFacts()
	if err != nil {
		t.Fatal(err)
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil || f.Kernel+"\n" != string(release) {
		t.Errorf("the kernel is %q, not %q (%v)", f.Kernel, release, err)
	}
	if f.Version != factsVersion || f.Arch != runtime.GOARCH {
		t.Errorf("%+v", f)
	}
	if status, err := os.ReadFile("/proc/self/status"); err != nil || f.Seccomp != strings.Contains(string(status), "\nSeccomp:\t2\n") {
		t.Errorf("filtered: %v (%v)", f.Seccomp, err)
	}
	if f.NetNS && !f.UserNS {
		t.Errorf("a network namespace without a user namespace: %+v", f)
	}
}

// A kernel that does not make a namespace says so, and no process is left.
func TestCannotUnshare(t *testing.T) {
	if canUnshare(syscall.CLONE_NEWUSER | syscall.CLONE_PARENT) { // unshare(2) does not know the flag
		t.Error("a namespace of an unknown kind")
	}
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("process %d is left (%v)", pid, err)
	}
}

func TestEndsAll(t *testing.T) {
	for name, test := range map[string]struct {
		membership, group, setting string
		want                       bool
	}{
		"in the namespace's root": {"0::/\n", "", "1\n", true},
		"below":                   {"0::/kubepods/pod1\n", "kubepods/pod1", "1\n", true},
		"not all":                 {"0::/\n", "", "0\n", false},
		"no such file":            {"0::/other\n", "", "1\n", false},
		"a root above":            {"0::/../..\n", "", "1\n", true},
		"version 1":               {"3:memory:/\n0::/\n", "", "1\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			membership := filepath.Join(root, "membership")
			for path, text := range map[string]string{membership: test.membership, filepath.Join(root, test.group, "memory.oom.group"): test.setting} {
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := endsAll(root, membership); got != test.want {
				t.Errorf("%v", got)
			}
		})
	}
}
