package seccomp

import "github.com/moby/profiles/seccomp"

// uncountedMemory returns the rules for calls that make the kernel allocate memory which no
// memory cgroup counts (measured on Linux 6.18), or which belongs to the whole machine.
func uncountedMemory() []*seccomp.Syscall {
	const (
		hugePages       = 0x40000 // MAP_HUGETLB
		hugeFile        = 4       // MFD_HUGETLB
		hugeSegment     = 0o4000  // SHM_HUGETLB
		firstOddControl = 1000    // above all numbers of prctl(2) except PR_SET_VMA and PR_SET_PTRACER
	)
	return []*seccomp.Syscall{
		// Access control lists of files in a tmpfs: 8 KB or more per file, in no cgroup.
		answer(notSupported, []string{"setxattr", "lsetxattr", "fsetxattr", "setxattrat"}),
		// The limit of 128 instances is per user, so all sandboxes of a user would share it.
		// Programs fall back to polling, as on file systems without notifications.
		answer(noSuchCall, []string{"inotify_init", "inotify_init1"}),
		// Message queues are limited per user too. Landlock also denies them, since they are in no folder.
		answer(noSuchCall, []string{"mq_open", "mq_unlink"}),
		// Huge pages come from a pool of the whole machine, and are in no cgroup.
		allow([]string{"mmap"}, has(3, hugePages, 0)),
		allow([]string{"memfd_create"}, has(1, hugeFile, 0)),
		allow([]string{"shmget"}, has(2, hugeSegment, 0)),
		// PR_SET_VMA names a mapping. No cgroup counts the names.
		allow([]string{"prctl"}, isBelow(0, firstOddControl)),
	}
}

// unchargedWork returns the rules for calls that make the kernel's own threads work, outside
// of a sandbox's share of the processor and the disk.
func unchargedWork() []*seccomp.Syscall {
	const flags, synchronously = 2, 4 // MS_SYNC
	return []*seccomp.Syscall{
		// All files that a program can write are in memory. These calls would write out the
		// host's files and flush its disk cache.
		answer(success, []string{"sync", "syncfs", "fsync", "fdatasync", "sync_file_range", "sync_file_range2"}),
		answer(success, []string{"msync"}, has(flags, synchronously, synchronously)),
		allow([]string{"msync"}, has(flags, synchronously, 0)),
		// MEMBARRIER_CMD_GLOBAL, the only odd command, waits for a kernel thread. A program
		// that repeats it costs that thread twice its own processor time.
		allow([]string{"membarrier"}, has(0, 1, 0)),
	}
}
