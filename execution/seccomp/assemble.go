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

// What the kernel does with a system call (linux/seccomp.h).
const (
	verdictKill  = 0x80000000
	verdictErrno = 0x00050000
	verdictAllow = 0x7fff0000
)

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	numberOffset    = 0
	machineOffset   = 4
	argumentsOffset = 16
	argumentBytes   = 8
)

// operationNotPermitted is EPERM, the error of a rule that names none.
const operationNotPermitted uint = 1

// call holds the rules for one system call. The first rule of conditional whose conditions
// hold decides. If there is none, verdict applies.
type call struct {
	conditional []specs.LinuxSyscall
	verdict     uint32
}

// assemble returns the filter of a list of rules for one architecture, as instructions of
// struct sock_filter (linux/filter.h). The fallback, [specs.ActErrno] or [specs.ActAllow],
// applies to calls without a rule. Names that the architecture does not have are ignored.
//
// The filter first searches for the number of the call and only then loads arguments, so that
// it never compares an argument with a number. (github.com/elastic/go-seccomp-bpf, as of
// v1.6.0, continues with the argument in the place of the number if conditions fail.)
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
	for _, i := range raw { // all supported architectures are little-endian
		encoded = binary.LittleEndian.AppendUint16(encoded, i.Op)
		encoded = append(encoded, i.Jt, i.Jf)
		encoded = binary.LittleEndian.AppendUint32(encoded, i.K)
	}
	return encoded, nil
}

// byNumber returns the rules for each system call, by its number.
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

// verdictOf returns what the kernel does by a rule's action.
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
	return 0, fmt.Errorf("the seccomp filter: unknown action %s", rule.Action)
}

// block holds the instructions for the calls with numbers from from up to that of the next
// block. Each path through them ends with a return.
type block struct {
	from         uint32
	instructions []bpf.Instruction
}

// blocksOf returns the blocks for all numbers, in ascending order.
func blocksOf(calls map[uint32]*call, fallback specs.LinuxSeccompAction) ([]block, error) {
	other, err := verdictOf(specs.LinuxSyscall{Action: fallback})
	if err != nil {
		return nil, err
	}
	var blocks []block
	next := uint32(0) // the first number without a block
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

// appendBlock appends a block, unless the last one has the same instructions.
func appendBlock(blocks []block, from uint32, instructions []bpf.Instruction) []block {
	if last := len(blocks) - 1; last >= 0 && slices.Equal(blocks[last].instructions, instructions) {
		return blocks
	}
	return append(blocks, block{from, instructions})
}

// search returns instructions that find the block of the loaded number by binary search.
func search(blocks []block) []bpf.Instruction {
	if len(blocks) == 1 {
		return blocks[0].instructions
	}
	middle := len(blocks) / 2
	lower, upper := search(blocks[:middle]), search(blocks[middle:])
	return slices.Concat([]bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: blocks[middle].from, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(lower))}, // a conditional jump reaches only 255 instructions
	}, lower, upper)
}

// instructions returns the instructions for a call, whose number is already found.
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

// testOf returns instructions that skip the given number of following ones if a condition
// does not hold. They compare the upper half of an argument and, if it is equal, the lower.
func testOf(c specs.LinuxSeccompArg, skip uint8) ([]bpf.Instruction, error) {
	upper := bpf.LoadAbsolute{Off: argumentsOffset + argumentBytes*uint32(c.Index) + 4, Size: 4}
	lower := bpf.LoadAbsolute{Off: upper.Off - 4, Size: 4}
	high, low := uint32(c.Value>>32), uint32(c.Value)
	unequal := func(test bpf.JumpTest, value uint32) bpf.Instruction { // skips if the test fails; must come last
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
	return nil, fmt.Errorf("the seccomp filter: unknown condition %s", c.Op)
}

// onlyOn returns instructions that kill a process which makes a system call of another
// architecture, such as a 32-bit call, and load the number of the call.
func onlyOn(info *arch.Info) []bpf.Instruction {
	start := []bpf.Instruction{
		bpf.LoadAbsolute{Off: machineOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: verdictKill},
		bpf.LoadAbsolute{Off: numberOffset, Size: 4},
	}
	if info.ID == arch.X86_64.ID { // a call of x32 has this bit set
		start = append(start,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(arch.X32.SeccompMask), SkipFalse: 1},
			bpf.RetConstant{Val: verdictErrno | uint32(noSuchCall)})
	}
	return start
}
