package runner

import (
	_ "embed"
	"strconv"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

//go:embed bootstrap.py
var bootstrapSource string

//go:embed compile.py
var compileSource string

//go:embed start.py
var startSource string

//go:embed supervisor.py
var supervisorSource string

//go:embed session.py
var sessionSource string

// Workspace is the folder in which programs run.
const Workspace = "/workspace"

// Silence is how long the server may be quiet before a supervisor ends itself;
// pings come three times as often. Until then a sandbox can outlive a dead
// engine, whose end its stdin does not show.
const Silence = 9 * time.Second

// Command makes the command lines that start the supervisor in sandboxes.
type Command struct {
	machine, filter string // as programFilter gives them
}

// NewCommand prepares the command lines.
func NewCommand() (Command, error) {
	machine, filter, err := programFilter()
	return Command{machine, filter}, err
}

// Line gives the command line that starts the supervisor from its source.
func (c Command) Line(spec execution.Spec) []string {
	return append([]string{"python3", "-I", "-c", bootstrapSource, supervisorSource}, c.arguments(spec)...)
}

// CompileLine gives the command line that prints the supervisor compiled, on stdout.
func (c Command) CompileLine() []string {
	return []string{"python3", "-I", "-c", compileSource, supervisorSource}
}

// CompiledLine gives the command line that starts the supervisor from a file in the
// sandbox with what that of [Command.CompileLine] has printed, by the same Python.
func (c Command) CompiledLine(spec execution.Spec, file string) []string {
	return append([]string{"python3", "-I", "-c", startSource, file}, c.arguments(spec)...)
}

// arguments are the supervisor's own.
func (c Command) arguments(spec execution.Spec) []string {
	all := []string{Workspace, strconv.Itoa(int(Silence.Seconds())), string(spec.Isolation), spec.Preload, c.machine, c.filter}
	if spec.Isolation == execution.IsolationSession {
		all = append(all, strconv.FormatInt(spec.Session.Expires.UnixMilli(), 10), sessionSource)
	}
	return all
}

// Environment gives the environment that the supervisor and the programs see.
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
