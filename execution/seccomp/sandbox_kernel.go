package seccomp

import "github.com/moby/profiles/seccomp"

// uncountedMemory returns the rules for calls by which the kernel would keep memory that no
// memory cgroup counts (measured on Linux 6.18), or that belongs to the whole machine.
func uncountedMemory() []*seccomp.Syscall {
	const (
		hugePages       = 0x40000 // MAP_HUGETLB
		hugeFile        = 4       // MFD_HUGETLB
		hugeSegment     = 0o4000  // SHM_HUGETLB
		firstOddControl = 1000    // beyond all numbers of prctl(2) but PR_SET_VMA and PR_SET_PTRACER
	)
	return []*seccomp.Syscall{
		// Access control lists of files in a tmpfs: 8 KB and more a file, in no cgroup.
		answer(notSupported, []string{"setxattr", "lsetxattr", "fsetxattr", "setxattrat"}),
		// Each user has 128 instances, all sandboxes together. Programs then look at files now
		// and again instead, as where a file system has no notifications.
		answer(noSuchCall, []string{"inotify_init", "inotify_init1"}),
		// Queues count for each user too. Landlock denies them in any case: no folder leads there.
		answer(noSuchCall, []string{"mq_open", "mq_unlink"}),
		// Huge pages are reserved for the whole machine, and in no cgroup.
		allow([]string{"mmap"}, has(3, hugePages, 0)),
		allow([]string{"memfd_create"}, has(1, hugeFile, 0)),
		allow([]string{"shmget"}, has(2, hugeSegment, 0)),
		// PR_SET_VMA gives each mapping a name, which no cgroup counts.
		allow([]string{"prctl"}, isBelow(0, firstOddControl)),
	}
}

// unchargedWork returns the rules for calls that have the kernel's own threads work, outside
// of a sandbox's share of the processor and the disk.
func unchargedWork() []*seccomp.Syscall {
	const flags, synchronously = 2, 4 // MS_SYNC
	return []*seccomp.Syscall{
		// All that a program can write is in memory. What these would write out, and the
		// disk's cache that they would flush, is the host's.
		answer(success, []string{"sync", "syncfs", "fsync", "fdatasync", "sync_file_range", "sync_file_range2"}),
		answer(success, []string{"msync"}, has(flags, synchronously, synchronously)),
		allow([]string{"msync"}, has(flags, synchronously, 0)),
		// MEMBARRIER_CMD_GLOBAL, the only odd command, waits for a thread of the kernel that
		// uses twice the processor time of the program that calls it again and again.
		allow([]string{"membarrier"}, has(0, 1, 0)),
	}
}
