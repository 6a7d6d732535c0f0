package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

const module = "github.com/vivarium-sandbox/vivarium"

const (
	// listenTime bounds the time until the server listens.
	listenTime = 15 * time.Second
	// endTime is how long the server may take to end after the signal.
	endTime = 60 * time.Second
)

// build builds this module's main package, from wherever in the module.
func build(ctx context.Context, binary string, withCluster bool, progress io.Writer) error {
	_, _ = fmt.Fprintln(progress, "building the server")
	tags := ""
	if withCluster {
		tags = "k8s"
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", tags, "-ldflags", "-s -w", "-o", binary, module)
	cmd.Stdout, cmd.Stderr = progress, progress
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	return nil
}

// launcher starts processes of one binary.
type launcher struct {
	binary      string
	environment []string
	groups      group        // below which processes get one; none if that cannot be
	sandboxes   sandboxMeter // nil where they are in the groups
	progress    io.Writer
}

// command returns a command that runs in a group of its own. The caller removes the group.
func (l *launcher) command(ctx context.Context, line ...string) (*exec.Cmd, group, error) {
	g, err := l.groups.make(newName())
	if err != nil {
		return nil, group{}, err
	}
	line = g.enter(line)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = l.environment
	return cmd, g, nil
}

// server is a vivarium that serves on a free port of the loopback.
type server struct {
	ours    *ours
	meter   *meter
	group   group
	cmd     *exec.Cmd
	cancel  context.CancelFunc
	started chan listening
	ended   chan struct{}
	err     error // how it ended; set before ended is closed
}

// serve starts a server and waits until it listens. When ctx ends, the server gets the
// signal to end.
func (l *launcher) serve(ctx context.Context) (*server, error) {
	s := &server{started: make(chan listening, 1), ended: make(chan struct{})}
	ctx, s.cancel = context.WithCancel(ctx)
	var err error
	if s.cmd, s.group, err = l.command(ctx, l.binary, "serve"); err != nil {
		return nil, err
	}
	if err := s.start(l); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *server) start(l *launcher) error {
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = endTime
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	go func() {
		defer close(s.ended)
		followLog(log, s.started, l.progress)
		s.err = s.cmd.Wait()
	}()
	select {
	case at := <-s.started:
		s.ours = newOurs(at.Address)
		s.meter = &meter{pid: s.cmd.Process.Pid, group: s.group, sandboxes: l.sandboxes, instance: at.Instance}
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

// stop ends the server, waits until it has gone, and removes its group.
func (s *server) stop() error {
	s.cancel()
	var err error
	if s.cmd.Process != nil {
		<-s.ended
		if !s.cmd.ProcessState.Success() {
			err = fmt.Errorf("server: it did not end well: %w", s.err)
		}
	}
	return errors.Join(err, s.group.remove())
}
