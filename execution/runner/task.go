package runner

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// operation is what a session's supervisor is asked to do. It goes over the wire.
type operation int

// The operations.
const (
	runPython operation = iota
	runBash
	readFile
	writeFiles
	listFiles
	deleteFile
	renameFile
	packFolder
)

// task is what a supervisor is asked to do, in the terms of the protocol.
type task struct {
	operation   operation // always runPython in a sandbox that belongs to no session
	code        string    // Python source text, a command, or the path of an entry; to rename it, NUL and its new path follow
	stdin       string
	env         map[string]string
	args        []string
	interactive bool
	timeout     time.Duration
	files       []execution.Input
	more        func(ctx context.Context) (execution.Input, error) // further files; may be nil
	sent        []string                                           // the paths of those
	entry       func(execution.Entry)                              // receives descriptions; may be nil
	keep        execution.Keep
	started     func()
	output      execution.Output
	limits      execution.Limits
}

func pythonTask(req execution.Request, limits execution.Limits) task {
	return task{
		operation: runPython, code: req.Code, stdin: req.Stdin, env: req.Env, args: req.Args, interactive: req.Interactive, timeout: req.Timeout,
		files: req.Files, keep: req.Keep, started: req.Started, output: req.Output, limits: limits.For(req.Timeout),
	}
}

func bashTask(cmd execution.Command, limits execution.Limits) task {
	return task{
		operation: runBash, code: cmd.Command, env: cmd.Env, args: cmd.Args, timeout: cmd.Timeout,
		keep: cmd.Keep, started: cmd.Started, output: cmd.Output, limits: limits.For(cmd.Timeout),
	}
}

// fileTimeout is the timeout of a task that runs no program.
func fileTimeout(limits execution.Limits) time.Duration {
	return min(execution.DefaultTimeout, limits.MaxTimeout)
}

// runsProgram reports whether the task must not be done twice.
func (t *task) runsProgram() bool { return t.operation == runPython || t.operation == runBash }

// namesPath reports whether the task is about what a path names.
func (t *task) namesPath() bool {
	switch t.operation {
	case readFile, listFiles, deleteFile, renameFile, packFolder:
		return true
	case runPython, runBash, writeFiles:
	}
	return false
}

// noun is what a task's path must name, in an error.
func (t *task) noun() string {
	if t.operation == packFolder {
		return "Folder"
	}
	return "File"
}

// variables returns the task's environment variables as the protocol has them.
func (t *task) variables() []byte {
	var text []byte
	for _, name := range slices.Sorted(maps.Keys(t.env)) {
		text = fmt.Appendf(text, "%s=%s\x00", name, t.env[name])
	}
	return text
}

// arguments returns the task's arguments as the protocol has them.
func (t *task) arguments() []byte {
	var text []byte
	for _, arg := range t.args {
		text = append(append(text, arg...), 0)
	}
	return text
}

// head is the payload of the task's first frame.
func (t *task) head() []byte {
	interactive := 0
	if t.interactive {
		interactive = 1
	}
	return fmt.Appendf(nil,
		"timeout_ms=%d\ncpu_seconds=%d\noutput_bytes=%d\ninteractive=%d\nfiles=%d\nfile_bytes=%d\ntotal_bytes=%d\n",
		t.timeout.Milliseconds(), int64(t.limits.CPUTime/time.Second), t.limits.OutputBytes, interactive,
		t.limits.ResultFiles, t.limits.ResultFileBytes, t.limits.ResultBytes)
}
