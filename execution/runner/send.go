package runner

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// sender writes frames to a supervisor within a time.
type sender struct {
	stream *stream
	left   time.Duration // that writing may still take; the wait for a file's source does not count
}

// timeFor is how long bytes may take between us and a sandbox, on a machine that
// is loaded to the brim.
func timeFor(bytes int64) time.Duration {
	const slowest = 1 << 20 // bytes a second
	return time.Duration(float64(bytes) / slowest * float64(time.Second))
}

// send sends a whole task, and its files as their sources return them. It stops
// when ctx ends. An error that does not wrap [execution.ErrNotStarted] is a
// source's.
func (s *stream) send(ctx context.Context, t *task, head []byte) error {
	w := &sender{stream: s, left: stageTime}
	for _, file := range t.files {
		w.left += timeFor(file.Size)
	}
	err := w.write(ctx, func(out frameWriter) error {
		_ = out.frame(kindJob, head)
		_ = out.chunks(kindCode, []byte(t.code))
		_ = out.chunks(kindStdin, []byte(t.stdin))
		_ = out.chunks(kindVars, t.variables())
		return out.chunks(kindArgs, t.arguments())
	})
	if err == nil && len(t.files) > 0 {
		err = w.files(ctx, t.files)
	}
	if err == nil && t.more != nil {
		err = w.further(ctx, t)
	}
	if err != nil {
		return err
	}
	return w.write(ctx, func(out frameWriter) error {
		s.unasked.Store(false)
		_ = out.frame(kindGo, nil)
		return out.w.Flush()
	})
}

// write writes frames, in what is left of the time, and releases the stream: pings go
// between, so that a slow source does not cost the sandbox.
func (w *sender) write(ctx context.Context, frames func(out frameWriter) error) error {
	s := w.stream
	s.pulse.wait()
	defer s.pulse.resume()
	began := time.Now()
	err := s.hold(ctx)
	if err == nil {
		err = w.writeHeld(ctx, frames)
		s.release()
	}
	w.left -= time.Since(began)
	if err != nil {
		return fmt.Errorf("%w: %w", execution.ErrNotStarted, err)
	}
	return nil
}

// writeHeld writes frames. It needs the right to write.
func (w *sender) writeHeld(ctx context.Context, frames func(out frameWriter) error) error {
	s := w.stream
	if err := context.Cause(ctx); err != nil { // before, not after: what is written is written
		return err
	}
	if err := s.bound(w.left); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = s.instance.SetWriteDeadline(time.Now()) })()
	err := frames(s.out)
	if err != nil && s.Silent() {
		return errSilent
	}
	return err
}

// note sends a frame without a payload, within a time.
func (s *stream) note(ctx context.Context, kind byte, within time.Duration) error {
	return (&sender{stream: s, left: within}).write(ctx, func(out frameWriter) error {
		_ = out.frame(kind, nil)
		return out.w.Flush()
	})
}

// files sends files, one chunk in memory at a time.
func (w *sender) files(ctx context.Context, files []execution.Input) error {
	chunk := make([]byte, chunkBytes)
	for _, file := range files {
		if err := w.file(ctx, file, chunk); err != nil {
			return err
		}
	}
	return nil
}

// further sends files that become known one after the other.
func (w *sender) further(ctx context.Context, t *task) error {
	chunk := make([]byte, chunkBytes)
	for {
		file, err := t.more(ctx)
		if execution.IsLast(err) {
			return nil
		}
		if err != nil {
			return err
		}
		t.sent = append(t.sent, file.Path)
		w.left += timeFor(file.Size)
		if err := w.file(ctx, file, chunk); err != nil {
			return err
		}
	}
}

// announcement is the payload of the frame that begins a file.
func announcement(file execution.Input) []byte {
	switch {
	case file.Folder:
		return []byte(file.Path + "/")
	case file.Executable:
		return []byte(file.Path + "\x00x")
	}
	return []byte(file.Path)
}

// file sends a file by way of a chunk's memory. Each chunk is read before its
// frame begins: a source that fails leaves no half a frame.
func (w *sender) file(ctx context.Context, file execution.Input, chunk []byte) error {
	content, err := file.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	err = w.write(ctx, func(out frameWriter) error { return out.frame(kindFile, announcement(file)) })
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(fileFrames{ctx, w}, content, chunk)
	return err
}

// fileFrames sends what is written to it as a part of a file.
type fileFrames struct {
	ctx context.Context //nolint:containedctx // of the job: an [io.Writer] gets none
	to  *sender
}

func (f fileFrames) Write(p []byte) (int, error) {
	err := f.to.write(f.ctx, func(out frameWriter) error { return out.chunks(kindData, p) })
	return len(p), err
}
