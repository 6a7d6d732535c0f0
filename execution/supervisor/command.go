// Package supervisor is what runs inside a sandbox: PID 1, which talks to the server, and
// the processes that it starts. It is Python, and its modules are grouped by the process
// that they run in:
//
//	shared/   any process: system calls, and what one process passes to another
//	program/  the program's own process, and the interpreter and the shells of a session
//	zygote/   the process that forks a program's process into a fresh inner sandbox
//	pid1/     the supervisor: it stages files, keeps the time, reports and cleans up
//	session/  the supervisor of a session
//
// Each group is trusted more than those above it, so it may import them, but they import
// nothing of it: what PID 1 has read must not be found in the memory of a program. Package
// runner speaks with the supervisor; package launch decides which isolation a sandbox has.
package supervisor

import (
	"strconv"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/seccomp"
)

// Workspace is the folder in which programs run.
const Workspace = "/workspace"

// Silence is how long the server may be quiet before a supervisor ends itself;
// pings come three times as often. Until then a sandbox can outlive a dead
// engine, whose end its stdin does not show.
const Silence = 9 * time.Second

// Command makes the command lines that start the supervisor in sandboxes.
type Command struct {
	machine, filter string // as [seccomp.ProgramFilter] returns them
	sources         map[execution.Isolation][]string
}

// NewCommand prepares the command lines.
func NewCommand() (Command, error) {
	machine, filter, err := seccomp.ProgramFilter()
	if err != nil {
		return Command{}, err
	}
	c := Command{machine: machine, filter: filter, sources: make(map[execution.Isolation][]string)}
	for _, isolation := range []execution.Isolation{
		execution.IsolationRun, execution.IsolationContainer, execution.IsolationSession,
	} {
		if c.sources[isolation], err = sources(isolation); err != nil {
			return Command{}, err
		}
	}
	return c, nil
}

// Line returns the command line that starts the supervisor from its source.
func (c Command) Line(spec execution.Spec) []string {
	line := append([]string{"python3", "-I", "-c", bootstrapSource + loadSource}, c.modules(spec.Isolation)...)
	return append(append(line, "--"), c.arguments(spec)...)
}

// CompileLine returns the command line that prints the supervisor of a sandbox for one run
// compiled, on stdout.
func (c Command) CompileLine() []string {
	return append([]string{"python3", "-I", "-c", compileSource}, c.modules(execution.IsolationContainer)...)
}

// CompiledLine returns the command line that starts the supervisor from a file in the
// sandbox with what that of [Command.CompileLine] has printed, by the same Python.
func (c Command) CompiledLine(spec execution.Spec, file string) []string {
	return append([]string{"python3", "-I", "-c", startSource + loadSource, file}, c.arguments(spec)...)
}

// modules returns the name and the source of each module that a sandbox needs.
func (c Command) modules(isolation execution.Isolation) []string {
	if all, known := c.sources[isolation]; known {
		return all
	}
	return c.sources[execution.IsolationContainer]
}

// arguments returns the supervisor's own.
func (c Command) arguments(spec execution.Spec) []string {
	var expires int64
	if spec.Isolation == execution.IsolationSession {
		expires = spec.Session.Expires.UnixMilli()
	}
	return []string{
		Workspace, strconv.Itoa(int(Silence.Seconds())), spec.Preload, c.machine, c.filter, strconv.FormatInt(expires, 10),
	}
}

// Environment returns the environment that the supervisor and the programs see.
func Environment() []string {
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin",
		"HOME=/tmp",
		"LANG=C.UTF-8",
		"TZ=UTC",
		"USER=sandbox",
		// For the Pythons that a program starts; the program itself is told by the supervisor.
		"PYTHONDONTWRITEBYTECODE=1",
		"PYTHONUNBUFFERED=1",
		"MPLBACKEND=agg",
		// A thread a core of the host helps nobody behind a cpu quota, and takes memory.
		"OPENBLAS_NUM_THREADS=1",
		"OMP_NUM_THREADS=1",
	}
}
