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

// goneTime bounds the wait for a run to begin and to end.
const goneTime = 40 * time.Second

// cancelled begins runs and cancels them. What counts is how long a run continues. The run
// is a process that this machine can see, so the engine must be on it.
type cancelled struct {
	begin func(ctx context.Context, p program) (callOff func(), err error)
}

func (c *cancelled) run(ctx context.Context, _ program) (timing, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, goneTime, errors.New("the run does not begin, or does not end"))
	defer cancel()
	argument := fmt.Sprintf("3600.%d", time.Now().UnixNano())
	callOff, err := c.begin(ctx, program{code: fmt.Sprintf("import subprocess; subprocess.run(['sleep', '%s'])", argument)})
	if err != nil {
		return timing{}, err
	}
	defer callOff()
	process := ""
	for process == "" {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return timing{}, err
		}
		process = find(argument)
	}
	began := time.Now()
	callOff()
	for isThere(process, argument) {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return timing{}, err
		}
	}
	return timing{took: time.Since(began)}, nil
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
