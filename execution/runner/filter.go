package runner

import (
	"encoding/hex"
	"math"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"

	sandboxseccomp "github.com/vivarium-sandbox/vivarium/execution/seccomp"
)

// forbidden are the system calls that no program may make, whatever else the
// engine's own profile forbids: what the supervisor may do and its programs may
// not, and what has been the way out of sandboxes before.
func forbidden() []string {
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

// lockPipes are the system calls that hold a pipe's lock while they wait for
// something else: whoever reads or opens that pipe then, PID 1 for one, sleeps
// where no signal reaches it, and so its container could not be removed. Programs
// that get ENOSYS copy in another way.
func lockPipes() []string { return []string{"splice", "tee", "vmsplice", "sendfile"} }

// Linux's own numbers: the server may run on another system than its engine.
const (
	// newNamespaces are the flags of clone(2) that make namespaces: NEWNS,
	// NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
	newNamespaces = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
	// newRelations are those that make a process the child or tracee of
	// another than its maker: CLONE_PARENT, CLONE_PTRACE.
	newRelations = 0x00008000 | 0x00002000

	unixFamily    = 1  // AF_UNIX
	netlinkFamily = 16 // AF_NETLINK
	coreLimit     = 4  // RLIMIT_CORE
	levelIPv6     = 41 // SOL_IPV6
	flowLabels    = 32 // IPV6_FLOWLABEL_MGR
	levelSocket   = 1  // SOL_SOCKET
	setSeccomp    = 22 // PR_SET_SECCOMP
	fcntlCommand  = 1  // the argument of fcntl(2)
	optionLevel   = 1  // the argument of setsockopt(2)
	optionName    = 2
	noSuchCall    = 38 // ENOSYS
	noSuchFamily  = 97 // EAFNOSUPPORT
)

// families are the kinds of sockets that programs may make: AF_UNIX, AF_INET,
// AF_INET6 and AF_NETLINK, which getifaddrs(3) uses.
func families() []uint64 { return []uint64{1, 2, 10, 16} }

// otherNetlink are the conditions under which a socket is one of netlink that asks
// for anything but addresses and routes, NETLINK_ROUTE: other protocols tell what
// the kernel remembers of the connections of other runs.
func otherNetlink() seccomp.ArgumentConditions {
	return append(isInt(0, netlinkFamily), seccomp.Condition{Argument: 2, Operation: seccomp.BitsSet, Value: math.MaxUint32})
}

// leases are the conditions under which fcntl(2) asks for a lease on a file (1024),
// for which whoever opens that file has to wait, for news of a folder (1026), or
// for what Linux may yet invent from 1039 on: delegations, which are leases too,
// were. Those between are of pipes, seals and copies of descriptors.
func leases() []seccomp.NameWithConditions {
	command := func(operation seccomp.Operation, value uint64) seccomp.Condition {
		return seccomp.Condition{Argument: fcntlCommand, Operation: operation, Value: value}
	}
	return []seccomp.NameWithConditions{{
		Name: "fcntl",
		Conditions: seccomp.ArgumentConditions{
			command(seccomp.GreaterOrEqual, 1024), command(seccomp.LessOrEqual, 1026), command(seccomp.NotEqual, 1025),
		},
	}, {
		Name: "fcntl", Conditions: seccomp.ArgumentConditions{command(seccomp.GreaterThan, 1038)},
	}}
}

// socketFilters are the options of sockets that attach programs of the kernel's, which
// take of what it has for all together: SO_ATTACH_FILTER, SO_ATTACH_BPF and both
// SO_ATTACH_REUSEPORT ones.
func socketFilters() []seccomp.NameWithConditions {
	var all []seccomp.NameWithConditions
	for _, option := range []uint32{26, 50, 51, 52} {
		all = append(all, seccomp.NameWithConditions{
			Name: "setsockopt", Conditions: append(isInt(optionLevel, levelSocket), isInt(optionName, option)...),
		})
	}
	return all
}

// isInt are the conditions under which an argument that the kernel takes for an
// int has a value: in the other half of it a program may put what it likes.
func isInt(argument, value uint32) seccomp.ArgumentConditions {
	conditions := seccomp.ArgumentConditions{{Argument: argument, Operation: seccomp.BitsNotSet, Value: uint64(^value)}}
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if value&bit != 0 {
			conditions = append(conditions, seccomp.Condition{Argument: argument, Operation: seccomp.BitsSet, Value: uint64(bit)})
		}
	}
	return conditions
}

// programFilter assembles the seccomp filter that programs run behind, for the
// machine that this server runs on: its name as uname(2) gives it, and the
// instructions as hexadecimal digits. Another machine's supervisor does without
// it and refuses to serve many runs. Both are empty where the server's own
// machine is one that nobody has written the filter for.
func programFilter() (machine, instructions string, err error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return "", "", nil //nolint:nilerr // the library does not know this machine
	}
	encoded, err := sandboxseccomp.Assemble(filterPolicy(info), info)
	if err != nil {
		return "", "", err
	}
	return info.Name, hex.EncodeToString(encoded), nil
}

func filterPolicy(info *arch.Info) seccomp.Policy {
	names := slices.DeleteFunc(forbidden(), func(name string) bool {
		_, there := info.SyscallNames[name]
		return !there
	})
	var otherFamilies seccomp.ArgumentConditions
	for _, family := range families() {
		otherFamilies = append(otherFamilies, seccomp.Condition{Operation: seccomp.NotEqual, Value: family})
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{
			{
				Action: seccomp.ActionErrno, // EPERM
				Names:  names,
				NamesWithCondtions: append(append(leases(), socketFilters()...), seccomp.NameWithConditions{
					Name: "prctl", Conditions: isInt(0, setSeccomp),
				}, seccomp.NameWithConditions{
					Name:       "clone",
					Conditions: seccomp.ArgumentConditions{{Operation: seccomp.BitsSet, Value: newNamespaces | newRelations}},
				}, seccomp.NameWithConditions{
					// At 0 a process's memory goes to the host's handler of dumps, at our 1 to nobody: core(5).
					Name: "setrlimit", Conditions: isInt(0, coreLimit),
				}, seccomp.NameWithConditions{
					Name:       "prlimit64",
					Conditions: append(isInt(1, coreLimit), seccomp.Condition{Argument: 2, Operation: seccomp.NotEqual}),
				}, seccomp.NameWithConditions{
					// Flow labels stay for a minute, for all in the network namespace to see.
					Name:       "setsockopt",
					Conditions: append(isInt(optionLevel, levelIPv6), isInt(optionName, flowLabels)...),
				}),
			},
			{
				// Its flags lie in memory, out of a filter's reach; C libraries then take clone.
				Action: seccomp.ActionErrno | noSuchCall,
				Names:  append(lockPipes(), "clone3"),
			},
			{
				Action: seccomp.ActionErrno | noSuchFamily,
				NamesWithCondtions: []seccomp.NameWithConditions{
					{Name: "socket", Conditions: otherFamilies},
					{Name: "socket", Conditions: otherNetlink()},
					{Name: "socketpair", Conditions: seccomp.ArgumentConditions{{Operation: seccomp.NotEqual, Value: unixFamily}}},
				},
			},
		},
	}
}
