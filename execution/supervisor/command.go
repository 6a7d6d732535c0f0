// Package supervisor is the code that runs inside a sandbox: PID 1, which exchanges frames
// with the server, and the processes that it starts. It is written in Python. Its modules are
// grouped by the process that they run in:
//
//	shared/   any process: system calls, and values that processes exchange
//	program/  the program's own process, and the interpreter and the shells of a session
//	zygote/   the process that forks a program's process into a fresh inner sandbox
//	pid1/     the supervisor: it stages files, keeps time limits, reports and cleans up
//	session/  the supervisor of a session
//
// A group may import the groups above it, which are trusted less, and none below it: the
// memory of a program must not contain what PID 1 read. A test checks this.
//
// The Go part of this package builds the command line that starts the supervisor. Package
// runner is the client of its protocol. Package launch decides a sandbox's isolation.
package supervisor

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/seccomp"
)

// Workspace is the working directory of programs.
const Workspace = "/workspace"

// Silence is how long a supervisor waits for a frame from the server before it exits. The
// server sends pings three times as often. This bounds how long a sandbox outlives an engine
// that has died, since the sandbox's stdin then stays open.
const Silence = 9 * time.Second

// Command builds the command lines that start the supervisor in sandboxes.
type Command struct {
	filters []string // for each machine its name and the two parts of its filter
	kinds   map[execution.Isolation]modules
}

// modules are those that a kind of sandbox needs.
type modules struct {
	texts     []string        // as sources returns them
	arguments func() []string // that contain the texts, packed
}

// NewCommand assembles the seccomp filters of programs and reads the supervisor's modules.
func NewCommand() (Command, error) {
	filters, err := seccomp.ProgramFilters()
	if err != nil {
		return Command{}, err
	}
	c := Command{kinds: make(map[execution.Isolation]modules)}
	for _, filter := range filters {
		c.filters = append(c.filters, filter.Machine, filter.First, filter.Second)
	}
	for _, isolation := range []execution.Isolation{
		execution.IsolationRun, execution.IsolationContainer, execution.IsolationSession,
	} {
		texts, err := sources(isolation)
		if err != nil {
			return Command{}, err
		}
		// Packed when they are needed: a command that runs one program needs those of one kind at most.
		c.kinds[isolation] = modules{texts, sync.OnceValue(func() []string { return pack(texts) })}
	}
	return c, nil
}

// Line returns the command line that starts the supervisor of a sandbox from source.
func (c Command) Line(spec execution.Spec) []string {
	return slices.Concat([]string{"python3", "-I", "-c", compiledSource + bootstrapSource + loadSource + serveSource},
		c.packed(spec.Isolation), c.arguments(spec))
}

// Boot returns the texts that PID 1 of a blank sandbox takes to become a supervisor (package
// link): a program that compiles the modules, one that loads them, and the arguments of both.
func (c Command) Boot(spec execution.Spec) []string {
	return slices.Concat([]string{compiledSource + bootstrapSource, loadSource}, c.packed(spec.Isolation), c.arguments(spec))
}

// packed returns the arguments of bootstrap.py, up to "--".
func (c Command) packed(isolation execution.Isolation) []string {
	names := modulesOf(isolation)
	return slices.Concat([]string{path.Base(names[len(names)-1])}, c.modulesFor(isolation).arguments(), []string{"--"})
}

// CompileLine returns the command line that compiles the supervisor of a kind of sandbox and
// prints it on stdout.
func (c Command) CompileLine(isolation execution.Isolation) []string {
	return append([]string{"python3", "-I", "-c", compiledSource + compileSource}, c.modulesFor(isolation).arguments()...)
}

// CompileDigest identifies what CompileLine compiles, in less time than it takes to make that.
func (c Command) CompileDigest(isolation execution.Isolation) string {
	sum := sha256.New()
	for _, text := range append([]string{compiledSource, compileSource}, c.modulesFor(isolation).texts...) {
		_, _ = io.WriteString(sum, text+"\x00") // a hash takes everything
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// CompiledLine returns the command line that starts the supervisor from an open file, of
// which VIVARIUM_COMPILED in its environment is the descriptor. The file holds the output of
// [Command.CompileLine] by the same Python.
func (c Command) CompiledLine(spec execution.Spec) []string {
	return append([]string{"python3", "-I", "-c", startSource + loadSource + serveSource}, c.arguments(spec)...)
}

// modulesFor returns the modules that a sandbox needs. One of no known kind serves one run.
func (c Command) modulesFor(isolation execution.Isolation) modules {
	if m, known := c.kinds[isolation]; known {
		return m
	}
	return c.kinds[execution.IsolationContainer]
}

// arguments returns the supervisor's own arguments.
func (c Command) arguments(spec execution.Spec) []string {
	var expires int64
	if spec.Isolation == execution.IsolationSession {
		expires = spec.Session.Expires.UnixMilli()
	}
	preload := spec.Preload
	if spec.Bare {
		preload = "bare:" + preload
	}
	return append([]string{
		Workspace, strconv.Itoa(int(Silence.Seconds())), preload, strconv.FormatInt(expires, 10),
	}, c.filters...)
}

// Environment returns the environment of the supervisor and of programs.
func Environment() []string {
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin",
		"HOME=/tmp",
		"LANG=C.UTF-8",
		"TZ=UTC",
		"USER=sandbox",
		// For Python processes that a program starts. The supervisor sets both for the program itself.
		"PYTHONDONTWRITEBYTECODE=1",
		"PYTHONUNBUFFERED=1",
		"PYTHONINTMAXSTRDIGITS=0",
		"MPLBACKEND=agg",
		// One thread per core of the host takes memory and gains nothing under a CPU quota.
		"OPENBLAS_NUM_THREADS=1",
		"OMP_NUM_THREADS=1",
		"NUMBA_NUM_THREADS=1",
	}
}
