// Package seccomp defines the system calls that a sandbox may make, for all backends. There
// are two policies:
//
//   - The sandbox's policy applies to the first process and all that it starts. It is Docker's
//     default profile with changes of our own. [Profile] returns it for an engine, [NodeProfile]
//     for the runtime of a Kubernetes node, [Filter] for the kernel. Its rules are in sandbox_policy.go, in sandbox_sockets.go for the memory of
//     sockets, and in sandbox_kernel.go for other memory and work of the kernel that no limit
//     of the sandbox covers.
//   - The program's policy denies programs further calls, which the supervisor needs.
//     [ProgramFilter] returns it. Its rules are in program_policy.go.
//
// Both become instructions for the kernel in assemble.go.
package seccomp

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultProfile is Docker's default profile. The library has it on Linux only, but the
// server may run on another system than its engine. go test -update writes it.
//
//go:embed default.json
var defaultProfile []byte

// Error numbers as Linux has them.
const (
	success      uint = 0
	noSuchCall   uint = 38 // ENOSYS
	notSupported uint = 95 // EOPNOTSUPP
	noSuchFamily uint = 97 // EAFNOSUPPORT
)

// allow returns a rule that allows calls whose arguments meet all conditions.
func allow(names []string, conditions ...specs.LinuxSeccompArg) *seccomp.Syscall {
	return &seccomp.Syscall{LinuxSyscall: specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: conditions}}
}

// answer returns a rule by which calls whose arguments meet all conditions do nothing and
// fail with an error number, or do nothing and succeed if the number is [success].
func answer(number uint, names []string, conditions ...specs.LinuxSeccompArg) *seccomp.Syscall {
	return &seccomp.Syscall{LinuxSyscall: specs.LinuxSyscall{
		Names: names, Action: specs.ActErrno, ErrnoRet: &number, Args: conditions,
	}}
}

// is returns the condition that an argument has a value. It compares all 64 bits, also where
// the kernel uses only 32: a rule that allows a call then does not apply if the others are set.
func is(argument uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: argument, Value: value, Op: specs.OpEqualTo}
}

// isBelow returns the condition that an argument is less than a value.
func isBelow(argument uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: argument, Value: value, Op: specs.OpLessThan}
}

// isAbove returns the condition that an argument is greater than a value.
func isAbove(argument uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: argument, Value: value, Op: specs.OpGreaterThan}
}

// has returns the condition that those bits of an argument that are in mask have a value.
func has(argument uint, mask, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: argument, Value: mask, ValueTwo: value, Op: specs.OpMaskedEqual}
}

// onlyForCaller returns the rules for calls by which a process could keep another process of
// the same user, such as the supervisor, from being scheduled, or change its limits. They are
// allowed only for the calling process, which is 0 in these arguments.
func onlyForCaller() []*seccomp.Syscall {
	return []*seccomp.Syscall{
		allow([]string{"sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity", "prlimit64"}, is(0, 0)),
		allow([]string{"setpriority"}, is(0, 0), is(1, 0)), // PRIO_PROCESS
		allow([]string{"ioprio_set"}, is(0, 1), is(1, 0)),  // IOPRIO_WHO_PROCESS
	}
}

// fileControl returns the rules for fcntl(2). They allow the listed commands only, since new
// kernels add further ones. Not allowed are:
//
//   - leases, and the delegations of new kernels: PID 1 would wait for their end when it
//     opens such a file;
//   - notifications of folders;
//   - locks of open files (F_OFD_SETLK): /proc/locks lists those of the whole machine, so the
//     supervisor could not count the sandbox's own.
func fileControl() []*seccomp.Syscall {
	names := []string{"fcntl", "fcntl64"}
	const command, openFileLocks, getLease, firstHarmless, lastHarmless = 1, 36, 1025, 1027, 1038
	rules := []*seccomp.Syscall{allow(names, isBelow(command, openFileLocks)), allow(names, is(command, getLease))}
	for number := uint64(firstHarmless); number <= lastHarmless; number++ {
		rules = append(rules, allow(names, is(command, number)))
	}
	return rules
}

// pipeCalls returns the system calls by which a program could make PID 1 wait for a pipe in a
// state that no signal interrupts, so that the engine could not end the container. Neither
// the supervisor nor programs may make them.
func pipeCalls() []string {
	return []string{"splice", "tee", "vmsplice", "sendfile", "sendfile64"}
}

// What a supervisor that serves many runs may do with mounts: copy them, and make them
// read-only. The numbers are those of mount(2).
const (
	mountFlags   = 3                                     // the argument
	copyMounts   = 0x1000 | 0x4000                       // MS_BIND, MS_REC
	makeReadOnly = 0x1000 | 0x20 | 0x1 | 0x2 | 0x4 | 0x8 // MS_BIND, MS_REMOUNT, MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC
)

// ownRules returns the rules that replace the default profile's for the same calls. To deny a
// call to the whole sandbox, add a rule that answers it.
func ownRules(many bool) []*seccomp.Syscall {
	rules := slices.Concat(onlyForCaller(), fileControl(), sockets(), socketOptions(), uncountedMemory(), unchargedWork())
	rules = append(rules, answer(noSuchCall, pipeCalls()))
	if many {
		rules = append(rules, allow([]string{"unshare", "setns", "clone3"}),
			allow([]string{"mount"}, is(mountFlags, copyMounts)), allow([]string{"mount"}, is(mountFlags, makeReadOnly)))
	}
	return rules
}

// Profile returns the sandbox's policy as JSON for an engine: Docker's current default
// profile with our own rules. An old engine's own default still allows io_uring
// (github.com/moby/moby/pull/46762). System calls of 32-bit programs are not allowed.
//
// If many is set, the sandbox serves many runs, and its supervisor may also create and enter
// namespaces, choose the numbers of processes in them, and make mounts read-only.
// [ProgramFilter] denies that to programs.
func Profile(many bool) (string, error) {
	rules, err := policy(many)
	if err != nil {
		return "", err
	}
	return encode(rules)
}

// policy returns the sandbox's policy, with conditions that depend on the machine.
func policy(many bool) (seccomp.Seccomp, error) {
	var rules seccomp.Seccomp
	if err := json.Unmarshal(defaultProfile, &rules); err != nil {
		return rules, fmt.Errorf("the seccomp profile: %w", err)
	}
	for i := range rules.ArchMap {
		rules.ArchMap[i].SubArches = nil
	}
	own := ownRules(many)
	replaced := make(map[string]bool)
	for _, rule := range own {
		for _, name := range rule.Names {
			replaced[name] = replaced[name] || name != "unshare" && name != "setns" // rules for these two are added
		}
	}
	for _, rule := range rules.Syscalls {
		rule.Names = slices.DeleteFunc(rule.Names, func(name string) bool { return replaced[name] })
	}
	rules.Syscalls = append(rules.Syscalls, own...)
	return rules, nil
}

func encode(profile any) (string, error) {
	text, err := json.Marshal(profile)
	if err != nil {
		return "", fmt.Errorf("the seccomp profile: %w", err)
	}
	return string(text), nil
}
