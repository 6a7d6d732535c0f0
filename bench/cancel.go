package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// cancels is how often each way to call a run off is tried.
	cancels = 20
	// goneTime bounds the wait for a run to begin, and to end.
	goneTime = 20 * time.Second
)

// cancels measures how long a run goes on that its client calls off, in each way
// that MCP has. The run is a process that the host can see, so the engine must be
// on this machine, and the machine run Linux.
func (m *measurement) cancels(ctx context.Context, pipe *mcpPipe, overHTTP *mcpHTTP) ([]sideResult, error) {
	m.say("cancellation: %d runs each", cancels)
	var results []sideResult
	for _, way := range []struct {
		name string
		run  func(ctx context.Context, p program) (callOff func(), err error)
	}{
		{"notification over stdio", pipe.begin},
		{"closed HTTP request", overHTTP.begin},
		{"closed stdin", func(ctx context.Context, p program) (func(), error) {
			own, err := openPipe(ctx, m.opts, m.engine.host(), m.server.binary)
			if err != nil {
				return nil, err
			}
			_, err = own.begin(ctx, p)
			return func() { _ = own.in.Close() }, err
		}},
	} {
		var t tally
		for range cancels {
			took, err := timeCancel(ctx, way.run)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.name, err)
			}
			t.timings = append(t.timings, timing{answer: took, whole: took})
		}
		results = append(results, sideResult{Side: way.name, summary: t.summary()})
	}
	return results, nil
}

// timeCancel begins a run, calls it off, and gives the time until it is gone.
func timeCancel(ctx context.Context, run func(ctx context.Context, p program) (callOff func(), err error)) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*goneTime, errors.New("the run does not begin, or does not end"))
	defer cancel()
	argument := fmt.Sprintf("3600.%d", time.Now().UnixNano())
	callOff, err := run(ctx, program{code: fmt.Sprintf("import subprocess; subprocess.run(['sleep', '%s'])", argument)})
	if err != nil {
		return 0, err
	}
	defer callOff()
	process := ""
	for process == "" {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return 0, err
		}
		process = find(argument)
	}
	began := time.Now()
	callOff()
	for isThere(process, argument) {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// find returns the /proc folder of the process that has an argument, or "".
func find(argument string) string {
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		if isThere(folder, argument) {
			return folder
		}
	}
	return ""
}

// isThere reports whether a process exists and runs.
func isThere(folder, argument string) bool {
	line, err := os.ReadFile(filepath.Join(folder, "cmdline")) // of a dead one it is empty
	return err == nil && bytes.Contains(line, []byte("\x00"+argument+"\x00"))
}
