package seccomp

import (
	"encoding/hex"
	"fmt"
	"math"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The program's policy has two parts, so that not all of it has to be installed for each
// program. The process that forks programs installs the first, larger part for itself and for
// them. Each program installs the second, which denies what that process needs. The kernel
// applies both.

// deniedToPrograms returns the system calls that neither programs nor the process that forks
// them may make, in addition to those that the sandbox's policy denies: calls that have been
// used to escape from sandboxes. To deny a further call to programs, add its name.
func deniedToPrograms() []string {
	return []string{
		// mounts and roots
		"mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr",
		"fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
		// other processes
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd", "kcmp",
		// large attack surfaces of the kernel
		"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
		"seccomp", // the memory for filters is limited for the whole machine (bpf_jit_limit)
		"keyctl", "add_key", "request_key", "fanotify_init", "name_to_handle_at", "open_by_handle_at",
		"io_setup", "memfd_secret",
		// the machine
		"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
		"acct", "quotactl", "quotactl_fd", "syslog", "vhangup", "iopl", "ioperm", "settimeofday", "clock_settime",
		"sethostname", "setdomainname",
	}
}

// Linux's numbers: the server may run on another system than its engine.
const (
	// newNamespaces are the flags of clone(2) that create namespaces: NEWNS, NEWCGROUP,
	// NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
	newNamespaces = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
	// newRelations are the flags of clone(2) that make the new process a child or tracee
	// of another process than the caller: CLONE_PARENT, CLONE_PTRACE.
	newRelations = 0x00008000 | 0x00002000

	coreLimit  = 4  // RLIMIT_CORE
	setSeccomp = 22 // PR_SET_SECCOMP
)

// ProgramFilter is the program's policy for one architecture.
type ProgramFilter struct {
	// Machine is the name of the architecture, as uname(2) returns it. A supervisor on one
	// without a filter installs none, and refuses to serve many runs.
	Machine string
	// First and Second are the instructions of both parts, in hexadecimal digits.
	First, Second string
}

// ProgramFilters returns the program's policy for each architecture that sandboxes have: an
// engine or a node may have another one than the server.
func ProgramFilters() ([]ProgramFilter, error) {
	var all []ProgramFilter
	for _, machine := range machines() {
		info, err := arch.GetInfo(machine)
		if err != nil {
			return nil, fmt.Errorf("the seccomp filter: %w", err)
		}
		filter, err := programFilter(info)
		if err != nil {
			return nil, err
		}
		all = append(all, filter)
	}
	return all, nil
}

func programFilter(info *arch.Info) (ProgramFilter, error) {
	first, err := assemble(firstRules(), specs.ActAllow, info)
	if err != nil {
		return ProgramFilter{}, err
	}
	second, err := assemble(secondRules(), specs.ActAllow, info)
	if err != nil {
		return ProgramFilter{}, err
	}
	return ProgramFilter{info.Name, hex.EncodeToString(first), hex.EncodeToString(second)}, nil
}

// firstRules returns the rules of the first part. It allows all other calls, to which the
// sandbox's policy still applies.
func firstRules() []specs.LinuxSyscall {
	notThere := noSuchCall
	return []specs.LinuxSyscall{
		{Names: deniedToPrograms(), Action: specs.ActErrno}, // EPERM
		{Names: pipeCalls(), Action: specs.ActErrno, ErrnoRet: &notThere},
		// With a limit of 0 the kernel still passes core dumps to the host's handler. With 1, which
		// the supervisor sets, it drops them: core(5).
		{Names: []string{"setrlimit"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{isInt(0, coreLimit)}},
		{Names: []string{"prlimit64"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{
			isInt(1, coreLimit), {Index: 2, Op: specs.OpNotEqual}, // if a new limit is passed
		}},
		{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{
			Value: newNamespaces | newRelations, Op: specs.OpMaskedEqual,
		}}},
		{Names: []string{"clone"}, Action: specs.ActErrno},
	}
}

// secondRules returns the rules of the second part, which allows all other calls.
func secondRules() []specs.LinuxSyscall {
	notThere := noSuchCall
	return []specs.LinuxSyscall{
		{Names: []string{"unshare", "setns"}, Action: specs.ActErrno}, // EPERM
		// A filter cannot read the flags of clone3, which are in memory. C libraries fall back to clone.
		// The memory of Landlock's rules belongs to no process.
		{Names: []string{"clone3", "landlock_create_ruleset"}, Action: specs.ActErrno, ErrnoRet: &notThere},
		{Names: []string{"prctl"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{isInt(0, setSeccomp)}},
	}
}

// isInt returns the condition that an argument has a value of which the kernel uses only the
// lower 32 bits: programs can set the others to anything.
func isInt(argument uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: argument, Value: math.MaxUint32, ValueTwo: value, Op: specs.OpMaskedEqual}
}
