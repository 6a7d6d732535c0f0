package execution

import (
	"context"
	"io"
	"time"
)

// DefaultTimeout is how long a program may run when its request does not say.
const DefaultTimeout = 2 * time.Second

// MainFile is the name of the program's own file in its workspace. Files may not be
// staged under it and it is never returned.
const MainFile = "__main__.py"

// Request is one Python program to run. Only Code is required.
type Request struct {
	// Code is Python source text.
	Code string
	// Stdin is what the program reads on its standard input.
	Stdin string
	// Timeout bounds the program's own wall-clock time. Zero means
	// [DefaultTimeout].
	Timeout time.Duration
	// Interactive displays the value of the last statement, when that is a
	// bare expression, as a REPL does.
	Interactive bool
	// Env has variables that are added to the environment of the program and of the processes
	// that it starts. The values may be secrets: they must not appear in a log or an error.
	Env map[string]string
	// Args are the program's arguments, sys.argv[1:].
	Args []string
	// Files are staged in the workspace before the program starts.
	Files []Input
	// Keep, if not nil, receives each file that the run created or changed, one
	// after the other, while its bytes arrive; the result then has the files'
	// IDs instead of their contents. See [Keep].
	Keep Keep
	// Started, if not nil, is called once, when the program starts.
	Started func()
	// Output, if not nil, receives what the program prints. See [Output].
	Output Output
}

// Output receives what a program prints, soon after it did and in order, from one
// goroutine at a time and never after the run. It must not block, or it would hold
// up the run's deadline. Each text is valid UTF-8 and ends with a whole character.
// The texts of a stream, joined, are the start of its text in the [Result], which
// alone has what comes at the end: half a character, or the mark of a cut.
type Output func(stream Stream, text string)

// Stream names one of a program's output streams. The values are part of the
// HTTP contract.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Keep stores a file that a run created or changed and returns the id under which it is
// stored. It reads content to its end, as slowly as it must, and returns content's
// errors as they are, since the file is then not whole. A file that it fails to
// store is listed as skipped, with the reason where the error is an [*Error]; the
// run goes on. It is never called before the program has ended.
//
// When a run ends with an error, the caller must delete what Keep has stored: no
// client learns the ids.
type Keep func(ctx context.Context, path string, content io.Reader) (id string, err error)

// File is a regular file that a run created or changed.
type File struct {
	// Path is relative to the workspace and uses "/".
	Path string
	// Size is in bytes.
	Size int64
	// ID is what [Keep] returned. It is empty without a Keep.
	ID string
	// Content is the file's bytes. It is nil where Keep received them.
	Content []byte
}

// Validate checks a request against the limits. It returns the request with its
// defaults filled in and its files found. The error is an [*Error]; one with code
// [Invalid] names every field at fault.
func (r Request) Validate(ctx context.Context, l Limits) (Request, error) {
	if r.Timeout == 0 {
		r.Timeout = min(DefaultTimeout, l.MaxTimeout)
	}
	faults, err := l.checkTimeout(r.Timeout)
	if err != nil {
		return r, err
	}
	faults = append(faults, environmentFaults(r.Env, r.Args)...)
	r.Files, err = l.checkFiles(ctx, r.Files, faults...)
	return r, err
}
