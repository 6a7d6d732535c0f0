package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/seccomp"
)

// Backend starts sandboxes on this machine. It is safe for concurrent use.
type Backend struct {
	opts   Options
	server string // the name of this process in its cgroups and sessions
	root   bool   // this process may be another user

	// prepare sets the fields that follow, once, when the first sandbox is requested. It
	// makes cgroups, and with version 2 moves this process. That must not happen if an
	// engine is used instead.
	prepare     func() error
	groups      controllers
	groupsFault error           // why there are no cgroups
	filters     map[bool][]byte // of system calls, by whether a sandbox serves many runs

	users hardening.Users
	works atomic.Bool // a sandbox has been made successfully

	mu      sync.Mutex
	pythons map[string]python // by digest
}

// New makes a Backend. It changes nothing yet.
func New(opts Options) (*Backend, error) {
	server, err := processName(os.Getpid())
	if err != nil {
		return nil, err
	}
	b := &Backend{opts: opts, server: server, root: isRoot(), pythons: make(map[string]python), filters: make(map[bool][]byte)}
	b.prepare = sync.OnceValue(b.findBounds)
	return b, nil
}

// findBounds finds out how sandboxes can be limited on this machine.
func (b *Backend) findBounds() error {
	if isMachinesRoot() && !b.root {
		return unavailable(nil, "the server is root in a user namespace without other users (such as systemd's PrivateUsers=yes), and programs would be root too: start it as another user, or with the users up to %d", hardening.User)
	}
	ctx := context.Background() // the result is for all callers, not only for the first
	b.groups, b.groupsFault = findControllers(ctx, b.server, func(ctx context.Context) error {
		return enterScope(ctx, b.server, connectManager)
	})
	for _, many := range []bool{true, false} {
		filter, err := seccomp.Filter(many, b.groupsFault == nil)
		if err != nil {
			return unavailable(err, "there is no filter of system calls for this machine")
		}
		b.filters[many] = filter
	}
	return nil
}

// InstanceID names this server.
func (b *Backend) InstanceID() string { return b.server }

// Close does nothing: what has been started is its callers' to end.
func (b *Backend) Close() error { return nil }

// Resolve finds the interpreter, and returns a digest of its present state. It ignores
// the image.
func (b *Backend) Resolve(ctx context.Context, _ string) (string, error) {
	p, err := b.findPython(ctx)
	return p.digest, err
}

func (b *Backend) known(digest string) (python, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.pythons[digest]
	return p, ok
}

// knownBy returns the known interpreter that the options name, if it is unchanged.
func (b *Backend) knownBy(named string) (python, bool) {
	b.mu.Lock()
	all := slices.Collect(maps.Values(b.pythons))
	b.mu.Unlock()
	for _, p := range all {
		if p.named == named && p.isStill() {
			return p, true
		}
	}
	return python{}, false
}

// remember keeps an interpreter. It forgets all others if there are too many.
func (b *Backend) remember(p python) {
	const enough = 16
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.pythons[p.digest]; !known && len(b.pythons) >= enough {
		clear(b.pythons)
	}
	b.pythons[p.digest] = p
}

// Walls describes what limits a sandbox's memory and processes.
func (b *Backend) Walls() string {
	_ = b.prepare() // each start returns the error
	if b.groupsFault != nil {
		return fmt.Sprintf("limits of each process and a watching supervisor, without cgroups: %v", b.groupsFault)
	}
	walls := fmt.Sprintf("cgroups of version %d", b.groups.version)
	if b.groups.folders[cpuController] == "" {
		walls += ", which do not limit CPU time: they have no controller for it"
	}
	return walls
}

// Interpreter returns the path of the interpreter that programs run with.
func (b *Backend) Interpreter(ctx context.Context) (string, error) {
	p, err := b.findPython(ctx)
	return filepath.Join(b.opts.Rootfs, p.path), err
}

// Health looks for the interpreter. Until a sandbox has been made successfully, it also
// makes one without a supervisor.
func (b *Backend) Health(ctx context.Context) error {
	p, err := b.findPython(ctx)
	if err != nil || b.works.Load() {
		return err
	}
	if err := b.prepare(); err != nil {
		return err
	}
	if err := b.try(ctx, p); err != nil {
		return err
	}
	b.works.Store(true)
	return nil
}

// Sweep removes what dead servers have left: cgroups, and records of sessions that have
// ended.
func (b *Backend) Sweep(ctx context.Context) (int, error) {
	if err := b.prepare(); err != nil {
		return 0, err
	}
	removed := 0
	var failures []error
	if b.groupsFault == nil {
		for _, g := range b.groups.strays(isAlive) {
			failures = append(failures, g.remove())
			if g.folders[memoryController] != "" { // a sandbox has several
				removed++
			}
		}
	}
	n, err := b.sweepSessions(ctx)
	return removed + n, errors.Join(append(failures, err)...)
}

// newID returns an identifier that is unique and cannot be guessed.
func newID() string { return strings.ToLower(rand.Text()[:16]) }

// processName returns a name of a process that is unique while the machine runs: pids
// are reused, but not with the same start time.
func processName(pid int) (string, error) {
	_, start, err := look(pid)
	return strconv.Itoa(pid) + "-" + start, err
}

// look returns a process's state and its start time, in the kernel's notation.
func look(pid int) (state, start string, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", "", err
	}
	// The second field, in parentheses, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const stateField, startField = 0, 19 // the 3rd and the 22nd of proc_pid_stat(5)
	if len(fields) <= startField {
		return "", "", fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	return fields[stateField], fields[startField], nil
}

// isAlive reports whether the process of a name runs.
func isAlive(name string) bool {
	pid, start, _ := strings.Cut(name, "-")
	number, err := strconv.Atoi(pid)
	if err != nil {
		return false
	}
	state, now, err := look(number)
	return err == nil && now == start && state != "Z" // its parent has not waited for it yet
}

var _ execution.SessionBackend = (*Backend)(nil)
