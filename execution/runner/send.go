package runner

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// job is one that is being sent.
type job struct {
	sandbox *Sandbox
	left    time.Duration // that writing may still take; waiting for a file's source takes nothing of it
}

// timeFor is how long bytes may take between us and a sandbox, on a machine that
// is loaded to the brim.
func timeFor(bytes int64) time.Duration {
	const slowest = 1 << 20 // bytes a second
	return time.Duration(float64(bytes) / slowest * float64(time.Second))
}

// send sends a whole job, its files as their sources give them. It gives up
// when ctx ends. Where its error does not wrap [execution.ErrNotStarted], a
// source is at fault.
func (s *Sandbox) send(ctx context.Context, req execution.Request, limits []byte) error {
	j := &job{sandbox: s, left: stageTime}
	for _, file := range req.Files {
		j.left += timeFor(file.Size)
	}
	err := j.write(ctx, func(out frameWriter) error {
		_ = out.frame(kindJob, limits)
		_ = out.chunks(kindCode, []byte(req.Code))
		return out.chunks(kindStdin, []byte(req.Stdin))
	})
	if err == nil && len(req.Files) > 0 {
		err = j.files(ctx, req.Files)
	}
	if err != nil {
		return err
	}
	return j.write(ctx, func(out frameWriter) error {
		s.unasked.Store(false)
		_ = out.frame(kindGo, nil)
		return out.w.Flush()
	})
}

// write writes frames, in what is left of the time, and lets go of the stream:
// pings go between, so that a slow source costs no sandbox.
func (j *job) write(ctx context.Context, frames func(out frameWriter) error) error {
	s := j.sandbox
	s.pulse.wait()
	defer s.pulse.resume()
	began := time.Now()
	err := s.hold(ctx)
	if err == nil {
		err = j.writeHeld(ctx, frames)
		s.release()
	}
	j.left -= time.Since(began)
	if err != nil {
		return fmt.Errorf("%w: %w", execution.ErrNotStarted, err)
	}
	return nil
}

// writeHeld writes frames. It needs the right to write.
func (j *job) writeHeld(ctx context.Context, frames func(out frameWriter) error) error {
	s := j.sandbox
	if err := context.Cause(ctx); err != nil { // before, not after: what is written is written
		return err
	}
	if err := s.bound(j.left); err != nil {
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
func (s *Sandbox) note(ctx context.Context, kind byte, within time.Duration) error {
	return (&job{sandbox: s, left: within}).write(ctx, func(out frameWriter) error {
		_ = out.frame(kind, nil)
		return out.w.Flush()
	})
}

// files sends files, one chunk in memory at a time.
func (j *job) files(ctx context.Context, files []execution.Input) error {
	chunk := make([]byte, chunkBytes)
	for _, file := range files {
		if err := j.file(ctx, file, chunk); err != nil {
			return err
		}
	}
	return nil
}

// file sends a file by way of a chunk's memory. Each chunk is read before its
// frame begins: a source that fails leaves no half a frame.
func (j *job) file(ctx context.Context, file execution.Input, chunk []byte) error {
	content, err := file.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	err = j.write(ctx, func(out frameWriter) error { return out.frame(kindFile, []byte(file.Path)) })
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(fileFrames{ctx, j}, content, chunk)
	return err
}

// fileFrames sends what is written to it as some of a file.
type fileFrames struct {
	ctx context.Context //nolint:containedctx // of the job: an [io.Writer] gets none
	job *job
}

func (f fileFrames) Write(p []byte) (int, error) {
	err := f.job.write(f.ctx, func(out frameWriter) error { return out.chunks(kindData, p) })
	return len(p), err
}

func jobLimits(req execution.Request, limits execution.Limits) []byte {
	interactive := 0
	if req.Interactive {
		interactive = 1
	}
	return fmt.Appendf(nil,
		"timeout_ms=%d\ncpu_seconds=%d\noutput_bytes=%d\ninteractive=%d\nfiles=%d\nfile_bytes=%d\ntotal_bytes=%d\n",
		req.Timeout.Milliseconds(), int64(limits.CPUTime/time.Second), limits.OutputBytes, interactive,
		limits.ResultFiles, limits.ResultFileBytes, limits.ResultBytes)
}
