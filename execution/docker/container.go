package docker

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-units"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
)

// Labels of a sandbox's container.
const (
	labelInstance = "vivarium.instance" // which server made it
	labelPool     = "vivarium.pool"     // which kind of sandbox it is
	labelDeadline = "vivarium.deadline" // Unix seconds from which on any server may remove it
	labelSession  = "vivarium.session"  // the session's id, on those that have one
	labelOwner    = "vivarium.owner"    // who made the session; absent without authentication
	labelCreated  = "vivarium.created"  // when the session was made, in milliseconds since 1970
	labelExpires  = "vivarium.expires"  // when the session ends if no call is made, as above; the name may say otherwise
	labelIdle     = "vivarium.idle"     // its idle time, in milliseconds; the name may say otherwise
	labelLatest   = "vivarium.latest"   // when it ends in spite of calls, in milliseconds since 1970
)

// config returns the process of a sandbox's container.
func (b *Backend) config(spec execution.Spec, user int, now time.Time) *container.Config {
	var command []string
	if b.opts.Command != nil {
		command = b.opts.Command(spec)
	}
	config := &container.Config{
		Hostname:    hardening.Hostname,
		User:        fmt.Sprintf("%d:%d", user, hardening.User),
		Image:       spec.Image,
		Entrypoint:  command,
		Env:         append(hardening.Environment(spec), b.opts.Environment...),
		WorkingDir:  b.opts.Workspace,
		OpenStdin:   true,
		StdinOnce:   !isSession(spec), // the container's stdin ends with our connection
		AttachStdin: true, AttachStdout: true, AttachStderr: true,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		Labels:      b.labels(spec, now),
	}
	b.opts.Extra.addTo(config)
	return config
}

func isSession(spec execution.Spec) bool { return spec.Isolation == execution.IsolationSession }

func (b *Backend) labels(spec execution.Spec, now time.Time) map[string]string {
	deadline := now.Add(b.opts.Lifetime)
	labels := map[string]string{labelInstance: b.id, labelPool: spec.Image}
	if isSession(spec) {
		deadline = latest(spec.Session).Add(sweepGrace) // by then it has ended by itself
		labels[labelSession] = spec.Session.ID
		if owner := spec.Session.Owner; owner != "" {
			labels[labelOwner] = string(owner)
		}
		for label, value := range map[string]int64{
			labelCreated: spec.Session.Created.UnixMilli(), labelExpires: spec.Session.Expires.UnixMilli(),
			labelIdle: spec.Session.Idle.Milliseconds(), labelLatest: spec.Session.Latest.UnixMilli(),
		} {
			labels[label] = strconv.FormatInt(value, 10)
		}
	}
	labels[labelDeadline] = strconv.FormatInt(deadline.Unix(), 10)
	return labels
}

// latest returns when a session ends, whatever happens.
func latest(session execution.SessionInfo) time.Time {
	if session.Latest.After(session.Expires) {
		return session.Latest
	}
	return session.Expires
}

// hostConfig returns the restrictions of a sandbox's container.
func (b *Backend) hostConfig(spec execution.Spec, user int) *container.HostConfig {
	const nanosPerCPU = 1e9
	processes := hardening.Processes(spec)
	host := &container.HostConfig{
		ExtraHosts:     extraHosts(spec),
		Sysctls:        sysctls(spec),
		AutoRemove:     true,
		NetworkMode:    container.NetworkMode(spec.Network),
		ReadonlyRootfs: true,
		CapDrop:        []string{"ALL"},
		SecurityOpt:    []string{"no-new-privileges", "seccomp=" + b.seccomp[spec.Isolation == execution.IsolationRun]},
		IpcMode:        container.IPCModePrivate,
		CgroupnsMode:   container.CgroupnsModePrivate,
		ReadonlyPaths:  b.readonlyPaths(spec),
		Runtime:        spec.Runtime,
		LogConfig:      container.LogConfig{Type: "none"},
		OomScoreAdj:    hardening.VictimScore,
		Tmpfs:          b.tmpfs(spec, user),
		Resources: container.Resources{
			Memory:     spec.MemoryBytes,
			MemorySwap: spec.MemoryBytes, // memory and swap together: no swap
			// For cgroups of version 1; runc 1.1 takes the limit and does not set it. The
			// supervisor bounds what waits in sockets in any case.
			KernelMemoryTCP: hardening.SocketBytes(spec.MemoryBytes), //nolint:staticcheck // SA1019: there is no other way to ask for it
			NanoCPUs:        int64(math.Round(spec.CPUs * nanosPerCPU)),
			PidsLimit:       &processes,
			Ulimits: []*units.Ulimit{
				// Where dumps go to a program, 0 does not keep them from it: core(5).
				{Name: "core", Soft: 1, Hard: 1},
				{Name: "nofile", Soft: hardening.OpenFiles, Hard: hardening.OpenFiles},
				{Name: "sigpending", Soft: hardening.Signals, Hard: hardening.Signals},
				{Name: "memlock", Soft: hardening.LockedBytes, Hard: hardening.LockedBytes},
			},
		},
	}
	b.opts.Extra.addToHost(host)
	return host
}

// readonlyPaths returns what the engine makes read-only in /proc. Nil is the engine's own list.
// It includes /proc/sys, where a supervisor that serves many runs writes one file: it chooses
// the numbers of processes, and makes all of it read-only for programs itself. AppArmor and
// SELinux let it do neither.
func (b *Backend) readonlyPaths(spec execution.Spec) []string {
	if spec.Isolation != execution.IsolationRun || b.confined.Load() {
		return nil
	}
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"}
}

// extraHosts makes the host name of a sandbox known to it, on any network and in any image.
// A container that joins another's network also has the other's hosts.
func extraHosts(spec execution.Spec) []string {
	if strings.HasPrefix(spec.Network, "container:") {
		return nil
	}
	return []string{hardening.Hostname + ":127.0.0.1"}
}

// sysctls returns the kernel settings of a container that has its own network. A
// shared network keeps its settings.
func sysctls(spec execution.Spec) map[string]string {
	if spec.Network != "none" {
		return nil
	}
	return hardening.Sysctls()
}

// tmpfs returns the file systems in memory, by path. Read-only empty ones cover two
// mounts of the engine: the terminals, of which one sandbox could take all of the
// host's, and the folder of message queues, which sandboxes may not make.
func (b *Backend) tmpfs(spec execution.Spec, user int) map[string]string {
	const covered = "ro,nosuid,nodev,noexec,size=4k,nr_inodes=1"
	owned := func(size int64, exec, mode string) string {
		return fmt.Sprintf("rw,nosuid,nodev,%s,size=%d,nr_inodes=%d,mode=%s,uid=%d,gid=%d",
			exec, size, hardening.Inodes(size), mode, user, hardening.User)
	}
	all := map[string]string{
		b.opts.Workspace: owned(spec.WorkspaceBytes, "exec", "0700"),
		"/tmp":           owned(spec.TempBytes, "noexec", "1777"),
		"/dev/shm":       owned(cmp.Or(b.opts.Extra.SharedMemoryBytes, hardening.SharedMemoryBytes(spec.MemoryBytes)), "noexec", "1777"),
		"/dev/mqueue":    covered,
	}
	if spec.Ptys == 0 {
		all["/dev/pts"] = covered
	}
	return all
}
