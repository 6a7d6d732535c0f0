package seccomp

import (
	"encoding/hex"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// programMachine returns the filter of programs, ready to be run, and the machine it is for.
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
		"read":                            {native, nr("read"), args{}, allowed},
		"a fork":                          {native, nr("clone"), args{17}, allowed},
		"a thread":                        {native, nr("clone"), args{0x3d0f00}, allowed},
		"a user namespace":                {native, nr("clone"), args{0x10000000 | 17}, eperm},
		"a cgroup namespace":              {native, nr("clone"), args{0x02000000}, eperm},
		"a sibling":                       {native, nr("clone"), args{0x8000 | 17}, eperm},
		"a filter":                        {native, nr("seccomp"), args{1}, eperm},
		"a filter, the old way":           {native, nr("prctl"), args{22, 2}, eperm},
		"another use of prctl":            {native, nr("prctl"), args{15}, allowed},
		"clone3":                          {native, nr("clone3"), args{}, enosys},
		"unshare of nothing":              {native, nr("unshare"), args{}, eperm},
		"a limit of files":                {native, nr("prlimit64"), args{0, 7, 1}, allowed},
		"the limit of dumps":              {native, nr("prlimit64"), args{0, 4, 1}, eperm},
		"what limit of dumps there is":    {native, nr("prlimit64"), args{0, 4, 0}, allowed},
		"the limit of dumps, the old way": {native, nr("setrlimit"), args{4, 1}, eperm},
		"another machine's call":          {native ^ 1, nr("read"), args{}, killed},
		"a call yet to be invented":       {native, 5000, args{}, allowed}, // the engine's profile knows what it allows
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
			continue // another machine has it
		}
		known++
		if got, err := vm.run(native, number); err != nil || got != eperm {
			t.Errorf("%s: %#x (%v)", name, got, err)
		}
	}
	if known < len(deniedToPrograms())-2 { // iopl and ioperm are x86's
		t.Errorf("only %d of %d names are known", known, len(deniedToPrograms()))
	}
}
