package execution

import (
	"context"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

// DefaultTimeout is how long a program may run when its request does not say.
const DefaultTimeout = 2 * time.Second

// MainFile is the name under which the program itself lies in its workspace.
// Files may not be staged under it and it is never returned.
const MainFile = "__main__.py"

// Limits of a file's path, as Linux has them (linux/limits.h).
const (
	maxNameBytes = 255
	maxPathBytes = 1024
	maxPathDepth = 32
)

// Request is one program to run. Only Code is required.
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
	// Files are staged in the workspace before the program starts.
	Files []Input
	// Keep, if not nil, is given each file that the run made or changed, one
	// after the other, while its bytes come in; the result then has the files'
	// IDs instead of their contents. See [Keep].
	Keep Keep
	// Started, if not nil, is called once, when the program is let go.
	Started func()
	// Output, if not nil, is called with what the program prints, soon after it
	// did and in order, by one goroutine at a time and never after the run. It
	// must not block, or it would hold up the run's deadline. Each text is valid
	// UTF-8 and ends with a whole character; those of a stream, joined, are the
	// start of its text in the [Result], which alone has what comes at the end:
	// half a character, or the mark of a cut.
	Output func(stream Stream, text string)
}

// Stream names one of a program's output streams. The values are part of the
// HTTP contract.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Keep keeps a file that a run made or changed and says by which id it can be
// had. It reads content to its end, as slowly as it must; an error of content's
// is its own, since what it has is not the whole file. A file that it fails to
// keep is among the skipped ones, with the reason where the error is an
// [*Error]; the run goes on. It is never called before the program has ended.
//
// When a run comes to an error, whoever gave Keep must see to it that nothing
// stays of what it kept: nobody will learn the ids.
type Keep func(ctx context.Context, path string, content io.Reader) (id string, err error)

// File is a regular file that a run made or changed.
type File struct {
	// Path is relative to the workspace and uses "/".
	Path string
	// Size is in bytes.
	Size int64
	// ID is what [Request.Keep] gave. Empty without one.
	ID string
	// Content is the file's bytes. Nil where Keep had them.
	Content []byte
}

// Limits bound every run. All fields must be positive, but for CPUs and MemoryBytes.
type Limits struct {
	// MaxTimeout is the longest Timeout a request may ask for.
	MaxTimeout time.Duration
	// CPUTime bounds each process of a program, in whole seconds
	// (RLIMIT_CPU). The wall clock and the container's cpu quota bound the sum.
	CPUTime time.Duration
	// OutputBytes is kept of stdout and of stderr each.
	OutputBytes int
	// WorkspaceBytes is the size of the workspace: staged files must fit.
	WorkspaceBytes int64
	// ResultFiles is how many files a run returns.
	ResultFiles int
	// ResultFileBytes is the size of the largest file a run returns.
	ResultFileBytes int64
	// ResultBytes is the size of all files that a run returns.
	ResultBytes int64
	// CPUs and MemoryBytes are what a sandbox has: no usage beyond that is
	// reported. Zero means that it is not known.
	CPUs        float64
	MemoryBytes int64
}

// Validate checks a request against the limits and fills in what it left out.
// The error is an [*Error] with code [Invalid] whose Fields name every fault.
func (l Limits) Validate(req Request) (Request, error) {
	var faults []FieldError
	switch {
	case req.Timeout < 0:
		faults = append(faults, FieldError{
			Path: []any{"timeout_ms"}, Type: "greater_than_equal",
			Message: "must be at least 1", Input: req.Timeout.Milliseconds(),
		})
	case req.Timeout == 0:
		req.Timeout = min(DefaultTimeout, l.MaxTimeout)
	case req.Timeout > l.MaxTimeout:
		return req, &Error{
			Code:    Invalid,
			Message: fmt.Sprintf("timeout_ms exceeds maximum of %d ms", l.MaxTimeout.Milliseconds()),
		}
	}
	faults = append(faults, checkFiles(req.Files)...)
	if len(faults) > 0 {
		return req, &Error{Code: Invalid, Message: "the request is not valid", Fields: faults}
	}
	var total int64
	for _, file := range req.Files {
		total = addUp(total, roundToPage(file.Size))
	}
	if total > l.WorkspaceBytes {
		return req, &Error{Code: TooLarge, Message: fmt.Sprintf(
			"files take %d bytes, more than the workspace of %d MB holds", total, l.WorkspaceBytes>>20)}
	}
	return req, nil
}

// roundToPage gives the room that a file of some size takes in a tmpfs.
func roundToPage(size int64) int64 {
	const page = 4096
	if size > math.MaxInt64-page {
		return size
	}
	return (size + page - 1) / page * page
}

// addUp adds two sizes. What overflows stays too large.
func addUp(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func checkFiles(files []Input) []FieldError {
	var faults []FieldError
	names := make(map[string]bool, len(files))   // paths of files
	folders := make(map[string]bool, len(files)) // folders that they need
	for i, file := range files {
		message := PathFault(file.Path)
		switch {
		case message != "":
		case file.Path == MainFile:
			message = "is reserved for the program itself"
		case names[file.Path]:
			message = "is given twice"
		case folders[file.Path]:
			message = "is a folder of another file"
		}
		for dir := path.Dir(file.Path); message == "" && dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
			if names[dir] || dir == MainFile {
				message = fmt.Sprintf("needs the folder %q, which is a file", Clip(dir))
			}
		}
		names[file.Path] = true
		if message != "" {
			faults = append(faults, FieldError{
				Path: []any{"files", i, "path"}, Type: "value_error", Message: message, Input: file.Path,
			})
		}
	}
	return faults
}

// PathFault says why a path cannot name a file in a workspace, or "" when it
// can: it must be relative, in its shortest form, valid UTF-8 and without NUL.
func PathFault(p string) string {
	switch {
	case p == "":
		return "must not be empty"
	case strings.ContainsRune(p, 0):
		return "must not contain NUL"
	case !utf8.ValidString(p):
		return "must be valid UTF-8"
	case strings.HasPrefix(p, "/"):
		return "must be relative to the workspace, not absolute"
	case len(p) > maxPathBytes:
		return fmt.Sprintf("must have at most %d bytes", maxPathBytes)
	case strings.Count(p, "/") >= maxPathDepth:
		return fmt.Sprintf("must have at most %d parts", maxPathDepth)
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "..":
			return `must not contain ".."`
		case part == "" || part == ".":
			return `must not contain empty or "." parts`
		case len(part) > maxNameBytes:
			return fmt.Sprintf("must have parts of at most %d bytes", maxNameBytes)
		}
	}
	return ""
}
