// Package walls holds what is the same of a sandbox, whoever makes it: who is in it,
// the limits that no setting moves, and what follows from those that one does.
package walls

import "github.com/vivarium-sandbox/vivarium/execution"

// User is who the supervisor and programs are, and their group: nobody that an
// image or a host knows, "nonroot" by the convention of distroless images.
const User = 65532

// Hostname is the name of a sandbox's machine.
const Hostname = "sandbox"

const (
	// OpenFiles is the limit of the supervisor's processes; it gives programs fewer.
	OpenFiles = 4096
	// SharedMemoryBytes is the size of /dev/shm: semaphores of multiprocessing,
	// small shared arrays.
	SharedMemoryBytes = 16 << 20
)

// Inodes is how many files and folders may be in a place of some bytes: as many as
// fit when each takes a page.
func Inodes(bytes int64) int64 {
	const page, least = 4096, 1024
	return max(least, bytes/page)
}

// Processes is how many processes and threads a kind of sandbox may have: where it
// serves many runs, the supervisor has two more of its own.
func Processes(spec execution.Spec) int64 {
	const own = 2
	if spec.Isolation == execution.IsolationRun {
		return spec.Processes + own
	}
	return spec.Processes
}

// Sysctls have the kernel keep nothing of connections that have ended in a
// sandbox's own network, for later runs to find: tcp_metrics of a peer, and its
// cookie.
func Sysctls() map[string]string {
	return map[string]string{"net.ipv4.tcp_no_metrics_save": "1", "net.ipv4.tcp_fastopen": "0"}
}
