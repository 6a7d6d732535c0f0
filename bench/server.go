package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const module = "github.com/vivarium-sandbox/vivarium"

const (
	// listenTime bounds the time until the server listens.
	listenTime = 15 * time.Second
	// endTime is how long the server may take to end after the signal.
	endTime = 60 * time.Second
)

// server is a vivarium that serves on a free port of the loopback.
type server struct {
	address string
	id      string // that is on its containers
	binary  string
	cmd     *exec.Cmd
	cancel  context.CancelFunc
	ended   chan struct{}
	err     error  // how it ended; set before ended is closed
	folder  string // holds the binary that was built, or is empty
}

// kind is a server's: where its sandboxes come from, and how far runs are apart.
type kind struct {
	backend   string // as EXECUTOR_BACKEND has it
	isolation execution.Isolation
}

func (k kind) String() string {
	name := "isolation=" + string(k.isolation)
	if k.backend == localBackend {
		name = "local, " + name
	}
	return name
}

const (
	dockerBackend = "docker"
	localBackend  = "local"
)

// kinds are those of the servers that are measured. The first is the one that
// whatever else is measured is asked of.
func (o options) kinds() []kind {
	all := []kind{{dockerBackend, execution.IsolationRun}, {dockerBackend, execution.IsolationContainer}}
	if o.local {
		all = append(all, kind{localBackend, execution.IsolationRun}, kind{localBackend, execution.IsolationContainer})
	}
	return all
}

// openServer builds the server, unless there is a binary, and starts it. It
// talks to the engine that the bare side talks to.
func openServer(ctx context.Context, opts options, k kind, dockerHost string, progress io.Writer) (s *server, err error) {
	s = &server{ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	s.binary = opts.binary
	if s.binary == "" {
		_, _ = fmt.Fprintln(progress, "building the server")
		if s.folder, err = os.MkdirTemp("", "vivarium-bench-"); err != nil {
			return s, fmt.Errorf("server: %w", err)
		}
		s.binary = filepath.Join(s.folder, "vivarium")
		if err := build(ctx, s.binary, progress); err != nil {
			return s, err
		}
	}
	environment := append(os.Environ(),
		"HOST=127.0.0.1", "PORT=0", "LOG_FORMAT=json", "LOG_LEVEL=info",
		"EXECUTOR_BACKEND="+k.backend, "ISOLATION="+string(k.isolation))
	if k.backend != localBackend { // which takes no settings of an engine
		environment = append(environment, "PYTHON_EXECUTOR_DOCKER_IMAGE="+opts.image, "DOCKER_HOST="+dockerHost)
	}
	return s, s.start(ctx, environment, progress)
}

// build builds this module's main package, from wherever in the module.
func build(ctx context.Context, binary string, progress io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, module)
	cmd.Stdout, cmd.Stderr = progress, progress
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	return nil
}

// start starts the server and waits until it listens. When ctx ends, the server
// gets the signal to end.
func (s *server) start(ctx context.Context, environment []string, progress io.Writer) error {
	ctx, s.cancel = context.WithCancel(ctx)
	s.cmd = exec.CommandContext(ctx, s.binary, "serve")
	s.cmd.Env = environment
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = endTime
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		s.cmd.Process = nil
		return fmt.Errorf("server: %w", err)
	}
	started := make(chan listening, 1)
	go func() {
		defer close(s.ended)
		followLog(log, started, progress)
		s.err = s.cmd.Wait()
	}()
	select {
	case l := <-started:
		s.address, s.id = l.Address, l.Instance
		return nil
	case <-s.ended:
		return fmt.Errorf("server: it ended at once: %w", s.err)
	case <-time.After(listenTime):
		return fmt.Errorf("server: it does not listen after %v", listenTime)
	}
}

// listening is what a server's log says when it listens.
type listening struct{ Address, Instance string }

// followLog reads the server's log: it finds the address that it listens on and
// passes on what is worse than a note.
func followLog(log io.Reader, started chan<- listening, progress io.Writer) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Level, Msg string
			listening
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Level == "WARN" || line.Level == "ERROR" {
			_, _ = fmt.Fprintf(progress, "server: %s\n", lines.Bytes())
		}
		if line.Msg == "listening" {
			select {
			case started <- line.listening:
			default: // only the first counts
			}
		}
	}
	_, _ = io.Copy(io.Discard, log) // after a line that is too long
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// stop ends the server, waits until it has gone, and removes what was built.
func (s *server) stop() error {
	var err error
	if s.cmd != nil && s.cmd.Process != nil {
		s.cancel()
		<-s.ended
		if !s.cmd.ProcessState.Success() {
			err = fmt.Errorf("server: it did not end well: %w", s.err)
		}
	}
	if s.folder != "" {
		err = errors.Join(err, os.RemoveAll(s.folder))
	}
	return err
}

// memoryMB reads a field about a process's memory from /proc, such as "VmRSS:",
// which is what it occupies.
func memoryMB(pid int, field string) (float64, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, fmt.Errorf("memory of the server: %w", err)
	}
	return parseMemory(status, field)
}

func parseMemory(status []byte, field string) (float64, error) {
	for line := range bytes.Lines(status) {
		value, found := strings.CutPrefix(string(line), field)
		if !found {
			continue
		}
		kilobytes, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
		if err != nil {
			return 0, fmt.Errorf("memory of the server: %w", err)
		}
		return kilobytes / 1024, nil
	}
	return 0, fmt.Errorf("memory of the server: no %s in its status", field)
}
