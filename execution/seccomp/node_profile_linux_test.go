package seccomp

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// nodeProfile returns the profile as containerd reads it.
func nodeProfile(t *testing.T, many bool) specs.LinuxSeccomp {
	t.Helper()
	text, err := NodeProfile(many)
	if err != nil {
		t.Fatal(err)
	}
	var profile specs.LinuxSeccomp
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields() // what a runtime does not know, it ignores
	if err := decoder.Decode(&profile); err != nil {
		t.Fatal(err)
	}
	return profile
}

// The profile for a node does what the engine's does on this machine, for a process without
// capabilities.
func TestNodeProfileIsProfile(t *testing.T) {
	for _, many := range []bool{false, true} {
		text, err := Profile(many)
		if err != nil {
			t.Fatal(err)
		}
		want, err := moby.LoadProfile(text, &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
		if err != nil {
			t.Fatal(err)
		}
		got := nodeProfile(t, many)
		if got.DefaultAction != specs.ActErrno || *got.DefaultErrnoRet != *want.DefaultErrnoRet || len(got.Architectures) != 0 {
			t.Errorf("%s %d %q", got.DefaultAction, *got.DefaultErrnoRet, got.Architectures)
		}
		info, err := arch.GetInfo("")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(bytesOf(t, got.Syscalls, info), bytesOf(t, want.Syscalls, info)) {
			t.Errorf("many runs %v: the profiles differ", many)
		}
	}
}

// The profile for a node has the calls of each machine, and none that only processes with
// capabilities may make.
func TestNodeProfileOnEachMachine(t *testing.T) {
	rules := nodeProfile(t, true).Syscalls
	for name, own := range map[string][]string{"amd64": {"arch_prctl", "modify_ldt", "open"}, "arm64": nil} {
		info, err := arch.GetInfo(name)
		if err != nil {
			t.Fatal(err)
		}
		vm := newMachine(t, bytesOf(t, rules, info))
		for _, call := range append(own, "read", "openat", "execve", "unshare", "setns", "clone3", "ptrace") {
			wantVerdict(t, vm, info, call, verdictAllow)
		}
		for _, call := range []string{
			"bpf", "chroot", "clock_settime", "fsopen", "init_module", "mount", "move_mount", "open_by_handle_at", "perf_event_open",
			"pidfd_getfd", "pivot_root", "reboot", "sethostname", "set_mempolicy", "syslog", "umount2", "userfaultfd",
		} {
			wantVerdict(t, vm, info, call, verdictErrno|uint32(operationNotPermitted))
		}
		wantVerdict(t, vm, info, "clone", verdictAllow, 17)
		wantVerdict(t, vm, info, "clone", verdictErrno|uint32(operationNotPermitted), newNamespaces|17)
	}
}

// The filter for a node without a profile does what the profile does.
func TestNodeFiltersAreProfile(t *testing.T) {
	filters, err := NodeFilters(true)
	if err != nil || len(filters) != len(machines()) {
		t.Fatalf("there are %d (%v)", len(filters), err)
	}
	for machine, filter := range filters {
		info, err := arch.GetInfo(machine)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(filter, bytesOf(t, nodeProfile(t, true).Syscalls, info)) {
			t.Errorf("%s: they differ", machine)
		}
		t.Logf("%s: %d bytes", machine, len(filter))
	}
}

func wantVerdict(t *testing.T, vm virtualMachine, info *arch.Info, call string, want uint32, args ...uint64) {
	t.Helper()
	number, there := info.SyscallNames[call]
	if !there {
		t.Fatalf("%s has no %s", info.Name, call)
	}
	if got, err := vm.run(uint32(info.ID), number, args...); err != nil || uint32(got) != want {
		t.Errorf("%s on %s: %#x, not %#x (%v)", call, info.Name, got, want, err)
	}
}

func bytesOf(t *testing.T, rules []specs.LinuxSyscall, info *arch.Info) []byte {
	t.Helper()
	code, err := assemble(rules, specs.ActErrno, info)
	if err != nil {
		t.Fatal(err)
	}
	return code
}
