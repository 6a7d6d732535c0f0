package seccomp_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	moby "github.com/moby/profiles/seccomp"
	"golang.org/x/net/bpf"

	"github.com/vivarium-sandbox/vivarium/execution/seccomp"
)

var update = flag.Bool("update", false, "write the default profile anew")

// The default profile is the library's.
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
	allow  = 0x7fff0000
	eperm  = 0x00050001
	enosys = 0x00050026
	kill   = 0x80000000
)

// The filter is the profile, translated: each kind of rule does what it says.
func TestFilter(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	const newUser, thread, masked = 0x10000000, 0x50f00, 0x7E020000
	const shared = 0x21 // MAP_SHARED | MAP_ANONYMOUS
	for _, test := range []struct {
		name       string
		args       []uint64
		once, many int // where a sandbox serves one run, and many
	}{
		{"read", nil, allow, allow},
		{"openat", nil, allow, allow},
		{"execve", nil, allow, allow},
		{"seccomp", nil, allow, allow},
		{"clone", []uint64{thread}, allow, allow},
		{"clone", []uint64{newUser}, eperm, eperm},
		{"clone", []uint64{masked}, eperm, eperm},
		{"clone3", nil, enosys, enosys},
		{"unshare", nil, eperm, allow},
		{"setns", nil, eperm, allow},
		{"mount", nil, eperm, eperm},
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
		{"socket", []uint64{1}, allow, allow},
		{"socket", []uint64{40}, enosys, enosys}, // AF_VSOCK
	} {
		nr := info.SyscallNames[test.name]
		if _, known := info.SyscallNames[test.name]; !known {
			t.Errorf("the machine has no %s", test.name)
		}
		for many, want := range map[bool]int{false: test.once, true: test.many} {
			if got := verdict(t, many, true, uint32(info.ID), nr, test.args...); got != want {
				t.Errorf("%s%v, many runs %v: %#x, not %#x", test.name, test.args, many, got, want)
			}
		}
	}
	for name, want := range map[string]int{"memfd_create": enosys, "shmget": enosys, "semget": enosys, "msgget": enosys, "landlock_create_ruleset": enosys, "read": allow} {
		if got := verdict(t, true, false, uint32(info.ID), info.SyscallNames[name]); got != want {
			t.Errorf("%s, without a cgroup: %#x, not %#x", name, got, want)
		}
	}
	for flags, want := range map[uint64]int{
		shared: eperm, shared | 2: eperm, shared | 1<<40: eperm, shared | 0x8000: eperm, // MAP_SHARED_VALIDATE, nothing, MAP_POPULATE
		1: allow, 0x22: allow, // of a file; MAP_PRIVATE | MAP_ANONYMOUS
	} {
		if got := verdict(t, true, false, uint32(info.ID), info.SyscallNames["mmap"], 0, 4096, 3, flags); got != want {
			t.Errorf("mmap with flags %#x, without a cgroup: %#x, not %#x", flags, got, want)
		}
	}
	if got := verdict(t, true, true, uint32(info.ID), 1<<20); got != eperm {
		t.Errorf("a call that is not known yet: %#x", got)
	}
	if got := verdict(t, true, true, uint32(arch.I386.ID), 0); got != kill {
		t.Errorf("a 32-bit call: %#x", got)
	}
}

// verdict runs the filter on a system call (struct seccomp_data).
func verdict(t *testing.T, many, bounded bool, machine uint32, nr int, args ...uint64) int {
	t.Helper()
	code, err := seccomp.Filter(many, bounded)
	if err != nil {
		t.Fatal(err)
	}
	var program []bpf.Instruction
	for ; len(code) >= 8; code = code[8:] {
		program = append(program, bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(code), Jt: code[2], Jf: code[3], K: binary.NativeEndian.Uint32(code[4:]),
		}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	// The interpreter reads words as the network orders them, the kernel as the
	// machine does: each half is put where the filter looks for it.
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data, uint32(nr))
	binary.BigEndian.PutUint32(data[4:], machine)
	for i, arg := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(arg))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(arg>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
