package local

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// sessionInstance is a connection to a session's sandbox.
type sessionInstance struct {
	backend *Backend
	folder  string
	record  record
	lock    *os.File
	in, out *os.File

	mu     sync.Mutex
	stderr *os.File // nil after Detach
	said   string   // what Diagnostics returned last
}

var _ execution.Instance = (*sessionInstance)(nil)

// connect opens this server's ends of the FIFOs.
func (i *sessionInstance) connect() error {
	var err error
	if i.in, err = os.OpenFile(filepath.Join(i.folder, inFile), os.O_WRONLY|unix.O_NONBLOCK, 0); err != nil {
		return err
	}
	if i.out, err = os.OpenFile(filepath.Join(i.folder, outFile), os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		return errors.Join(err, i.in.Close())
	}
	if i.stderr, err = os.OpenFile(filepath.Join(i.folder, errorsFile), os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		return errors.Join(err, i.in.Close(), i.out.Close())
	}
	return nil
}

// Read reads what PID 1 writes to stdout.
func (i *sessionInstance) Read(p []byte) (int, error) {
	n, err := i.out.Read(p)
	if errors.Is(err, os.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

// Write writes to PID 1's stdin.
func (i *sessionInstance) Write(p []byte) (int, error) { return i.in.Write(p) }

// SetWriteDeadline bounds writes.
func (i *sessionInstance) SetWriteDeadline(t time.Time) error { return i.in.SetWriteDeadline(t) }

// Diagnostics returns the beginning of what PID 1 wrote to stderr. It leaves that in
// the FIFO, for the next server to find.
func (i *sessionInstance) Diagnostics() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stderr != nil {
		i.said = peek(i.stderr, diagnosticBytes)
	}
	return i.said
}

// peek returns the first bytes in a FIFO without removing them, or "" if it is empty.
func peek(fifo *os.File, most int) string {
	r, w, err := os.Pipe()
	if err != nil {
		return ""
	}
	defer func() { _ = r.Close() }()
	copied := copyPipe(fifo, w, most)
	_ = w.Close()
	if copied != nil {
		return ""
	}
	text, _ := io.ReadAll(r)
	return string(text)
}

// copyPipe copies the content of one pipe to another, without waiting (tee(2)).
func copyPipe(from, to *os.File, most int) error {
	source, err := from.SyscallConn()
	if err != nil {
		return err
	}
	target, err := to.SyscallConn()
	if err != nil {
		return err
	}
	var teeErr, targetErr error
	sourceErr := source.Control(func(in uintptr) {
		targetErr = target.Control(func(out uintptr) {
			_, teeErr = unix.Tee(int(in), int(out), most, unix.SPLICE_F_NONBLOCK)
		})
	})
	return errors.Join(teeErr, sourceErr, targetErr)
}

// Detach closes the connection, for any server to make another.
func (i *sessionInstance) Detach() {
	_ = i.Diagnostics() // for later calls
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stderr == nil {
		return
	}
	_ = errors.Join(i.in.Close(), i.out.Close(), i.stderr.Close(), i.lock.Close())
	i.stderr = nil
}

// Destroy ends the session.
func (i *sessionInstance) Destroy(ctx context.Context) error {
	defer i.Detach()
	return i.record.end(ctx, i.folder)
}

// Kill ends the session, as Destroy does.
func (i *sessionInstance) Kill(ctx context.Context) error { return i.Destroy(ctx) }
