package docker

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-units"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Labels of a sandbox's container.
const (
	labelInstance = "vivarium.instance" // which server made it
	labelPool     = "vivarium.pool"     // which kind of sandbox it is
	labelDeadline = "vivarium.deadline" // Unix seconds from which on any server may remove it
	labelSession  = "vivarium.session"  // the session's id, on those that have one
	labelOwner    = "vivarium.owner"    // who made the session; absent where nobody was asked
	labelExpires  = "vivarium.expires"  // when the session ends, in milliseconds since 1970
)

// sandboxUser is nobody that an image or a host knows: 65532 is "nonroot" by
// the convention of distroless images.
const sandboxUser = "65532:65532"

// Limits that no setting moves.
const (
	openFiles       = 4096     // of the supervisor's processes; it gives programs fewer
	shmBytes        = 16 << 20 // of /dev/shm: semaphores of multiprocessing, small shared arrays
	bytesPerInode   = 4096     // as many files as fit when each takes a page
	minInodes       = 1024
	sandboxHostname = "sandbox"
	ownProcesses    = 2 // that a container for many runs has more than one for one
)

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

// seccompProfile gives today's default profile of Docker: an old engine's own
// still allows io_uring (github.com/moby/moby/pull/46762). It knows the host's
// own kind of system calls alone: the tables of 32-bit programs, which the
// sandbox has no use for, are off.
//
// Where a container serves many runs, its supervisor may make namespaces, and
// return from them, besides; its programs may not, by a filter of their own.
func seccompProfile(many bool) (string, error) {
	rules := seccomp.DefaultProfile()
	for i := range rules.ArchMap {
		rules.ArchMap[i].SubArches = nil
	}
	noSuchCall := uint(syscall.ENOSYS)
	own := append(append(onlyForItself(), noLeases()...), &seccomp.Syscall{
		LinuxSyscall: specs.LinuxSyscall{Names: lockPipes(), Action: specs.ActErrno, ErrnoRet: &noSuchCall},
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
		return "", fmt.Errorf("docker: the seccomp profile: %w", err)
	}
	return string(profile), nil
}

// seccompProfiles gives the profiles of both kinds of containers.
func seccompProfiles() (map[bool]string, error) {
	profiles := make(map[bool]string)
	for _, many := range []bool{true, false} {
		profile, err := seccompProfile(many)
		if err != nil {
			return nil, err
		}
		profiles[many] = profile
	}
	return profiles, nil
}

// config gives what runs in a sandbox's container.
func (b *Backend) config(spec execution.Spec, now time.Time) *container.Config {
	var command []string
	if b.opts.Command != nil {
		command = b.opts.Command(spec)
	}
	return &container.Config{
		Hostname:    sandboxHostname,
		User:        sandboxUser,
		Image:       spec.Image,
		Entrypoint:  command,
		Env:         b.opts.Environment,
		WorkingDir:  b.opts.Workspace,
		OpenStdin:   true,
		StdinOnce:   !isSession(spec), // the container's stdin ends with our connection
		AttachStdin: true, AttachStdout: true, AttachStderr: true,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		Labels:      b.labels(spec, now),
	}
}

func isSession(spec execution.Spec) bool { return spec.Isolation == execution.IsolationSession }

func (b *Backend) labels(spec execution.Spec, now time.Time) map[string]string {
	deadline := now.Add(b.opts.Lifetime)
	labels := map[string]string{labelInstance: b.id, labelPool: spec.Image}
	if isSession(spec) {
		deadline = spec.Session.Expires.Add(sweepGrace) // by then it has ended by itself
		labels[labelSession] = spec.Session.ID
		if owner := spec.Session.Owner; owner != "" {
			labels[labelOwner] = string(owner)
		}
		labels[labelExpires] = strconv.FormatInt(spec.Session.Expires.UnixMilli(), 10)
	}
	labels[labelDeadline] = strconv.FormatInt(deadline.Unix(), 10)
	return labels
}

// hostConfig gives the walls of a sandbox's container.
func (b *Backend) hostConfig(spec execution.Spec) *container.HostConfig {
	const nanosPerCPU = 1e9
	processes := spec.Processes
	if spec.Isolation == execution.IsolationRun {
		processes += ownProcesses
	}
	return &container.HostConfig{
		AutoRemove:     true,
		NetworkMode:    container.NetworkMode(spec.Network),
		ReadonlyRootfs: true,
		CapDrop:        []string{"ALL"},
		SecurityOpt:    []string{"no-new-privileges", "seccomp=" + b.seccomp[spec.Isolation == execution.IsolationRun]},
		IpcMode:        container.IPCModePrivate,
		CgroupnsMode:   container.CgroupnsModePrivate,
		Runtime:        spec.Runtime,
		LogConfig:      container.LogConfig{Type: "none"},
		ShmSize:        shmBytes,
		Tmpfs: map[string]string{
			b.opts.Workspace: tmpfs(spec.WorkspaceBytes, "exec", "0700"),
			"/tmp":           tmpfs(spec.TempBytes, "noexec", "1777"),
		},
		Resources: container.Resources{
			Memory:     spec.MemoryBytes,
			MemorySwap: spec.MemoryBytes, // memory and swap together: no swap
			NanoCPUs:   int64(math.Round(spec.CPUs * nanosPerCPU)),
			PidsLimit:  &processes,
			Ulimits: []*units.Ulimit{
				// Where dumps go to a program, 0 does not keep them from it: core(5).
				{Name: "core", Soft: 1, Hard: 1},
				{Name: "nofile", Soft: openFiles, Hard: openFiles},
			},
		},
	}
}

// tmpfs gives the options of a place that programs write. It is theirs.
func tmpfs(size int64, exec, mode string) string {
	return fmt.Sprintf("rw,nosuid,nodev,%s,size=%d,nr_inodes=%d,mode=%s,uid=65532,gid=65532",
		exec, size, max(minInodes, size/bytesPerInode), mode)
}
