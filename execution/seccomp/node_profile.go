package seccomp

import (
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// NodeProfile returns the sandbox's policy as JSON for a container runtime that reads a
// profile as OCI's runtime specification defines it: containerd, for a Localhost profile of a
// kubelet. Such a runtime ignores the conditions in Docker's profiles, and would apply rules
// that are for processes with capabilities to all.
//
// The profile suits nodes with any of [machines]. It lists no architecture, so a runtime adds
// only the node's own, and system calls of 32-bit programs are not allowed. Runtimes ignore
// names of calls that the node does not have. See [Profile] for many.
func NodeProfile(many bool) (string, error) {
	rules, err := policy(many)
	if err != nil {
		return "", err
	}
	return encode(specs.LinuxSeccomp{
		DefaultAction: rules.DefaultAction, DefaultErrnoRet: rules.DefaultErrnoRet, Syscalls: unconditional(rules.Syscalls),
	})
}

// NodeFilters returns the policy of [NodeProfile] as instructions for the kernel, by the names of
// [machines]: for nodes that have no profile.
func NodeFilters(many bool) (map[string][]byte, error) {
	rules, err := policy(many)
	if err != nil {
		return nil, err
	}
	filters := make(map[string][]byte)
	for _, machine := range machines() {
		info, err := arch.GetInfo(machine)
		if err != nil {
			return nil, fmt.Errorf("the seccomp filter: %w", err)
		}
		if filters[machine], err = assemble(unconditional(rules.Syscalls), specs.ActErrno, info); err != nil {
			return nil, err
		}
	}
	return filters, nil
}

// machines returns the architectures of sandboxes, as GOARCH names them.
func machines() []string { return []string{"amd64", "arm64"} }

// unconditional returns the rules that apply to a process without capabilities, on any of
// [machines] that has the rule's calls. No call that both have has a rule for one alone.
// Conditions on the kernel hold: they ask for Linux 4.8, and sandboxes need a later one.
func unconditional(rules []*seccomp.Syscall) []specs.LinuxSyscall {
	var all []specs.LinuxSyscall
	for _, rule := range rules {
		if only := rule.Includes; only != nil && (len(only.Caps) > 0 || len(only.Arches) > 0 && !hasMachine(only.Arches)) {
			continue
		}
		if not := rule.Excludes; not != nil && hasMachine(not.Arches) {
			continue
		}
		if len(rule.Names) > 0 {
			all = append(all, rule.LinuxSyscall)
		}
	}
	return all
}

func hasMachine(arches []string) bool {
	return slices.ContainsFunc(machines(), func(machine string) bool { return slices.Contains(arches, machine) })
}
