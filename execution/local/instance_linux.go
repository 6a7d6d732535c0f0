package local

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// exitTime is how long PID 1 may take to leave after its stdin has ended.
	exitTime = 2 * time.Second
	// diagnosticBytes is how much of PID 1's stderr is kept.
	diagnosticBytes = 2048
)

// instance is a sandbox that ends with this process.
type instance struct {
	process *process
	stdin   *os.File
	stdout  *os.File

	errors chan struct{} // closed when the supervisor's stderr has ended
	mu     sync.Mutex
	text   []byte

	destroy sync.Once
	gone    chan struct{} // closed when Destroy has finished
	failure error         // the result of Destroy; set before gone is closed
}

var _ execution.Instance = (*instance)(nil)

func newInstance(p *process, stdin, stdout, stderr *os.File) *instance {
	i := &instance{process: p, stdin: stdin, stdout: stdout, errors: make(chan struct{}), gone: make(chan struct{})}
	go i.listen(stderr)
	return i
}

// listen keeps the beginning of what the supervisor writes to stderr.
func (i *instance) listen(stderr *os.File) {
	defer close(i.errors)
	defer func() { _ = stderr.Close() }()
	buffer := make([]byte, diagnosticBytes)
	for {
		n, err := stderr.Read(buffer)
		i.mu.Lock()
		i.text = append(i.text, buffer[:min(n, diagnosticBytes-len(i.text))]...)
		i.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Read reads what PID 1 writes to stdout. At the end it waits for the end of stderr.
func (i *instance) Read(p []byte) (int, error) {
	n, err := i.stdout.Read(p)
	if errors.Is(err, os.ErrClosed) {
		err = io.EOF
	}
	if errors.Is(err, io.EOF) {
		<-i.errors
	}
	return n, err
}

// Write writes to PID 1's stdin.
func (i *instance) Write(p []byte) (int, error) { return i.stdin.Write(p) }

// SetWriteDeadline bounds writes.
func (i *instance) SetWriteDeadline(t time.Time) error { return i.stdin.SetWriteDeadline(t) }

// Diagnostics returns what PID 1 wrote to stderr, as far as it has been read.
func (i *instance) Diagnostics() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return string(i.text)
}

// Detach ends the sandbox in the background.
func (i *instance) Detach() { go func() { _ = i.Destroy(context.Background()) }() }

// Destroy asks PID 1 to end, by ending its stdin, and kills it if that takes too long.
func (i *instance) Destroy(ctx context.Context) error { return i.end(ctx, exitTime) }

// Kill kills PID 1, which may be stopped.
func (i *instance) Kill(ctx context.Context) error { return i.end(ctx, 0) }

// end ends the sandbox, with a time for PID 1 to leave, and waits until it is gone.
func (i *instance) end(ctx context.Context, patience time.Duration) error {
	i.destroy.Do(func() {
		go func() {
			defer close(i.gone)
			i.failure = i.finish(patience)
		}()
	})
	select {
	case <-i.gone:
		return i.failure
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (i *instance) finish(patience time.Duration) error {
	_ = i.stdin.Close()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-i.process.exited:
	case <-timer.C:
		i.process.end()
	}
	<-i.errors
	return errors.Join(i.stdout.Close(), i.process.group.remove())
}
