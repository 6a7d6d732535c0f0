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
	// Folder makes this a folder, which has no bytes. Executable lets the file's owner
	// execute it. In a run neither has an effect.
	Folder, Executable bool
	// Size is how many bytes the source has.
	Size int64
	// Source has the bytes. A nil Source is empty.
	Source Source
	// Find, if not nil, returns Size and Source. [Request.Validate] calls it when the
	// rest of the request is valid.
	Find func(ctx context.Context) (int64, Source, error)
}

// Found returns the input with its size and its source.
func (i Input) Found(ctx context.Context) (_ Input, err error) {
	if i.Find != nil {
		i.Size, i.Source, err = i.Find(ctx)
		i.Find = nil
	}
	return i, err
}

// Source has the bytes of an [Input].
type Source interface {
	// Open opens the bytes for reading, from the first. It may be called again
	// when the reader is closed: a run may be tried again in another sandbox.
	Open(ctx context.Context) (io.ReadCloser, error)
}

// Inline returns an input of bytes that are in memory, and must not change.
func Inline(path string, content []byte) Input {
	return Input{Path: path, Size: int64(len(content)), Source: inline(content)}
}

type inline []byte

func (b inline) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Open opens the source. The reader returns Size bytes and then [io.EOF], or an
// error that explains how the source failed to.
func (i Input) Open(ctx context.Context) (io.ReadCloser, error) {
	source := i.Source
	if source == nil {
		source = inline(nil)
	}
	content, err := source.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the input %q: %w", Clip(i.Path), err)
	}
	return &exactReader{ReadCloser: content, input: i}, nil
}

// exactReader reads an input whose size is known.
type exactReader struct {
	io.ReadCloser
	input Input
	read  int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	e.read += int64(n)
	switch {
	case e.read > e.input.Size:
		return 0, fmt.Errorf("the input %q has more than its declared size of %d bytes", Clip(e.input.Path), e.input.Size)
	case errors.Is(err, io.EOF) && e.read < e.input.Size:
		return 0, fmt.Errorf("the input %q ends after %d bytes of its declared size of %d", Clip(e.input.Path), e.read, e.input.Size)
	case err != nil && !errors.Is(err, io.EOF):
		return n, fmt.Errorf("reading the input %q: %w", Clip(e.input.Path), err)
	}
	return n, err
}
