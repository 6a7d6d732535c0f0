package seccomp

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// Verdicts of the kernel on a system call (linux/seccomp.h).
const (
	verdictKill  = 0x80000000
	verdictErrno = 0x00050000
	verdictAllow = 0x7fff0000
)

// Where the parts of a system call lie in struct seccomp_data (linux/seccomp.h).
const (
	numberOffset    = 0
	machineOffset   = 4
	argumentsOffset = 16
	argumentBytes   = 8
)

// operationNotPermitted is EPERM, which a rule has that names no error.
const operationNotPermitted uint = 1

// call is what the rules say of one system call: those with conditions in their order, of
// which the first that applies decides, and then the verdict.
type call struct {
	conditional []specs.LinuxSyscall
	verdict     uint32
}

// assemble returns the filter of a list of rules for one machine, as the kernel takes it:
// instructions of struct sock_filter (linux/filter.h). A call that no rule applies to gets
// the fallback, an error number or [specs.ActAllow]. Names that the machine does not know
// are left out.
//
// The filter searches for the number of the call, and looks at arguments only when it has
// found it: an argument is never taken for a number. (github.com/elastic/go-seccomp-bpf, as
// of v1.6.0, goes on with the argument in the place of the number where conditions fail.)
func assemble(rules []specs.LinuxSyscall, fallback specs.LinuxSeccompAction, info *arch.Info) ([]byte, error) {
	calls, err := byNumber(rules, fallback, info)
	if err != nil {
		return nil, err
	}
	blocks, err := blocksOf(calls, fallback)
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(append(onlyOn(info), search(blocks)...))
	if err != nil {
		return nil, fmt.Errorf("the seccomp filter: %w", err)
	}
	var encoded []byte
	for _, i := range raw { // for machines that are all little-endian
		encoded = binary.LittleEndian.AppendUint16(encoded, i.Op)
		encoded = append(encoded, i.Jt, i.Jf)
		encoded = binary.LittleEndian.AppendUint32(encoded, i.K)
	}
	return encoded, nil
}

// byNumber sorts rules by the numbers of the calls.
func byNumber(rules []specs.LinuxSyscall, fallback specs.LinuxSeccompAction, info *arch.Info) (map[uint32]*call, error) {
	other, err := verdictOf(specs.LinuxSyscall{Action: fallback})
	if err != nil {
		return nil, err
	}
	calls := make(map[uint32]*call)
	for _, rule := range rules {
		verdict, err := verdictOf(rule)
		if err != nil {
			return nil, err
		}
		for _, name := range rule.Names {
			number, known := info.SyscallNames[name]
			if !known {
				continue
			}
			c := calls[uint32(number)]
			if c == nil {
				c = &call{verdict: other}
				calls[uint32(number)] = c
			}
			if len(rule.Args) > 0 {
				c.conditional = append(c.conditional, rule)
			} else {
				c.verdict = verdict
			}
		}
	}
	return calls, nil
}

// verdictOf returns the kernel's verdict for a rule's action.
func verdictOf(rule specs.LinuxSyscall) (uint32, error) {
	if rule.Action == specs.ActAllow {
		return verdictAllow, nil
	}
	if rule.Action == specs.ActErrno {
		number := operationNotPermitted
		if rule.ErrnoRet != nil {
			number = *rule.ErrnoRet
		}
		return verdictErrno | uint32(number), nil
	}
	return 0, fmt.Errorf("the seccomp filter: an unknown action %s", rule.Action)
}

// block is what happens to calls from a number on, up to the next block's. Each path
// through its instructions ends with a return.
type block struct {
	from         uint32
	instructions []bpf.Instruction
}

// blocksOf returns the blocks of all numbers there are, in their order.
func blocksOf(calls map[uint32]*call, fallback specs.LinuxSeccompAction) ([]block, error) {
	other, err := verdictOf(specs.LinuxSyscall{Action: fallback})
	if err != nil {
		return nil, err
	}
	var blocks []block
	next := uint32(0) // the first number that no block is about
	for _, number := range slices.Sorted(maps.Keys(calls)) {
		if number > next {
			blocks = appendBlock(blocks, next, []bpf.Instruction{bpf.RetConstant{Val: other}})
		}
		instructions, err := calls[number].instructions()
		if err != nil {
			return nil, err
		}
		blocks = appendBlock(blocks, number, instructions)
		next = number + 1
	}
	return appendBlock(blocks, next, []bpf.Instruction{bpf.RetConstant{Val: other}}), nil
}

