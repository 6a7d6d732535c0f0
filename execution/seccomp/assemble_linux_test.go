package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// Run runs a filter on a system call (struct seccomp_data) and returns its verdict.
func Run(t *testing.T, code []byte, machine uint32, nr int, args ...uint64) int {
	t.Helper()
	got, err := newMachine(t, code).run(machine, nr, args...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

type virtualMachine struct{ *bpf.VM }

func newMachine(t *testing.T, code []byte) virtualMachine {
	t.Helper()
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
	return virtualMachine{vm}
}

func (m virtualMachine) run(machine uint32, nr int, args ...uint64) (int, error) {
	// The interpreter reads big-endian words, the kernel native ones: each half of an
	// argument is put where the filter loads it.
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data, uint32(nr))
	binary.BigEndian.PutUint32(data[4:], machine)
	for i, arg := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(arg))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(arg>>32))
	}
	return m.Run(data)
}

// The filter never compares an argument with the number of a call. Otherwise a process could
// change the limits of another one by putting the number of an allowed call into the half of
// an argument that the kernel ignores.
func TestArgumentIsNeverANumber(t *testing.T) {
	code, info := assembled(t)
	for _, number := range info.SyscallNames {
		if number == 0 {
			continue // with these arguments the call is allowed
		}
		for _, args := range [][]uint64{{uint64(number)<<32 | 1, 7}, {uint64(number), 7}, {1<<63 | uint64(number)<<32, 0, 0, 0}} {
			if got := Run(t, code, uint32(info.ID), info.SyscallNames["prlimit64"], args...); got != verdictErrno|int(operationNotPermitted) {
				t.Errorf("prlimit64(%#x) has the verdict %#x", args, got)
			}
		}
	}
}

func assembled(t *testing.T) ([]byte, *arch.Info) {
	t.Helper()
	code, err := Filter(true, true)
	if err != nil {
		t.Fatal(err)
	}
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	return code, info
}

// The filter agrees with the rules on every call. The arguments are random: values of all
// conditions, their neighbours, and numbers of calls, in both halves.
func TestFilterMatchesRules(t *testing.T) {
	for _, bounded := range []bool{true, false} {
		rules, err := rulesOf(true, bounded)
		if err != nil {
			t.Fatal(err)
		}
		info, err := arch.GetInfo("")
		if err != nil {
			t.Fatal(err)
		}
		code, err := assemble(rules, specs.ActErrno, info)
		if err != nil {
			t.Fatal(err)
		}
		vm, values := newMachine(t, code), interesting(rules, info)
		random := rand.New(rand.NewPCG(1, 2))
		for name, number := range info.SyscallNames {
			for range 100 {
				var args [6]uint64
				for i := range args {
					args[i] = values[random.IntN(len(values))]
				}
				got, err := vm.run(uint32(info.ID), number, args[:]...)
				if want := judge(rules, name, args); err != nil || uint32(got) != want {
					t.Fatalf("%s%#x: %#x, not %#x (%v)", name, args, got, want, err)
				}
			}
		}
	}
}

// interesting returns values that a wrong filter could confuse.
func interesting(rules []specs.LinuxSyscall, info *arch.Info) []uint64 {
	values := []uint64{0, 1 << 32, 1<<64 - 1}
	for _, rule := range rules {
		for _, c := range rule.Args {
			values = append(values, c.Value, c.Value+1, c.Value-1, c.ValueTwo, c.Value|1<<32, c.Value<<32)
		}
	}
	for _, number := range info.SyscallNames {
		values = append(values, uint64(number), uint64(number)<<32)
	}
	return values
}

// judge applies rules to a call by their definition.
func judge(rules []specs.LinuxSyscall, name string, args [6]uint64) uint32 {
	verdict := verdictErrno | uint32(operationNotPermitted)
	for _, rule := range rules {
		if !slices.Contains(rule.Names, name) {
			continue
		}
		of, err := verdictOf(rule)
		if err != nil {
			panic(err)
		}
		if len(rule.Args) == 0 {
			verdict = of
		}
	}
	for _, rule := range rules {
		if len(rule.Args) > 0 && slices.Contains(rule.Names, name) && holds(rule.Args, args) {
			of, _ := verdictOf(rule)
			return of
		}
	}
	return verdict
}

func holds(conditions []specs.LinuxSeccompArg, args [6]uint64) bool {
	for _, c := range conditions {
		value := args[c.Index]
		met, known := map[specs.LinuxSeccompOperator]bool{
			specs.OpEqualTo: value == c.Value, specs.OpNotEqual: value != c.Value,
			specs.OpLessThan: value < c.Value, specs.OpLessEqual: value <= c.Value,
			specs.OpGreaterThan: value > c.Value, specs.OpGreaterEqual: value >= c.Value,
			specs.OpMaskedEqual: value&c.Value == c.ValueTwo,
		}[c.Op]
		if !known {
			panic(fmt.Sprintf("unknown condition %s", c.Op))
		}
		if !met {
			return false
		}
	}
	return true
}
