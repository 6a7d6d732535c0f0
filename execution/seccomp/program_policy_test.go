package seccomp

import (
	"encoding/hex"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// programMachine returns the filter of programs, ready to run, and the architecture it is for.
func programMachine(t *testing.T) (virtualMachine, *arch.Info) {
	t.Helper()
	machine, text, err := ProgramFilter()
	if err != nil {
		t.Fatal(err)
	}
	code, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	info, err := arch.GetInfo("")
	if err != nil || info.Name != machine {
		t.Fatalf("%v: machine %q", err, machine)
	}
	return newMachine(t, code), info
}

func TestProgramFilter(t *testing.T) {
	// What the kernel does with a system call (linux/seccomp.h).
	const allowed, eperm, enosys, killed = 0x7fff0000, 0x00050001, 0x00050026, 0x80000000
	vm, info := programMachine(t)
	native := uint32(info.ID)
	type args = []uint64
	nr := func(name string) int { return info.SyscallNames[name] }
	for name, test := range map[string]struct {
		machine uint32
		nr      int
		args    args
		want    int
	}{
		"read":                                 {native, nr("read"), args{}, allowed},
		"a fork":                               {native, nr("clone"), args{17}, allowed},
		"a thread":                             {native, nr("clone"), args{0x3d0f00}, allowed},
		"a user namespace":                     {native, nr("clone"), args{0x10000000 | 17}, eperm},
		"a cgroup namespace":                   {native, nr("clone"), args{0x02000000}, eperm},
		"a sibling":                            {native, nr("clone"), args{0x8000 | 17}, eperm},
		"a filter":                             {native, nr("seccomp"), args{1}, eperm},
		"a filter by prctl":                    {native, nr("prctl"), args{22, 2}, eperm},
		"another option of prctl":              {native, nr("prctl"), args{15}, allowed},
		"clone3":                               {native, nr("clone3"), args{}, enosys},
		"unshare of nothing":                   {native, nr("unshare"), args{}, eperm},
		"the limit on files":                   {native, nr("prlimit64"), args{0, 7, 1}, allowed},
		"the limit on core dumps":              {native, nr("prlimit64"), args{0, 4, 1}, eperm},
		"reading the limit on core dumps":      {native, nr("prlimit64"), args{0, 4, 0}, allowed},
		"the limit on core dumps by setrlimit": {native, nr("setrlimit"), args{4, 1}, eperm},
		"a call of another architecture":       {native ^ 1, nr("read"), args{}, killed},
		"an unknown call":                      {native, 5000, args{}, allowed}, // the sandbox's policy decides
	} {
		t.Run(name, func(t *testing.T) {
			got, err := vm.run(test.machine, test.nr, test.args...)
			if err != nil || got != test.want {
				t.Errorf("%#x, not %#x (%v)", got, test.want, err)
			}
		})
	}
	known := 0
	for _, name := range deniedToPrograms() {
		number, there := info.SyscallNames[name]
		if !there {
			continue // another architecture has it
		}
		known++
		if got, err := vm.run(native, number); err != nil || got != eperm {
			t.Errorf("%s: %#x (%v)", name, got, err)
		}
	}
	if known < len(deniedToPrograms())-2 { // only x86 has iopl and ioperm
		t.Errorf("only %d of %d names are known", known, len(deniedToPrograms()))
	}
}
