// Package hardening defines the parameters of a sandbox that all backends share: who is in it,
// the limits that no setting changes, and what follows from those that one does.
package hardening

import (
	"strconv"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// User is the user, and the group, of the supervisor and programs where the backend
// cannot give each sandbox a user of its own (see [Users]): nobody that an image or a
// host knows, "nonroot" by the convention of distroless images.
const User = 65532

// Hostname is the name of a sandbox's machine.
const Hostname = "sandbox"

const (
	// OpenFiles is the limit of the supervisor's processes; it gives programs fewer.
	OpenFiles = 4096
	// SharedMemoryBytes is the size of /dev/shm: semaphores of multiprocessing,
	// small shared arrays.
	SharedMemoryBytes = 16 << 20
	// Signals is how many signals may be pending, and timers exist, in all processes
	// of a user together.
	Signals = 1024
	// LockedBytes is the memory that a process may lock.
	LockedBytes = 64 << 10
	// VictimScore is the lowest oom_score_adj (proc(5)) in a sandbox: when the host runs
	// out of memory, the kernel ends processes of sandboxes first. Programs have 1000, so
	// that they come before their supervisor.
	VictimScore = 500
)

// Inodes returns how many files and folders a file system of some bytes may have: as
// many as fit when each takes a page.
func Inodes(bytes int64) int64 {
	const page, least = 4096, 1024
	return max(least, bytes/page)
}

// Processes returns how many processes and threads a kind of sandbox may have: where it
// serves many runs, the supervisor has two more of its own.
func Processes(spec execution.Spec) int64 {
	const own = 2
	if spec.Isolation == execution.IsolationRun {
		return spec.Processes + own
	}
	return spec.Processes
}

// SocketBytes returns how much memory the buffers of a sandbox's sockets may take where
// the kernel counts it apart from other memory (cgroup v1, memory.kmem.tcp). With cgroup
// v2 it counts as any other memory.
func SocketBytes(memory int64) int64 {
	const least = 8 << 20
	return max(least, memory/8)
}

// OwnNetwork reports whether a sandbox has a network namespace of its own.
func OwnNetwork(spec execution.Spec) bool {
	return spec.Network != "host" && !strings.HasPrefix(spec.Network, "container:")
}

// Sysctls returns the settings of the kernel for a sandbox's own network. Nothing is kept
// of connections that have ended, for later runs to find: tcp_metrics of a peer, and its
// cookie. Buffers of a connection do not grow beyond 1 MB, because those that a program has
// not accepted yet belong to no cgroup.
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

// Environment returns what the supervisor is told of a sandbox. It takes these variables
// out of the environment before a program starts.
func Environment(spec execution.Spec) []string {
	all := []string{"VIVARIUM_PTYS=" + strconv.FormatInt(spec.Ptys, 10)}
	if !OwnNetwork(spec) {
		all = append(all, "VIVARIUM_SHARED_NETWORK=1")
	}
	return all
}
