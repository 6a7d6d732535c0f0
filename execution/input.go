package execution

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// Input is a file to stage in a workspace.
type Input struct {
	// Path is relative to the workspace and uses "/".
	Path string
	// Size is how many bytes the source gives.
	Size int64
	// Source gives the bytes. Nil gives none.
	Source Source
}

// Source gives the bytes of an [Input].
type Source interface {
	// Open opens the bytes for reading, from the first. It may be called again
	// when the reader is closed: a run may be tried again in another sandbox.
	Open(ctx context.Context) (io.ReadCloser, error)
}

// UsedUp says whether the source cannot be opened again: it has a method of that
// name which says so. Only a session's files come from such sources.
func (i Input) UsedUp() bool {
	source, once := i.Source.(interface{ UsedUp() bool })
	return once && source.UsedUp()
}

// Inline makes an input of bytes that are in memory, and must not change.
func Inline(path string, content []byte) Input {
	return Input{Path: path, Size: int64(len(content)), Source: inline(content)}
}

type inline []byte

func (b inline) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Open opens the source. The reader gives Size bytes and then [io.EOF], or an
// error that says how the source failed to.
func (i Input) Open(ctx context.Context) (io.ReadCloser, error) {
	source := i.Source
	if source == nil {
		source = inline(nil)
	}
	content, err := source.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the input %q: %w", Clip(i.Path), err)
	}
	return &exactly{ReadCloser: content, input: i}, nil
}

// exactly reads an input of which the size is known.
type exactly struct {
	io.ReadCloser
	input Input
	given int64
}

func (e *exactly) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	e.given += int64(n)
	switch {
	case e.given > e.input.Size:
		return 0, fmt.Errorf("the input %q has more than the %d bytes that it was said to have", Clip(e.input.Path), e.input.Size)
	case errors.Is(err, io.EOF) && e.given < e.input.Size:
		return 0, fmt.Errorf("the input %q ends after %d bytes of the %d that it was said to have", Clip(e.input.Path), e.given, e.input.Size)
	case err != nil && !errors.Is(err, io.EOF):
		return n, fmt.Errorf("reading the input %q: %w", Clip(e.input.Path), err)
	}
	return n, err
}
