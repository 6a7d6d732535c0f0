// Package seccomp says which system calls a sandbox's first process, and all that
// it starts, may make at all, whatever the backend. What programs may not make of
// these, the runner's own filter says.
//
// The rules that need a reason have files of their own: sockets.go for what sockets
// keep in the kernel, kernel.go for everything else that the kernel would keep or do
// outside of a sandbox's limits.
package seccomp

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultProfile is Docker's default profile, as the library has it on Linux alone:
// the server may run on another system than its engine. go test -update writes it.
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

// answer returns a rule by which such calls do nothing and fail with an error number.
// With [success] they do nothing and succeed.
func answer(number uint, names []string, conditions ...specs.LinuxSeccompArg) *seccomp.Syscall {
	return &seccomp.Syscall{LinuxSyscall: specs.LinuxSyscall{
		Names: names, Action: specs.ActErrno, ErrnoRet: &number, Args: conditions,
	}}
}

// is returns the condition that an argument has a value. All 64 bits count: where the
// kernel looks at 32 of them, a rule that allows does not apply to odd values.
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

// has returns the condition that the bits of an argument that are in a mask have a value.
func has(argument uint, mask, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: argument, Value: mask, ValueTwo: value, Op: specs.OpMaskedEqual}
}

// onlyForCaller returns the rules for calls with which a process could keep another of
// the same user, the supervisor for one, from being scheduled, or change its limits.
// They are allowed for the caller itself alone, which is 0 in these arguments.
func onlyForCaller() []*seccomp.Syscall {
	return []*seccomp.Syscall{
		allow([]string{"sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity", "prlimit64"}, is(0, 0)),
		allow([]string{"setpriority"}, is(0, 0), is(1, 0)), // PRIO_PROCESS
		allow([]string{"ioprio_set"}, is(0, 1), is(1, 0)),  // IOPRIO_WHO_PROCESS
	}
}

// fileControl returns the rules for fcntl(2). It has no leases on files, for whose end
// PID 1 would wait when it opens such a file, no notifications of folders, and nothing
// that this list does not know: the delegations of new kernels are leases too. It has no
// locks of open files (F_OFD_SETLK) either: /proc/locks shows those of the whole machine,
// so the supervisor could not count the sandbox's own.
func fileControl() []*seccomp.Syscall {
	names := []string{"fcntl", "fcntl64"}
	const command, openFileLocks, getLease, firstHarmless, lastHarmless = 1, 36, 1025, 1027, 1038
	rules := []*seccomp.Syscall{allow(names, isBelow(command, openFileLocks)), allow(names, is(command, getLease))}
	for number := uint64(firstHarmless); number <= lastHarmless; number++ {
		rules = append(rules, allow(names, is(command, number)))
	}
	return rules
}

// pipeCalls are the system calls with which a program could have PID 1 wait for
// a pipe where no signal reaches it; then the engine could not end the container.
// Nobody in one has them.
func pipeCalls() []string {
	return []string{"splice", "tee", "vmsplice", "sendfile", "sendfile64"}
}

// ownRules are those that take the place of the default profile's.
func ownRules(many bool) []*seccomp.Syscall {
	rules := slices.Concat(onlyForCaller(), fileControl(), sockets(), socketOptions(), uncountedMemory(), unchargedWork())
	rules = append(rules, answer(noSuchCall, pipeCalls()))
	if many {
		rules = append(rules, allow([]string{"unshare", "setns"}))
	}
	return rules
}

// Profile returns today's default profile of Docker with our own rules, as engines take
// it: an old engine's own profile still allows io_uring
// (github.com/moby/moby/pull/46762). It knows the host's own kind of system calls alone:
// the tables of 32-bit programs, which the sandbox has no use for, are off.
//
// Where a sandbox serves many runs, its supervisor may make namespaces, and
// return from them, besides; its programs may not, by a filter of their own.
func Profile(many bool) (string, error) {
	var rules seccomp.Seccomp
	if err := json.Unmarshal(defaultProfile, &rules); err != nil {
		return "", fmt.Errorf("the seccomp profile: %w", err)
	}
	for i := range rules.ArchMap {
		rules.ArchMap[i].SubArches = nil
	}
	own := ownRules(many)
	replaced := make(map[string]bool)
	for _, rule := range own {
		for _, name := range rule.Names {
			replaced[name] = replaced[name] || name != "unshare" && name != "setns" // those add to what is there
		}
	}
	for _, rule := range rules.Syscalls {
		rule.Names = slices.DeleteFunc(rule.Names, func(name string) bool { return replaced[name] })
	}
	rules.Syscalls = append(rules.Syscalls, own...)
	profile, err := json.Marshal(rules)
	if err != nil {
		return "", fmt.Errorf("the seccomp profile: %w", err)
	}
	return string(profile), nil
}
