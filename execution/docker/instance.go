package docker

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// exitTime is how long PID 1 may take to leave after its stdin has ended.
	exitTime = 2 * time.Second
	// createTime bounds the creation of a container.
	createTime = 30 * time.Second
	// cleanupTime bounds the removal of a container, which no caller's
	// cancellation shortens.
	cleanupTime = 30 * time.Second
	// diagnosticBytes is how much of PID 1's stderr is kept.
	diagnosticBytes = 2048
	// chunkBytes is as much as the engine sends in one chunk (a header of 8
	// bytes, 32 KB of the stream), so that one read takes all of it in.
	chunkBytes = 8 + 32<<10
)

// instance is a sandbox's container, attached.
type instance struct {
	backend *Backend
	id      string
	session bool // it belongs to a session, and does not end with the stream
	conn    types.HijackedResponse
	in      *bufio.Reader // of conn
	ended   chan struct{} // closed when the stream from the container has ended

	left   uint32 // bytes left of the current chunk of stdout
	endErr error  // why the stream ended; set before ended is closed

	mu          sync.Mutex
	diagnostics []byte

	destroy sync.Once
	gone    chan struct{} // closed when Destroy has finished
	failure error         // the result of Destroy; set before gone is closed
}

// Start makes, attaches and starts a container. Attaching comes first: from
// then on the container's life depends on our connection.
func (b *Backend) Start(ctx context.Context, spec execution.Spec) (execution.Instance, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	name := "vivarium-" + newID()
	id, err := b.create(ctx, spec, name)
	if err != nil {
		return nil, b.abandon(ctx, name, fmt.Errorf("create: %w", execution.WithCause(startCause(spec, err), err)))
	}
	conn, err := b.attach(ctx, id)
	if err != nil {
		return nil, b.abandon(ctx, id, fmt.Errorf("attach: %w", err))
	}
	if err := b.client.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		conn.Close()
		return nil, b.abandon(ctx, id, fmt.Errorf("start: %w", execution.WithCause(startCause(spec, err), err)))
	}
	return b.newInstance(id, conn, isSession(spec)), nil
}

func (b *Backend) newInstance(id string, conn types.HijackedResponse, session bool) *instance {
	return &instance{
		backend: b, id: id, session: session, conn: conn, in: bufio.NewReaderSize(conn.Reader, chunkBytes),
		ended: make(chan struct{}), gone: make(chan struct{}),
	}
}

// create creates a container. A caller that leaves does not cancel this: the engine
// would finish it anyway, and this server would not know of the container.
func (b *Backend) create(ctx context.Context, spec execution.Spec, name string) (string, error) {
	uncancelled, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTime)
	defer cancel()
	user := b.takeUser()
	made, err := b.client.ContainerCreate(uncancelled, b.config(spec, user, time.Now()), b.hostConfig(spec, user), nil, nil, name)
	if err != nil {
		b.users.Release(user)
		return "", err
	}
	b.hold(made.ID, user)
	if err := ctx.Err(); err != nil {
		b.drop(made.ID)
		return "", err
	}
	return made.ID, nil
}

// attach connects to a container's streams. The client's own method ignores the
// context once it is connected (v28.5.2).
func (b *Backend) attach(ctx context.Context, id string) (types.HijackedResponse, error) {
	type result struct {
		conn types.HijackedResponse
		err  error
	}
	results := make(chan result, 1)
	go func() {
		conn, err := b.client.ContainerAttach(ctx, id, container.AttachOptions{
			Stream: true, Stdin: true, Stdout: true, Stderr: true,
		})
		results <- result{conn, err}
	}()
	select {
	case r := <-results:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if late := <-results; late.err == nil {
				late.conn.Close()
			}
		}()
		return types.HijackedResponse{}, context.Cause(ctx)
	}
}

// abandon removes a container that could not be started, if it is there, by
// its id or name.
func (b *Backend) abandon(ctx context.Context, id string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	defer b.drop(id)
	if err := b.remove(ctx, id); err != nil {
		cause = fmt.Errorf("%w (and it could not be removed: %w)", cause, err)
	}
	return b.unavailable(cause)
}

