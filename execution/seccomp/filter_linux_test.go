package seccomp_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	moby "github.com/moby/profiles/seccomp"

	"github.com/vivarium-sandbox/vivarium/execution/seccomp"
)

var update = flag.Bool("update", false, "write the default profile")

// default.json is the library's default profile.
func TestDefaultProfile(t *testing.T) {
	want, err := json.MarshalIndent(moby.DefaultProfile(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("default.json", want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile("default.json"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("default.json is not the library's profile; go test ./execution/seccomp -update writes it (%v)", err)
	}
}

// What the kernel does with a system call (linux/seccomp.h).
const (
	allow        = 0x7fff0000
	eperm        = 0x00050001
	enosys       = 0x00050026
	noop         = 0x00050000
	enotsup      = 0x0005005f
	eafnosupport = 0x00050061
	kill         = 0x80000000
)

const shared = 0x21 // MAP_SHARED | MAP_ANONYMOUS, flags of mmap(2)

// The filter does what each kind of rule of the profile says.
func TestFilter(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	const newUser, thread, masked = 0x10000000, 0x50f00, 0x7E020000
	for _, test := range []struct {
		name       string
		args       []uint64
		once, many int // for a sandbox that serves one run, and for one that serves many
	}{
		{"read", nil, allow, allow},
		{"openat", nil, allow, allow},
		{"execve", nil, allow, allow},
		{"seccomp", nil, allow, allow},
		{"clone", []uint64{thread}, allow, allow},
		{"clone", []uint64{newUser}, eperm, eperm},
		{"clone", []uint64{masked}, eperm, eperm},
		{"clone3", nil, enosys, allow},
		{"unshare", nil, eperm, allow},
		{"setns", nil, eperm, allow},
		{"mount", nil, eperm, eperm},
		{"mount", []uint64{0, 0, 0, 0x5000}, eperm, allow}, // MS_BIND | MS_REC
		{"mount", []uint64{0, 0, 0, 0x102f}, eperm, allow}, // MS_BIND | MS_REMOUNT | MS_RDONLY and the like
		{"mount", []uint64{0, 0, 0, 0x102e}, eperm, eperm},
		{"mount", []uint64{0, 0, 0, 0x1000}, eperm, eperm},
		{"umount2", nil, eperm, eperm},
		{"move_mount", nil, eperm, eperm},
		{"fsopen", nil, eperm, eperm},
		{"bpf", nil, eperm, eperm},
		{"keyctl", nil, eperm, eperm},
		{"io_uring_setup", nil, eperm, eperm},
		{"splice", nil, enosys, enosys},
		{"memfd_create", nil, allow, allow},
		{"mmap", []uint64{0, 4096, 3, shared}, allow, allow},
		{"personality", []uint64{0}, allow, allow},
		{"personality", []uint64{1}, eperm, eperm},
		{"fcntl", []uint64{3, 4}, allow, allow},
		{"fcntl", []uint64{3, 1024}, eperm, eperm}, // F_SETLEASE
		{"fcntl", []uint64{3, 1030}, allow, allow}, // F_DUPFD_CLOEXEC
		{"fcntl", []uint64{3, 1039}, eperm, eperm},
		{"prlimit64", []uint64{0}, allow, allow},
		{"prlimit64", []uint64{7}, eperm, eperm},
		{"setpriority", []uint64{0, 0}, allow, allow},
		{"setpriority", []uint64{0, 7}, eperm, eperm},
	} {
		check(t, info, test.name, test.args, test.once, test.many)
	}
	if got := verdict(t, true, true, uint32(info.ID), 1<<20); got != eperm {
		t.Errorf("an unknown call: %#x", got)
	}
	if got := verdict(t, true, true, uint32(arch.I386.ID), 0); got != kill {
		t.Errorf("a 32-bit call: %#x", got)
	}
}

// Calls that make the kernel allocate or do what no limit of the sandbox covers are denied or
// do nothing, in every sandbox.
func TestFilterOfKernelMemoryAndWork(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []uint64
		want int
	}{
		{"fcntl", []uint64{3, 6}, allow},       // F_SETLK
		{"fcntl", []uint64{3, 37}, eperm},      // F_OFD_SETLK
		{"prctl", []uint64{15}, allow},         // PR_SET_NAME
		{"prctl", []uint64{0x53564d41}, eperm}, // PR_SET_VMA
		{"prctl", []uint64{1<<32 | 15}, eperm},
		{"mmap", []uint64{0, 4096, 3, 0x22 | 0x40000}, eperm}, // MAP_HUGETLB
		{"memfd_create", []uint64{0, 4}, eperm},
		{"shmget", []uint64{0, 4096, 0o4600}, eperm},
		{"shmget", []uint64{0, 4096, 0o1600}, allow},
		{"setxattr", nil, enotsup},
		{"fsetxattr", nil, enotsup},
		{"removexattr", nil, allow},
		{"inotify_init1", nil, enosys},
		{"mq_open", nil, enosys},
		{"sync", nil, noop},
		{"fsync", nil, noop},
		{"msync", []uint64{0, 4096, 4}, noop},
		{"msync", []uint64{0, 4096, 1}, allow},
		{"membarrier", []uint64{8}, allow}, // PRIVATE_EXPEDITED
		{"membarrier", []uint64{1}, eperm},
		{"membarrier", []uint64{1<<32 | 1}, eperm},
	} {
		check(t, info, test.name, test.args, test.want, test.want)
	}
}

// Without a cgroup the filter also denies memory that belongs to no process.
func TestFilterWithoutCgroup(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"memfd_create": enosys, "shmget": enosys, "semget": enosys, "msgget": enosys, "read": allow} {
		if got := verdict(t, true, false, uint32(info.ID), info.SyscallNames[name]); got != want {
			t.Errorf("%s, without a cgroup: %#x, not %#x", name, got, want)
		}
	}
	for flags, want := range map[uint64]int{
		shared: eperm, shared | 2: eperm, shared | 1<<40: eperm, shared | 0x8000: eperm, // MAP_SHARED_VALIDATE, nothing, MAP_POPULATE
		1: allow, 0x22: allow, // of a file; MAP_PRIVATE | MAP_ANONYMOUS
		0x22 | 0x40000: eperm, 1 | 0x40000: eperm, // MAP_HUGETLB
	} {
		if got := verdict(t, true, false, uint32(info.ID), info.SyscallNames["mmap"], 0, 4096, 3, flags); got != want {
			t.Errorf("mmap with flags %#x, without a cgroup: %#x, not %#x", flags, got, want)
		}
	}
}

// A program gets only sockets whose memory is limited, and no option that makes one hold
// more.
func TestSockets(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	const flags, high = 0o2004000, 1 << 32 // SOCK_CLOEXEC | SOCK_NONBLOCK
	for _, test := range []struct {
		what string
		name string
		args []uint64
		want int
	}{
		{"Unix", "socket", []uint64{1, 5 | flags}, allow},
		{"a pair of Unix", "socketpair", []uint64{1, 1}, allow},
		{"a pair of another family", "socketpair", []uint64{40, 1}, eafnosupport},
		{"TCP", "socket", []uint64{2, 1 | flags, 0}, allow},
		{"TCP by its number", "socket", []uint64{10, 1, 6}, allow},
		{"UDP", "socket", []uint64{10, 2, 17}, allow},
		{"raw", "socket", []uint64{2, 3, 6}, eperm},
		{"ICMP", "socket", []uint64{2, 2, 1}, eperm},
		{"MPTCP", "socket", []uint64{2, 1, 262}, eperm},
		{"SCTP", "socket", []uint64{2, 1, 132}, eperm},
		{"an unknown protocol", "socket", []uint64{2, 1, 200}, eperm},
		{"UDP as a stream", "socket", []uint64{2, 1, 17}, eperm},
		{"TCP with high bits set", "socket", []uint64{2, 1, high}, eperm},
		{"routes and addresses", "socket", []uint64{16, 3 | flags, 0}, allow},
		{"routes, the other type", "socket", []uint64{16, 2, 0}, allow},
		{"generic netlink", "socket", []uint64{16, 3, 16}, eafnosupport},
		{"netlink with high bits set", "socket", []uint64{16, 3, high}, eafnosupport},
		{"no family", "socket", []uint64{0, 1}, eafnosupport},
		{"a family between", "socket", []uint64{9, 1}, eafnosupport},
		{"packets", "socket", []uint64{17, 3}, eafnosupport},
		{"AF_ALG", "socket", []uint64{38, 5}, eafnosupport},
		{"AF_VSOCK", "socket", []uint64{40, 1}, eafnosupport},
		{"AF_UNIX with high bits set", "socket", []uint64{high | 1, 1}, eafnosupport},
		{"reuse of an address", "setsockopt", []uint64{3, 1, 2}, allow},
		{"no delay", "setsockopt", []uint64{3, 6, 1}, allow},
		{"only IPv6", "setsockopt", []uint64{3, 41, 26}, allow},
		{"a larger buffer", "setsockopt", []uint64{3, 1, 8}, noop},
		{"a larger send buffer", "setsockopt", []uint64{3, 1, 7}, noop},
		{"a larger buffer, high bits set", "setsockopt", []uint64{3, high | 1, 8}, eperm},
		{"a filter", "setsockopt", []uint64{3, 1, 26}, eperm},
		{"a filter for a group of sockets", "setsockopt", []uint64{3, 1, 51}, eperm},
		{"zero copy", "setsockopt", []uint64{3, 1, 60}, eperm},
		{"reserved memory", "setsockopt", []uint64{3, 1, 73}, eperm},
		{"a TCP key", "setsockopt", []uint64{3, 6, 14}, eperm},
		{"a protocol on top of TCP", "setsockopt", []uint64{3, 6, 31}, eperm},
		{"a corked datagram", "setsockopt", []uint64{3, 17, 1}, eperm},
		{"sources of a group", "setsockopt", []uint64{3, 0, 41}, eperm},
		{"an IPv6 group", "setsockopt", []uint64{3, 41, 20}, eperm},
		{"a flow label", "setsockopt", []uint64{3, 41, 32}, eperm},
		{"IPv6 headers", "setsockopt", []uint64{3, 41, 59}, eperm},
		{"a netlink group", "setsockopt", []uint64{3, 270, 1}, eperm},
	} {
		t.Run(test.what, func(t *testing.T) { check(t, info, test.name, test.args, test.want, test.want) })
	}
}

// check checks what the filter does with a system call in a sandbox that serves one run, and
// in one that serves many.
func check(t *testing.T, info *arch.Info, name string, args []uint64, once, many int) {
	t.Helper()
	nr, known := info.SyscallNames[name]
	if !known {
		t.Fatalf("this architecture has no %s", name)
	}
	for manyRuns, want := range map[bool]int{false: once, true: many} {
		if got := verdict(t, manyRuns, true, uint32(info.ID), nr, args...); got != want {
			t.Errorf("%s%v, many runs %v: %#x, not %#x", name, args, manyRuns, got, want)
		}
	}
}

// verdict returns what the filter does with a system call.
func verdict(t *testing.T, many, bounded bool, machine uint32, nr int, args ...uint64) int {
	t.Helper()
	code, err := seccomp.Filter(many, bounded)
	if err != nil {
		t.Fatal(err)
	}
	return seccomp.Run(t, code, machine, nr, args...)
}