// appendBlock adds a block, unless the last one does the same.
func appendBlock(blocks []block, from uint32, instructions []bpf.Instruction) []block {
	if last := len(blocks) - 1; last >= 0 && slices.Equal(blocks[last].instructions, instructions) {
		return blocks
	}
	return append(blocks, block{from, instructions})
}

// search returns instructions that find the block of the number that is loaded, by halves.
func search(blocks []block) []bpf.Instruction {
	if len(blocks) == 1 {
		return blocks[0].instructions
	}
	middle := len(blocks) / 2
	lower, upper := search(blocks[:middle]), search(blocks[middle:])
	return slices.Concat([]bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: blocks[middle].from, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(lower))}, // a jump with a condition reaches 255 instructions
	}, lower, upper)
}

// instructions returns the block of a call.
func (c *call) instructions() ([]bpf.Instruction, error) {
	var all []bpf.Instruction
	for _, rule := range c.conditional {
		verdict, err := verdictOf(rule)
		if err != nil {
			return nil, err
		}
		body := []bpf.Instruction{bpf.RetConstant{Val: verdict}}
		for _, condition := range slices.Backward(rule.Args) {
			test, err := testOf(condition, uint8(len(body)))
			if err != nil {
				return nil, err
			}
			body = append(test, body...)
		}
		all = append(all, body...)
	}
	return append(all, bpf.RetConstant{Val: c.verdict}), nil
}

// testOf returns instructions that skip others where a condition does not hold. They
// compare the upper half of an argument, which decides unless it is equal, and then the lower.
func testOf(c specs.LinuxSeccompArg, skip uint8) ([]bpf.Instruction, error) {
	upper := bpf.LoadAbsolute{Off: argumentsOffset + argumentBytes*uint32(c.Index) + 4, Size: 4}
	lower := bpf.LoadAbsolute{Off: upper.Off - 4, Size: 4}
	high, low := uint32(c.Value>>32), uint32(c.Value)
	unequal := func(test bpf.JumpTest, value uint32) bpf.Instruction { // skips where the test fails, at the end
		return bpf.JumpIf{Cond: test, Val: value, SkipFalse: skip}
	}
	ordered := func(decided, last bpf.JumpTest) []bpf.Instruction {
		return []bpf.Instruction{
			upper,
			bpf.JumpIf{Cond: decided, Val: high, SkipTrue: 3}, // it holds
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: high, SkipFalse: skip + 2},
			lower, unequal(last, low),
		}
	}
	switch c.Op {
	case specs.OpEqualTo:
		return []bpf.Instruction{
			upper,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: high, SkipFalse: skip + 2},
			lower, unequal(bpf.JumpEqual, low),
		}, nil
	case specs.OpMaskedEqual: // Value is the mask
		return []bpf.Instruction{
			upper,
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: high},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(c.ValueTwo >> 32), SkipFalse: skip + 3},
			lower,
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: low},
			unequal(bpf.JumpEqual, uint32(c.ValueTwo)),
		}, nil
	case specs.OpNotEqual:
		return []bpf.Instruction{
			upper,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: high, SkipTrue: 2},
			lower, unequal(bpf.JumpNotEqual, low),
		}, nil
	case specs.OpLessThan:
		return ordered(bpf.JumpLessThan, bpf.JumpLessThan), nil
	case specs.OpLessEqual:
		return ordered(bpf.JumpLessThan, bpf.JumpLessOrEqual), nil
	case specs.OpGreaterThan:
		return ordered(bpf.JumpGreaterThan, bpf.JumpGreaterThan), nil
	case specs.OpGreaterEqual:
		return ordered(bpf.JumpGreaterThan, bpf.JumpGreaterOrEqual), nil
	}
	return nil, fmt.Errorf("the seccomp filter: an unknown condition %s", c.Op)
}

// onlyOn returns instructions that end a process which makes a call of another machine's
// kind, such as those of 32-bit programs, and load the number of the call.
func onlyOn(info *arch.Info) []bpf.Instruction {
	start := []bpf.Instruction{
		bpf.LoadAbsolute{Off: machineOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: verdictKill},
		bpf.LoadAbsolute{Off: numberOffset, Size: 4},
	}
	if info.ID == arch.X86_64.ID { // x32 has numbers of its own, from a bit on
		start = append(start,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(arch.X32.SeccompMask), SkipFalse: 1},
			bpf.RetConstant{Val: verdictErrno | uint32(noSuchCall)})
	}
	return start
}