// remove kills and removes a container. It succeeds if the container has gone or is
// being removed.
func (b *Backend) remove(ctx context.Context, id string) error {
	err := b.client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // a conflict: removal is in progress
		return nil
	}
	return err
}

// Read reads what PID 1 writes to stdout. The engine multiplexes it with
// stderr in chunks: the stream's number, three zeros, four bytes of length.
// It may be called by one goroutine at a time.
func (i *instance) Read(p []byte) (int, error) {
	for i.left == 0 {
		if err := i.nextChunk(); err != nil {
			return 0, i.endStream(err)
		}
	}
	n, err := i.in.Read(p[:min(uint64(len(p)), uint64(i.left))])
	i.left -= uint32(n)
	if err != nil {
		return n, i.endStream(err)
	}
	return n, nil
}

// nextChunk reads chunks until one of stdout begins; those of stderr are kept
// for Diagnostics.
func (i *instance) nextChunk() error {
	const stdout = 1
	var header [8]byte
	if _, err := io.ReadFull(i.in, header[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(header[4:])
	if header[0] == stdout {
		i.left = size
		return nil
	}
	text := make([]byte, min(size, diagnosticBytes))
	if _, err := io.ReadFull(i.in, text); err != nil {
		return err
	}
	i.mu.Lock()
	i.diagnostics = append(i.diagnostics, text[:min(len(text), diagnosticBytes-len(i.diagnostics))]...)
	i.mu.Unlock()
	_, err := io.CopyN(io.Discard, i.in, int64(size)-int64(len(text)))
	return err
}

// endStream records the stream's end and returns its reason, which is always the same.
func (i *instance) endStream(err error) error {
	select {
	case <-i.ended:
	default:
		i.endErr = err
		close(i.ended)
	}
	return i.endErr
}

// Write writes to PID 1's stdin.
func (i *instance) Write(p []byte) (int, error) { return i.conn.Conn.Write(p) }

// SetWriteDeadline bounds writes.
func (i *instance) SetWriteDeadline(t time.Time) error { return i.conn.Conn.SetWriteDeadline(t) }

// Diagnostics returns what PID 1 wrote to stderr, as far as it has been read.
func (i *instance) Diagnostics() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return string(i.diagnostics)
}

// Destroy asks PID 1 to end, by ending its stdin, and has the engine kill it
// if that takes too long. The stream must be read meanwhile, or PID 1 cannot end. The
// engine removes the container by itself.
func (i *instance) Destroy(ctx context.Context) error { return i.end(ctx, !i.session) }

// Kill has the engine kill PID 1, which may be stopped or paused.
func (i *instance) Kill(ctx context.Context) error { return i.end(ctx, false) }

// end ends the container, asking PID 1 first or not, and waits until it is gone.
func (i *instance) end(ctx context.Context, ask bool) error {
	i.destroy.Do(func() {
		go func() {
			defer close(i.gone)
			i.failure = i.finish(context.WithoutCancel(ctx), ask)
		}()
	})
	select {
	case <-i.gone:
		return i.failure
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Detach closes the connection.
func (i *instance) Detach() {
	i.conn.Close()
	i.backend.drop(i.id)
}

func (i *instance) finish(ctx context.Context, ask bool) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	defer i.Detach()
	if ask && i.leaves() {
		return nil
	}
	if err := i.backend.remove(ctx, i.id); err != nil {
		return i.backend.unavailable(fmt.Errorf("remove: %w", err))
	}
	return nil
}

// leaves ends PID 1's stdin, and reports whether PID 1 left in time.
func (i *instance) leaves() bool {
	_ = i.conn.CloseWrite() // fails where the stream has ended already
	timer := time.NewTimer(exitTime)
	defer timer.Stop()
	select {
	case <-i.ended:
		return true
	case <-timer.C:
		return false
	}
}
