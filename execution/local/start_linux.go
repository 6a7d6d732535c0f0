package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/local/inside"
)

// makeTime bounds the making of a sandbox up to the start of its supervisor.
const makeTime = 20 * time.Second

// Start starts a sandbox.
func (b *Backend) Start(ctx context.Context, spec execution.Spec) (execution.Instance, error) {
	p, ok := b.known(spec.Image)
	if !ok {
		return nil, unavailable(nil, "the interpreter has changed: try again")
	}
	if err := b.prepare(); err != nil {
		return nil, err
	}
	if !b.root { // the limit of processes does not apply to root
		if err := roomForProcesses(); err != nil {
			return nil, err
		}
	}
	if spec.Isolation == execution.IsolationRun && !p.asked && b.opts.Rootfs == "" {
		if err := p.ask(ctx, p.path); err != nil {
			return nil, err
		}
		b.remember(p)
	}
	if spec.Isolation == execution.IsolationSession {
		return b.startSession(ctx, spec, p)
	}
	i, err := b.startPiped(ctx, spec, p, b.begin(ctx, spec, p))
	if err != nil {
		return nil, err
	}
	return i, nil
}

// startPiped starts a sandbox that ends when its pipes from this process do.
func (b *Backend) startPiped(ctx context.Context, spec execution.Spec, p python, begins beginning) (*instance, error) {
	var ends ends
	defer ends.closeTheirs()
	stdin, err := ends.pipe(false)
	if err != nil {
		return nil, err
	}
	stdout, err := ends.pipe(true)
	if err != nil {
		return nil, err
	}
	stderr, err := ends.pipe(true)
	if err != nil {
		return nil, err
	}
	process, err := b.launch(ctx, spec, p, begins, [3]*os.File{stdin.theirs, stdout.theirs, stderr.theirs})
	if err != nil {
		ends.closeOurs()
		return nil, err
	}
	return newInstance(process, stdin.ours, stdout.ours, stderr.ours), nil
}

// ends are the pipes of a sandbox.
type ends []pipe

type pipe struct{ ours, theirs *os.File }

// pipe makes a pipe. This process gets the end to read from or the end to write to.
func (e *ends) pipe(read bool) (pipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		e.closeOurs()
		return pipe{}, unavailable(err, tooManyFiles)
	}
	made := pipe{ours: w, theirs: r}
	if read {
		made = pipe{ours: r, theirs: w}
	}
	*e = append(*e, made)
	return made, nil
}

func (e *ends) closeTheirs() {
	for _, p := range *e {
		_ = p.theirs.Close()
	}
}

func (e *ends) closeOurs() {
	for _, p := range *e {
		_ = p.ours.Close()
	}
}

// process is PID 1 of a sandbox, as seen from outside.
type process struct {
	cmd    *exec.Cmd
	group  group
	exited chan struct{} // closed when this process has waited for it
}

// launch starts a process that becomes a sandbox, and waits until its supervisor
// has been started.
func (b *Backend) launch(ctx context.Context, spec execution.Spec, p python, begins beginning, streams [3]*os.File) (*process, error) {
	g, err := b.newGroup(spec)
	if err != nil {
		return nil, err
	}
	compiled, err := begins.open()
	if err != nil {
		return nil, errors.Join(explain(err), g.remove())
	}
	made, err := b.become(ctx, b.plan(spec, p, g, begins), g, compiled, streams)
	_ = compiled.Close()
	if err != nil {
		if ctx.Err() == nil { // otherwise the caller has left, which explains the error
			err = explain(err)
		}
		return nil, errors.Join(err, g.remove())
	}
	if err := g.bound(hardening.Processes(spec)); err != nil {
		made.end()
		return nil, errors.Join(unavailable(err, "the processes of a sandbox cannot be limited"), g.remove())
	}
	return made, nil
}

// newGroup makes the cgroup of a sandbox; without cgroups it is empty.
func (b *Backend) newGroup(spec execution.Spec) (group, error) {
	if b.groupsFault != nil {
		return group{}, nil
	}
	g, err := b.groups.make(b.server+"."+newID(), spec.Settings)
	if err != nil {
		return g, unavailable(err, "a cgroup cannot be made")
	}
	return g, nil
}

// become starts this binary once more, to become a sandbox that follows a plan.
func (b *Backend) become(ctx context.Context, p inside.Plan, g group, compiled *os.File, streams [3]*os.File) (*process, error) {
	planReader, planWriter, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	wordReader, wordWriter, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, planReader.Close(), planWriter.Close())
	}
	defer func() { _ = wordReader.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe") // it outlives the caller
	cmd.Args = []string{inside.Name}
	cmd.Env = []string{"GOGC=off"} // it ends before collecting pays: that saves a fifth of its time
	cmd.Dir = "/"
	// It writes nothing to stderr until the supervisor takes its place, except for errors of
	// the Go runtime.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams[0], streams[1], wordWriter
	cmd.ExtraFiles = []*os.File{planReader, wordWriter, streams[2], compiled} // as inside numbers them
	user, release := b.takeUser()
	cmd.SysProcAttr = attributes(b.root, user)
	err = cmd.Start()
	_, _ = planReader.Close(), wordWriter.Close()
	if err != nil {
		release()
		return nil, errors.Join(err, planWriter.Close())
	}
	made := &process{cmd: cmd, group: g, exited: make(chan struct{})}
	go func() {
		defer close(made.exited)
		defer release()
		_ = cmd.Wait()
	}()
	if err := made.tell(ctx, p, planWriter, wordReader); err != nil {
		made.end()
		return nil, err
	}
	return made, nil
}

