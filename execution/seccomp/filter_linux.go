package seccomp

import (
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter returns the sandbox's policy as instructions for the kernel, for backends without an
// engine. See [Profile] for many. If bounded is not set, no cgroup limits memory, and the
// filter also denies calls that allocate memory which belongs to no process.
func Filter(many, bounded bool) ([]byte, error) {
	rules, err := rulesOf(many, bounded)
	if err != nil {
		return nil, err
	}
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("the seccomp filter: %w", err)
	}
	return assemble(rules, specs.ActErrno, info)
}

// rulesOf returns the policy's rules.
func rulesOf(many, bounded bool) ([]specs.LinuxSyscall, error) {
	rules, err := policy(many)
	if err != nil {
		return nil, err
	}
	if !bounded {
		return uncounted(unconditional(rules.Syscalls)), nil
	}
	return unconditional(rules.Syscalls), nil
}

// uncounted returns rules that also deny memory which the kernel attributes to no process:
// queues, segments and semaphores of System V, files without a name, and shared mappings of
// no file (mmap(2)), whose memory stays when a process unmaps a part of it.
func uncounted(rules []specs.LinuxSyscall) []specs.LinuxSyscall {
	denied, notThere := []string{"memfd_create", "shmget", "semget", "msgget"}, noSuchCall
	conditional := []string{"mmap"}
	for i := range rules {
		rules[i].Names = slices.DeleteFunc(rules[i].Names, func(name string) bool {
			return slices.Contains(denied, name) || slices.Contains(conditional, name)
		})
	}
	rules = append(rules, specs.LinuxSyscall{Names: denied, Action: specs.ActErrno, ErrnoRet: &notThere})
	const flags = 3                                                        // the argument of mmap
	for _, absent := range []uint64{unix.MAP_SHARED, unix.MAP_ANONYMOUS} { // MAP_SHARED is a bit of MAP_SHARED_VALIDATE too
		rules = append(rules, allow(conditional, has(flags, absent|unix.MAP_HUGETLB, 0)).LinuxSyscall)
	}
	return rules
}
