package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// collection takes in a report.
type collection struct {
	stream *stream
	report *report
	keep   execution.Keep // may be nil
	timer  *time.Timer    // up to the program's end it runs through
	left   time.Duration  // that the files may still be waited for; keeping them takes nothing of it
	early  *frame         // read before its turn
}

// collect takes in a report to its end. Its error explains why the end did not arrive.
func (c *collection) collect(ctx context.Context) error {
	for !c.report.complete {
		f, err := c.next(ctx)
		if err == nil {
			err = c.report.take(f)
		}
		if err == nil && f.kind == kindFile && c.keep != nil {
			err = c.keepFile(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// next waits for a frame. When the program has ended, it is only the waiting
// that is bounded, all in all, by a time that what has come adds to: the store
// may be slow, the sandbox may not.
func (c *collection) next(ctx context.Context) (frame, error) {
	if f := c.early; f != nil {
		c.early = nil
		return *f, nil
	}
	if !c.report.ended {
		return c.stream.next(ctx, c.timer.C)
	}
	began := time.Now()
	c.timer.Reset(c.left)
	f, err := c.stream.next(ctx, c.timer.C)
	c.left += timeFor(int64(len(f.payload))) - time.Since(began)
	return f, err
}

// keepFile passes the file that has begun to Keep. Its error is the sandbox's: if Keep
// fails, the file is skipped.
func (c *collection) keepFile(ctx context.Context) error {
	content := &content{ctx: ctx, from: c}
	id, err := c.keep(ctx, c.report.file.Path, content)
	if content.err == nil {
		_, _ = io.Copy(io.Discard, content) // what the keeper did not want
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(content.err, errTorn):
		return nil // the next frame reports that, and skips the file
	case !errors.Is(content.err, io.EOF):
		return content.err
	case err != nil:
		reason := "it could not be stored: " + execution.AsError(err).Message
		if c.stream.lasting {
			reason += "; it stays in the session"
		}
		c.report.skipFile(reason)
		c.stream.log.WarnContext(ctx, "a file that a run made could not be kept", "error", err)
	default:
		c.report.file.ID = id
	}
	return nil
}

// errTorn means that a file did not arrive whole.
var errTorn = errors.New("the file was changed while it was read")

// content is a file's bytes, as they come in.
type content struct {
	ctx  context.Context //nolint:containedctx // of the run: an [io.Reader] gets none
	from *collection
	rest []byte // of a frame
	err  error  // why there is no more
}

func (c *content) Read(p []byte) (int, error) {
	for len(c.rest) == 0 && c.err == nil {
		c.rest, c.err = c.next()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, c.err
}

// next returns what the next frame has of the file. Another frame ends the file.
func (c *content) next() ([]byte, error) {
	f, err := c.from.next(c.ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the file did not arrive whole: %w", err)
	case f.kind == kindTorn:
		c.from.early = &f
		return nil, errTorn
	case f.kind != kindData:
		c.from.early = &f
		return nil, io.EOF
	}
	return f.payload, c.from.report.take(f)
}
