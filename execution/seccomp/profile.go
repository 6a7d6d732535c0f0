// Package seccomp says which system calls a sandbox's first process, and all that
// it starts, may make at all, whatever the backend. What programs may not make of
// these, the runner's own filter says.
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

// noSuchCall is ENOSYS as Linux has it.
const noSuchCall uint = 38

// onlyForItself are the system calls with which a process of the same user
// could keep the supervisor from being scheduled, or take its limits away: they
// are allowed for the caller itself alone, which is 0 in these arguments.
func onlyForItself() []*seccomp.Syscall {
	equal := func(values ...uint64) []specs.LinuxSeccompArg {
		var args []specs.LinuxSeccompArg
		for i, value := range values {
			args = append(args, specs.LinuxSeccompArg{Index: uint(i), Value: value, Op: specs.OpEqualTo})
		}
		return args
	}
	allow := func(args []specs.LinuxSeccompArg, names ...string) *seccomp.Syscall {
		return &seccomp.Syscall{
			LinuxSyscall: specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: args},
		}
	}
	return []*seccomp.Syscall{
		allow(equal(0), "sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity", "prlimit64"),
		allow(equal(0, 0), "setpriority"), // PRIO_PROCESS
		allow(equal(1, 0), "ioprio_set"),  // IOPRIO_WHO_PROCESS
	}
}

// noLeases allows fcntl(2) without the commands that ask for leases on files or for
// news of folders: PID 1 would wait for a lease's holder wherever it opens a file.
// From 1024 on, where these are, only what is known is allowed; the delegations of
// newer kernels are leases too.
func noLeases() []*seccomp.Syscall {
	const first, getLease, firstHarmless, lastHarmless = 1024, 1025, 1027, 1038 // F_LINUX_SPECIFIC_BASE and so on
	allow := func(operator specs.LinuxSeccompOperator, command uint64) *seccomp.Syscall {
		return &seccomp.Syscall{LinuxSyscall: specs.LinuxSyscall{
			Names: []string{"fcntl", "fcntl64"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 1, Value: command, Op: operator}},
		}}
	}
	rules := []*seccomp.Syscall{allow(specs.OpLessThan, first), allow(specs.OpEqualTo, getLease)}
	for command := uint64(firstHarmless); command <= lastHarmless; command++ {
		rules = append(rules, allow(specs.OpEqualTo, command))
	}
	return rules
}

// lockPipes are the system calls with which a program could have PID 1 wait for
// a pipe where no signal reaches it; then the engine could not end the container.
// Nobody in one has them.
func lockPipes() []string {
	return []string{"splice", "tee", "vmsplice", "sendfile", "sendfile64"}
}

// Profile gives today's default profile of Docker, as engines take it: an old engine's own
// still allows io_uring (github.com/moby/moby/pull/46762). It knows the host's
// own kind of system calls alone: the tables of 32-bit programs, which the
// sandbox has no use for, are off.
//
// Where a container serves many runs, its supervisor may make namespaces, and
// return from them, besides; its programs may not, by a filter of their own.
func Profile(many bool) (string, error) {
	var rules seccomp.Seccomp
	if err := json.Unmarshal(defaultProfile, &rules); err != nil {
		return "", fmt.Errorf("the seccomp profile: %w", err)
	}
	for i := range rules.ArchMap {
		rules.ArchMap[i].SubArches = nil
	}
	notThere := noSuchCall
	own := append(append(onlyForItself(), noLeases()...), &seccomp.Syscall{
		LinuxSyscall: specs.LinuxSyscall{Names: lockPipes(), Action: specs.ActErrno, ErrnoRet: &notThere},
	})
	for _, rule := range rules.Syscalls {
		rule.Names = slices.DeleteFunc(rule.Names, func(name string) bool {
			return slices.ContainsFunc(own, func(o *seccomp.Syscall) bool { return slices.Contains(o.Names, name) })
		})
	}
	if many {
		own = append(own, &seccomp.Syscall{
			LinuxSyscall: specs.LinuxSyscall{Names: []string{"unshare", "setns"}, Action: specs.ActAllow},
		})
	}
	rules.Syscalls = append(rules.Syscalls, own...)
	profile, err := json.Marshal(rules)
	if err != nil {
		return "", fmt.Errorf("the seccomp profile: %w", err)
	}
	return string(profile), nil
}
