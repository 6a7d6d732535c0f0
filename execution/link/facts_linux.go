package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// FindFacts finds out about this node. The key is the caller's to add.
func FindFacts() (Facts, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Facts{}, fmt.Errorf("the kernel's release: %w", err)
	}
	user := canUnshare(syscall.CLONE_NEWUSER)
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	version := cgroupVersion()
	return Facts{
		Version: factsVersion,
		Kernel:  unix.ByteSliceToString(name.Release[:]), Arch: runtime.GOARCH,
		UserNS: user, NetNS: user && canUnshare(syscall.CLONE_NEWUSER|syscall.CLONE_NEWNET),
		Seccomp:  err != nil || mode == unix.SECCOMP_MODE_FILTER, // a filter may deny the question
		OwnUsers: hasOwnUsers(),
		Cgroup:   version, OOMGroup: version == 2 && endsAll(cgroupRoot, "/proc/self/cgroup"),
	}, nil
}

// canUnshare reports whether a process can make namespaces, a user namespace among them, as
// PID 1 does: by unshare(2), keeping its user. Only the kernel knows: seccomp, AppArmor, SELinux
// and sysctls decide.
//
// The child makes the namespaces before it executes the program. There is no program at a path
// below a file, so that error (ENOTDIR, which no earlier step returns) reports the success.
func canUnshare(namespaces uintptr) bool {
	user, group := os.Getuid(), os.Getgid()
	process, err := os.StartProcess("/proc/self/exe/none", []string{"none"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Unshareflags: namespaces,
		UidMappings:  []syscall.SysProcIDMap{{ContainerID: user, HostID: user, Size: 1}},
		GidMappings:  []syscall.SysProcIDMap{{ContainerID: group, HostID: group, Size: 1}},
	}})
	if err == nil { // it cannot be
		_ = process.Release()
	}
	return errors.Is(err, syscall.ENOTDIR)
}

// hasOwnUsers reports whether the users of this process are not simply the machine's.
func hasOwnUsers() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(text)), " ") != "0 0 4294967295"
}

// cgroupVersion returns the version of cgroups, or 0 if none are mounted.
func cgroupVersion() int {
	var status unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &status); err != nil {
		return 0
	}
	if status.Type == unix.CGROUP2_SUPER_MAGIC {
		return 2
	}
	return 1
}

// endsAll reports whether the kernel ends all processes of this process's cgroup if they take
// too much memory. The cgroup is of version 2, and membership is the file that names it.
func endsAll(root, membership string) bool {
	text, err := os.ReadFile(membership)
	if err != nil {
		return false
	}
	group, found := strings.CutPrefix(strings.TrimSpace(string(text)), "0::") // a single line
	if !found {
		return false
	}
	setting, err := os.ReadFile(filepath.Join(root, filepath.Clean("/"+group), "memory.oom.group")) //nolint:gosec // the kernel names the group
	return err == nil && strings.TrimSpace(string(setting)) == "1"
}
