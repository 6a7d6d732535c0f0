package seccomp

import (
	"encoding/binary"
	"fmt"

	bpfseccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
)

// Assemble makes a filter of a policy, for one machine, as the kernel takes it:
// instructions of struct sock_filter (linux/filter.h).
func Assemble(policy bpfseccomp.Policy, info *arch.Info) ([]byte, error) {
	program, err := policy.Assemble()
	if err != nil {
		return nil, fmt.Errorf("the seccomp filter: %w", err)
	}
	raw, err := bpf.Assemble(append(onlyOn(info), program...))
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

// onlyOn lets no system call of another machine's kind pass, such as those of
// 32-bit programs: the library's own check would allow them all.
func onlyOn(info *arch.Info) []bpf.Instruction {
	const archOffset = 4 // of struct seccomp_data
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: archOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: uint32(bpfseccomp.ActionKillProcess)},
	}
}
