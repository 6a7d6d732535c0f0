package runner

import (
	_ "embed"
	"strconv"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

//go:embed bootstrap.py
var bootstrapSource string

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

// NewCommand prepares the command lines that start the supervisor in sandboxes.
func NewCommand() (func(execution.Spec) []string, error) {
	machine, filter, err := programFilter()
	if err != nil {
		return nil, err
	}
	return func(spec execution.Spec) []string {
		command := []string{
			"python3", "-I", "-c", bootstrapSource, supervisorSource,
			Workspace, strconv.Itoa(int(Silence.Seconds())), string(spec.Isolation), spec.Preload, machine, filter,
		}
		if spec.Isolation == execution.IsolationSession {
			command = append(command, strconv.FormatInt(spec.Session.Expires.UnixMilli(), 10), sessionSource)
		}
		return command
	}, nil
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
