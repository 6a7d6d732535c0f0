// Package hardening defines the sandbox parameters that all backends share: users, the limits
// that no setting changes, and the values that follow from settings.
package hardening

import (
	"strconv"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// User is the id of the user, and of the group, of the supervisor and of programs where the
// backend cannot give each sandbox its own user (see [Users]). Images and hosts do not use
// this id: by the convention of distroless images it is "nonroot".
const User = 65532

// Hostname is the host name in a sandbox.
const Hostname = "sandbox"

// WorkspaceNames returns other names of the workspace: where other code interpreters keep
// files, so that programs written for them find theirs. Each is a link, in the local backend's
// root and in our images.
func WorkspaceNames() []string {
	return []string{"/mnt/data", "/home/user", "/content", "/output", "/app/output", "/data"}
}

const (
	// OpenFiles is the supervisor's limit on open files per process. The supervisor sets a
	// lower limit for programs.
	OpenFiles = 4096
	// Signals is the limit on pending signals and on timers, for all processes of a user
	// together.
	Signals = 1024
	// LockedBytes is the limit on memory that a process locks.
	LockedBytes = 64 << 10
	// VictimScore is the lowest oom_score_adj (proc(5)) in a sandbox: if the host runs out
	// of memory, the kernel ends processes of sandboxes first. Programs have 1000, so that
	// they end before their supervisor.
	VictimScore = 500
)

// SharedMemoryBytes returns the size of /dev/shm in a sandbox with so many bytes of memory.
// It holds the semaphores of multiprocessing and arrays that processes share, which count
// as memory.
func SharedMemoryBytes(memory int64) int64 {
	const least, part = 16 << 20, 4
	return max(least, memory/part)
}

// Inodes returns the limit on files and folders of a file system with so many bytes: as many
// as fit if each takes a page, and at least 1024.
func Inodes(bytes int64) int64 {
	const page, least = 4096, 1024
	return max(least, bytes/page)
}

// Processes returns the limit on processes and threads of a sandbox. A sandbox that serves
// many runs gets five more than the setting, for the supervisor's own processes: PID 1, two
// zygotes, and what the zygotes have prepared.
func Processes(spec execution.Spec) int64 {
	const own = 5
	if spec.Isolation == execution.IsolationRun {
		return spec.Processes + own
	}
	return spec.Processes
}

// SocketBytes returns the limit on the socket buffers of a sandbox with so many bytes of
// memory, where the kernel counts them separately (cgroup v1, memory.kmem.tcp). With cgroup
// v2 they count as other memory.
func SocketBytes(memory int64) int64 {
	const least = 8 << 20
	return max(least, memory/8)
}

// OwnNetwork reports whether a sandbox has its own network namespace.
func OwnNetwork(spec execution.Spec) bool {
	return spec.Network != "host" && !strings.HasPrefix(spec.Network, "container:")
}

// Sysctls returns the kernel's settings for a sandbox's own network. The kernel keeps nothing
// of ended connections that a later run could find: no tcp_metrics of a peer, and no cookie.
// The buffers of a connection stay below 1 MB, because those of connections that a program
// has not accepted yet belong to no cgroup.
func Sysctls() map[string]string {
	return map[string]string{
		"net.ipv4.tcp_no_metrics_save": "1",
		"net.ipv4.tcp_fastopen":        "0",
		"net.ipv4.tcp_rmem":            "4096 131072 1048576",
		"net.ipv4.tcp_wmem":            "4096 16384 1048576",
		"net.ipv4.tcp_max_tw_buckets":  "1024",
		"net.core.somaxconn":           "512",
	}
}

// Environment returns the variables that describe a sandbox to its supervisor, which removes
// them from the environment before a program starts.
func Environment(spec execution.Spec) []string {
	all := []string{"VIVARIUM_PTYS=" + strconv.FormatInt(spec.Ptys, 10)}
	if !OwnNetwork(spec) {
		all = append(all, "VIVARIUM_SHARED_NETWORK=1")
	}
	return all
}
