package runner

import (
	"encoding/binary"
	"encoding/hex"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
)

// What the kernel does with a system call (linux/seccomp.h).
const (
	allow = 0x7fff0000
	errno = 0x00050000
	kill  = 0x80000000
	eperm = 1
)

// call is a system call as a filter sees it (struct seccomp_data).
type call struct {
	arch uint32
	nr   int
	args [6]uint64
}

func (c call) bytes() []byte {
	// The interpreter reads words as the network orders them, the kernel as
	// the machine does: each half is put where the filter looks for it.
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data, uint32(c.nr))
	binary.BigEndian.PutUint32(data[4:], c.arch)
	for i, arg := range c.args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(arg))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(arg>>32))
	}
	return data
}

func programOf(t *testing.T) (*bpf.VM, *arch.Info) {
	t.Helper()
	machine, text, err := programFilter()
	if err != nil {
		t.Fatal(err)
	}
	code, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var program []bpf.Instruction
	for ; len(code) >= 8; code = code[8:] {
		program = append(program, bpf.RawInstruction{
			Op: binary.LittleEndian.Uint16(code), Jt: code[2], Jf: code[3], K: binary.LittleEndian.Uint32(code[4:]),
		}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	info, err := arch.GetInfo("")
	if err != nil || info.Name != machine {
		t.Fatalf("%v: machine %q", err, machine)
	}
	return vm, info
}

func TestFilter(t *testing.T) {
	vm, info := programOf(t)
	native := uint32(info.ID)
	nr := func(name string) int { return info.SyscallNames[name] }
	for name, test := range map[string]struct {
		call call
		want uint32
	}{
		"read":                            {call{native, nr("read"), [6]uint64{}}, allow},
		"a fork":                          {call{native, nr("clone"), [6]uint64{17}}, allow},
		"a thread":                        {call{native, nr("clone"), [6]uint64{0x3d0f00}}, allow},
		"a user namespace":                {call{native, nr("clone"), [6]uint64{0x10000000 | 17}}, errno | eperm},
		"a cgroup namespace":              {call{native, nr("clone"), [6]uint64{0x02000000}}, errno | eperm},
		"a sibling":                       {call{native, nr("clone"), [6]uint64{0x8000 | 17}}, errno | eperm},
		"a filter":                        {call{native, nr("seccomp"), [6]uint64{1}}, errno | eperm},
		"a filter, the old way":           {call{native, nr("prctl"), [6]uint64{22, 2}}, errno | eperm},
		"another use of prctl":            {call{native, nr("prctl"), [6]uint64{15}}, allow},
		"clone3":                          {call{native, nr("clone3"), [6]uint64{}}, errno | noSuchCall},
		"unshare of nothing":              {call{native, nr("unshare"), [6]uint64{}}, errno | eperm},
		"a limit of files":                {call{native, nr("prlimit64"), [6]uint64{0, 7, 1}}, allow},
		"the limit of dumps":              {call{native, nr("prlimit64"), [6]uint64{0, 4, 1}}, errno | eperm},
		"what limit of dumps there is":    {call{native, nr("prlimit64"), [6]uint64{0, 4, 0}}, allow},
		"the limit of dumps, the old way": {call{native, nr("setrlimit"), [6]uint64{4, 1}}, errno | eperm},
		"another machine's call":          {call{native ^ 1, nr("read"), [6]uint64{}}, kill},
		"a call yet to be invented":       {call{native, 5000, [6]uint64{}}, allow}, // the engine's profile knows what it allows
	} {
		t.Run(name, func(t *testing.T) {
			got, err := vm.Run(test.call.bytes())
			if err != nil || uint32(got) != test.want {
				t.Errorf("%#x, not %#x (%v)", got, test.want, err)
			}
		})
	}
	known := 0
	for _, name := range forbidden() {
		number, there := info.SyscallNames[name]
		if !there {
			continue // another machine has it
		}
		known++
		if got, err := vm.Run(call{arch: native, nr: number}.bytes()); err != nil || uint32(got) != errno|eperm {
			t.Errorf("%s: %#x (%v)", name, got, err)
		}
	}
	if known < len(forbidden())-2 { // iopl and ioperm are x86's
		t.Errorf("only %d of %d names are known", known, len(forbidden()))
	}
}