// attributes returns those of a process that becomes a sandbox: it starts in namespaces
// of its own, with the capabilities that it needs to set them up. host is its user
// outside of them.
func attributes(root bool, host int) *syscall.SysProcAttr {
	hostGroup := os.Getegid()
	if root {
		hostGroup = hardening.User
	}
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: hardening.User, HostID: host, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: hardening.User, HostID: hostGroup, Size: 1}},
		// Root drops its groups. Other users may not, and keep them; none is mapped inside.
		GidMappingsEnableSetgroups: root,
		AmbientCaps:                []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_SYS_RESOURCE},
		Setsid:                     true, // signals of the terminal are for the server
	}
}

// takeUser returns the user of a sandbox outside of its namespaces, and a function that
// releases it. If the server is root, each sandbox gets a user of its own, so that
// programs are not root for the machine. The server's user namespace may have too few.
func (b *Backend) takeUser() (user int, release func()) {
	switch {
	case !b.root:
		return os.Geteuid(), func() {}
	case !isKnownUser(hardening.FirstUser + hardening.UserCount - 1):
		return hardening.User, func() {}
	}
	user = b.users.Take()
	return user, func() { b.users.Release(user) }
}

// isRoot reports whether this process may change to another user. In a user namespace
// with a single user, such as that of `unshare -r`, it cannot, although it is root.
func isRoot() bool {
	return os.Geteuid() == 0 && isKnownUser(hardening.User)
}

// isKnownUser reports whether there is a user in this process's user namespace.
func isKnownUser(user uint64) bool {
	known, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || knowsUser(string(known), user)
}

// isMachinesRoot reports whether this process owns the kernel's settings. In a user
// namespace without the machine's root they belong to an unknown user.
func isMachinesRoot() bool {
	var status unix.Stat_t
	return os.Geteuid() == 0 && unix.Stat("/proc/sys/kernel", &status) == nil && status.Uid == 0
}

// knowsUser reports whether a map of users (user_namespaces(7)) has one.
func knowsUser(known string, user uint64) bool {
	for line := range strings.Lines(known) {
		var first, outside, count uint64
		if n, _ := fmt.Sscan(line, &first, &outside, &count); n == 3 && first <= user && user < first+count {
			return true
		}
	}
	return false
}

// tell puts a process into its cgroup, sends it the plan, and waits until the supervisor
// has taken its place.
func (p *process) tell(ctx context.Context, what inside.Plan, to, from *os.File) error {
	defer func() { _ = to.Close() }()
	ctx, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	stop := context.AfterFunc(ctx, p.kill)
	defer stop()
	entered := p.group.add(p.cmd.Process.Pid)
	if entered != nil && !errors.Is(entered, unix.ESRCH) { // if it has ended, it has sent the error
		return inside.At(inside.Entering, "", inside.Step(entered, "entering the cgroup"))
	}
	if err := p.lowerRank(); err != nil {
		return inside.Step(err, "setting its rank when memory runs out")
	}
	err := json.NewEncoder(to).Encode(what)
	_ = to.Close()
	word, readErr := io.ReadAll(io.LimitReader(from, 64<<10))
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case string(word) == inside.Finished:
		return errors.Join(entered, err, readErr)
	}
	var f inside.Error
	if json.Unmarshal(word, &f) != nil {
		return died(string(word))
	}
	return &f
}

// lowerRank makes the sandbox the kernel's first victim when memory runs out. If the
// server is root, nothing in the sandbox can undo that: proc_pid_oom_score_adj(5).
func (p *process) lowerRank() error {
	place := fmt.Sprintf("/proc/%d/oom_score_adj", p.cmd.Process.Pid)
	err := os.WriteFile(place, []byte(strconv.Itoa(hardening.VictimScore)), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ESRCH) {
		return nil // it has ended, and has sent the error; or its rank is already lower
	}
	return err
}

// died returns the error of a process that ended before it became a sandbox. said is
// the output of the Go runtime, which ends a process that cannot start a thread.
func died(said string) error {
	first, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	err := fmt.Errorf("the process that was to become the sandbox ended: %.200q", first)
	// The runtime, and cgo, have no code for this.
	if strings.Contains(said, "failed to create new OS thread") || strings.Contains(said, "pthread_create failed") {
		return errors.Join(unix.EAGAIN, err)
	}
	return err
}

// succeeded reports whether PID 1 ended by itself with status 0. Its exited channel
// must be closed.
func (p *process) succeeded() bool { return p.cmd.ProcessState.Success() }

// kill kills PID 1, and the kernel kills all other processes of the sandbox with it.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

// end kills the sandbox and waits until it has gone.
func (p *process) end() {
	p.kill()
	<-p.exited
}

// try makes a sandbox without a supervisor, to see whether that works.
func (b *Backend) try(ctx context.Context, py python) error {
	spec := execution.Spec{Settings: execution.Settings{MemoryBytes: 64 << 20, Processes: 8, CPUs: 1, WorkspaceBytes: 1 << 20, TempBytes: 1 << 20}}
	g, err := b.newGroup(spec)
	if err != nil {
		return err
	}
	p := b.plan(spec, py, g, beginning{})
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, g.remove())
	}
	defer func() { _ = null.Close() }()
	made, err := b.become(ctx, p, g, nil, [3]*os.File{null, null, null})
	if err != nil {
		return errors.Join(explain(err), g.remove())
	}
	<-made.exited
	return g.remove()
}
