package seccomp

import (
	"fmt"
	"math/bits"
	"slices"

	bpfseccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter gives the profile as the kernel takes it, for where there is no engine to
// translate it. Where memory is not bounded by a cgroup, it denies besides what
// makes memory that belongs to no process.
func Filter(many, bounded bool) ([]byte, error) {
	text, err := Profile(many)
	if err != nil {
		return nil, err
	}
	// A process without capabilities, on this machine and kernel.
	rules, err := seccomp.LoadProfile(text, &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		return nil, fmt.Errorf("the seccomp profile: %w", err)
	}
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("the seccomp filter: %w", err)
	}
	if !bounded {
		rules.Syscalls = uncounted(rules.Syscalls)
	}
	policy := bpfseccomp.Policy{DefaultAction: bpfseccomp.ActionErrno}
	if policy.Syscalls, err = groups(rules.Syscalls, info); err != nil {
		return nil, err
	}
	return Assemble(policy, info)
}

// uncounted takes from rules what makes memory that no process is seen to have: queues,
// segments and semaphores of System V, files without a name, rules of Landlock, and what
// processes share that is no file (mmap(2)): it stays when they have let go of a part of it.
func uncounted(rules []specs.LinuxSyscall) []specs.LinuxSyscall {
	denied, notThere := []string{"memfd_create", "shmget", "semget", "msgget", "landlock_create_ruleset"}, noSuchCall
	conditional := []string{"mmap"}
	for i := range rules {
		rules[i].Names = slices.DeleteFunc(rules[i].Names, func(name string) bool {
			return slices.Contains(denied, name) || slices.Contains(conditional, name)
		})
	}
	rules = append(rules, specs.LinuxSyscall{Names: denied, Action: specs.ActErrno, ErrnoRet: &notThere})
	const flags = 3                                                        // the argument of mmap
	for _, absent := range []uint64{unix.MAP_SHARED, unix.MAP_ANONYMOUS} { // MAP_SHARED is a bit of MAP_SHARED_VALIDATE too
		rules = append(rules, specs.LinuxSyscall{
			Names: conditional, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: flags, Value: absent, Op: specs.OpMaskedEqual}},
		})
	}
	return rules
}

// groups translates rules, one group an action: what a rule allows without
// conditions, no other rule's conditions take back.
func groups(rules []specs.LinuxSyscall, info *arch.Info) ([]bpfseccomp.SyscallGroup, error) {
	var all []bpfseccomp.SyscallGroup
	for _, rule := range rules {
		action, err := actionOf(rule)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(all, func(g bpfseccomp.SyscallGroup) bool { return g.Action == action })
		if at < 0 {
			at = len(all)
			all = append(all, bpfseccomp.SyscallGroup{Action: action})
		}
		for _, name := range rule.Names {
			if _, known := info.SyscallNames[name]; !known {
				continue // this machine has none of the name
			}
			if len(rule.Args) == 0 {
				all[at].Names = append(all[at].Names, name)
				continue
			}
			conditions, err := conditionsOf(rule.Args)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			all[at].NamesWithCondtions = append(all[at].NamesWithCondtions, bpfseccomp.NameWithConditions{Name: name, Conditions: conditions})
		}
	}
	for i := range all {
		slices.Sort(all[i].Names)
		all[i].Names = slices.Compact(all[i].Names)
		all[i].NamesWithCondtions = slices.DeleteFunc(all[i].NamesWithCondtions, func(n bpfseccomp.NameWithConditions) bool {
			return slices.Contains(all[i].Names, n.Name)
		})
	}
	return slices.DeleteFunc(all, func(g bpfseccomp.SyscallGroup) bool {
		return len(g.Names) == 0 && len(g.NamesWithCondtions) == 0
	}), nil
}

func actionOf(rule specs.LinuxSyscall) (bpfseccomp.Action, error) {
	switch {
	case rule.Action == specs.ActAllow:
		return bpfseccomp.ActionAllow, nil
	case rule.Action == specs.ActErrno && rule.ErrnoRet != nil:
		const kind = 0xffff0000 // the rest is the error's number
		return bpfseccomp.ActionErrno&kind | bpfseccomp.Action(*rule.ErrnoRet), nil
	case rule.Action == specs.ActErrno:
		return bpfseccomp.ActionErrno, nil
	}
	return 0, fmt.Errorf("the seccomp filter: an unknown action %s", rule.Action)
}

// conditionsOf translates what a rule asks of arguments.
func conditionsOf(args []specs.LinuxSeccompArg) (bpfseccomp.ArgumentConditions, error) {
	simple := map[specs.LinuxSeccompOperator]bpfseccomp.Operation{
		specs.OpEqualTo: bpfseccomp.Equal, specs.OpNotEqual: bpfseccomp.NotEqual,
		specs.OpLessThan: bpfseccomp.LessThan, specs.OpLessEqual: bpfseccomp.LessOrEqual,
		specs.OpGreaterThan: bpfseccomp.GreaterThan, specs.OpGreaterEqual: bpfseccomp.GreaterOrEqual,
	}
	var all bpfseccomp.ArgumentConditions
	for _, arg := range args {
		add := func(operation bpfseccomp.Operation, value uint64) {
			all = append(all, bpfseccomp.Condition{Argument: uint32(arg.Index), Operation: operation, Value: value})
		}
		operation, ok := simple[arg.Op]
		switch {
		case ok:
			add(operation, arg.Value)
		case arg.Op == specs.OpMaskedEqual: // Value is the mask
			if unset := arg.Value &^ arg.ValueTwo; unset != 0 {
				add(bpfseccomp.BitsNotSet, unset)
			}
			for set := arg.Value & arg.ValueTwo; set != 0; set &= set - 1 {
				add(bpfseccomp.BitsSet, 1<<bits.TrailingZeros64(set))
			}
		default:
			return nil, fmt.Errorf("the seccomp filter: an unknown condition %s", arg.Op)
		}
	}
	return all, nil
}
