package seccomp

import (
	"encoding/hex"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// bothParts is the policy of programs as the kernel applies it: the stricter verdict of two
// filters.
type bothParts struct{ first, second virtualMachine }

func (b bothParts) run(machine uint32, nr int, args ...uint64) (int, error) {
	first, err := b.first.run(machine, nr, args...)
	if err != nil {
		return 0, err
	}
	second, err := b.second.run(machine, nr, args...)
	if int32(first) < int32(second) { // as the kernel compares them: to kill is the least
		return first, err
	}
	return second, err
}

// programMachine returns the policy of programs, ready to run, and the architecture it is for.
func programMachine(t *testing.T) (bothParts, *arch.Info) {
	t.Helper()
	filters, err := ProgramFilters()
	if err != nil {
		t.Fatal(err)
	}
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	native := slices.IndexFunc(filters, func(f ProgramFilter) bool { return f.Machine == info.Name })
	if native < 0 {
		t.Fatalf("there is no filter for %s", info.Name)
	}
	filter := filters[native]
	var parts [2]virtualMachine
	for i, text := range []string{filter.First, filter.Second} {
		code, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		parts[i] = newMachine(t, code)
	}
	return bothParts{parts[0], parts[1]}, info
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

// Each machine has a filter of its own, under the name that uname(2) returns there.
func TestProgramFilters(t *testing.T) {
	filters, err := ProgramFilters()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, filter := range filters {
		names = append(names, filter.Machine)
		info, err := arch.GetInfo(machines()[i])
		if err != nil {
			t.Fatal(err)
		}
		code, err := hex.DecodeString(filter.First)
		if err != nil {
			t.Fatal(err)
		}
		vm := newMachine(t, code)
		wantVerdict(t, vm, info, "read", verdictAllow)
		for _, call := range []string{"mount", "ptrace", "bpf", "io_uring_setup", "keyctl"} {
			wantVerdict(t, vm, info, call, verdictErrno|uint32(operationNotPermitted))
		}
	}
	if want := []string{"x86_64", "aarch64"}; !slices.Equal(names, want) {
		t.Errorf("they are for %q, not %q", names, want)
	}
}

// Both parts together do what one filter of all rules would do, for each system call and each
// class of arguments, on each architecture.
func TestProgramFilterParts(t *testing.T) {
	numbers := []uint64{0, 1, setSeccomp, coreLimit, 17, 0x3d0f00, newNamespaces, newRelations, newNamespaces | 17, 0x8000 | 17}
	for _, number := range numbers {
		numbers = append(numbers, number|1<<32, number|1<<63)
	}
	for _, name := range []string{"amd64", "arm64"} {
		info, err := arch.GetInfo(name)
		if err != nil {
			t.Fatal(err)
		}
		whole := assembledFor(t, append(firstRules(), secondRules()...), info)
		parts := bothParts{assembledFor(t, firstRules(), info), assembledFor(t, secondRules(), info)}
		for call, number := range info.SyscallNames {
			for _, first := range numbers {
				for _, second := range numbers {
					want, err := whole.run(uint32(info.ID), number, first, second, first)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := parts.run(uint32(info.ID), number, first, second, first); err != nil || got != want {
						t.Fatalf("%s, %s(%#x, %#x, %#x): %#x, not %#x (%v)", name, call, first, second, first, got, want, err)
					}
				}
			}
		}
	}
}

func assembledFor(t *testing.T, rules []specs.LinuxSyscall, info *arch.Info) virtualMachine {
	t.Helper()
	code, err := assemble(rules, specs.ActAllow, info)
	if err != nil {
		t.Fatal(err)
	}
	return newMachine(t, code)
}

// The process that forks programs can make namespaces, enter them and install the second part,
// and nothing else that programs cannot do.
func TestFirstPart(t *testing.T) {
	both, info := programMachine(t)
	var more []string
	for call, number := range info.SyscallNames {
		first, err := both.first.run(uint32(info.ID), number, setSeccomp)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := both.second.run(uint32(info.ID), number, setSeccomp); err != nil || first == verdictAllow && second != verdictAllow {
			more = append(more, call)
		}
	}
	slices.Sort(more)
	if want := []string{"clone3", "landlock_create_ruleset", "prctl", "setns", "unshare"}; !slices.Equal(more, want) {
		t.Errorf("it can call %q, not %q", more, want)
	}
}
