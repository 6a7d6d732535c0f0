package seccomp

import (
	"encoding/hex"
	"math"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// deniedToPrograms are the system calls that no program may make, whatever else the
// engine's own profile forbids: what the supervisor may do and its programs may
// not, and what has been the way out of sandboxes before.
func deniedToPrograms() []string {
	return []string{
		// namespaces
		"unshare", "setns",
		// mounts and roots
		"mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr",
		"fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
		// other processes
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd", "kcmp",
		// doors into the kernel
		"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
		"seccomp", // whose filters are kept in what the kernel has for all together (bpf_jit_limit)
		"keyctl", "add_key", "request_key", "fanotify_init", "name_to_handle_at", "open_by_handle_at",
		"io_setup", "memfd_secret",
		// the machine
		"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
		"acct", "quotactl", "quotactl_fd", "syslog", "vhangup", "iopl", "ioperm", "settimeofday", "clock_settime",
		"sethostname", "setdomainname",
	}
}

// Linux's own numbers: the server may run on another system than its engine.
const (
	// newNamespaces are the flags of clone(2) that make namespaces: NEWNS,
	// NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
	newNamespaces = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
	// newRelations are those that make a process the child or tracee of
	// another than its maker: CLONE_PARENT, CLONE_PTRACE.
	newRelations = 0x00008000 | 0x00002000

	coreLimit  = 4  // RLIMIT_CORE
	setSeccomp = 22 // PR_SET_SECCOMP
)

// ProgramFilter assembles the seccomp filter that programs run behind, for the
// machine that this server runs on: its name as uname(2) gives it, and the
// instructions as hexadecimal digits. Another machine's supervisor does without
// it and refuses to serve many runs. Both are empty where the server's own
// machine is one that nobody has written the filter for.
func ProgramFilter() (machine, instructions string, err error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return "", "", nil //nolint:nilerr // the library does not know this machine
	}
	encoded, err := assemble(programRules(), specs.ActAllow, info)
	if err != nil {
		return "", "", err
	}
	return info.Name, hex.EncodeToString(encoded), nil
}

// programRules returns what programs are denied; the rest is the sandbox's own profile's
// to judge.
func programRules() []specs.LinuxSyscall {
	notThere := noSuchCall
	return []specs.LinuxSyscall{
		{Names: deniedToPrograms(), Action: specs.ActErrno}, // EPERM
		// The flags of clone3 lie in memory, out of a filter's reach; C libraries then take clone.
		// Rules of Landlock are memory that belongs to no process. The supervisor needs some.
		{Names: append(pipeCalls(), "clone3", "landlock_create_ruleset"), Action: specs.ActErrno, ErrnoRet: &notThere},
		{Names: []string{"prctl"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{isInt(0, setSeccomp)}},
		// At 0 a process's memory goes to the host's handler of dumps, at our 1 to nobody: core(5).
		{Names: []string{"setrlimit"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{isInt(0, coreLimit)}},
		{Names: []string{"prlimit64"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{
			isInt(1, coreLimit), {Index: 2, Op: specs.OpNotEqual}, // a new limit is given
		}},
		{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{
			Value: newNamespaces | newRelations, Op: specs.OpMaskedEqual,
		}}},
		{Names: []string{"clone"}, Action: specs.ActErrno},
	}
}

// isInt returns the condition that an argument has a value which the kernel takes for an
// int: in the other half of it a program may put what it likes.
func isInt(argument uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: argument, Value: math.MaxUint32, ValueTwo: value, Op: specs.OpMaskedEqual}
}
