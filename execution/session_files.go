package execution

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxEntries is how many entries of a workspace one list or archive has.
const MaxEntries = 10_000

// EntryKind is what an entry of a workspace is.
type EntryKind string

// The kinds.
const (
	KindFile   EntryKind = "file"
	KindFolder EntryKind = "folder"
	KindLink   EntryKind = "link"
	KindOther  EntryKind = "other" // such as a pipe or a socket
)

// Entry is a file, a folder or a link in a session's workspace.
type Entry struct {
	// Path is relative to the workspace and uses "/".
	Path string
	Kind EntryKind
	// Size is the bytes of a file, and zero for a folder.
	Size     int64
	Modified time.Time
	// Executable reports whether the file's owner may execute it.
	Executable bool
}

// ListRequest asks which entries a session's workspace has.
type ListRequest struct {
	// Path is the folder whose entries are listed, with those below them. Empty means
	// the workspace. The list of a file or a link has that alone.
	Path string
	// Most is how many entries are listed. Zero means [MaxEntries].
	Most int
}

// Validate is [Request.Validate] for a list.
func (r ListRequest) Validate() (ListRequest, error) {
	if r.Most == 0 {
		r.Most = MaxEntries
	}
	return r, folderFault(r.Path)
}

// Check returns the error of a request that is not valid.
func (r ListRequest) Check() error { return folderFault(r.Path) }

// folderFault returns the error of a path that cannot name a folder of a workspace.
func folderFault(path string) error {
	if path == "" {
		return nil
	}
	return ReadRequest{Path: path}.Validate()
}

// Listing is a list of entries, sorted so that a folder precedes what it contains.
type Listing struct {
	Entries []Entry
	// Skipped are those that cannot be listed. One without a path says that the list
	// was cut.
	Skipped []SkippedFile
	// Session is the session after the call.
	Session SessionInfo
}

// Cut reports whether there are more entries than the list has.
func (l Listing) Cut() bool {
	return len(l.Skipped) > 0 && l.Skipped[len(l.Skipped)-1].Path == ""
}

// PackRequest asks for a whole folder of a session's workspace.
type PackRequest struct {
	// Path is the folder. Empty means the workspace.
	Path string
	// Entry receives each folder and each file, a folder before what it contains.
	Entry func(Entry)
	// Keep receives the content of a file after Entry has received the file.
	Keep Keep
}

// Validate is [Request.Validate] for a folder.
func (r PackRequest) Validate() error { return folderFault(r.Path) }

// RenameRequest asks to rename an entry of a session's workspace.
type RenameRequest struct {
	// Path is the entry's path, Target its new one.
	Path, Target string
}

// Validate is [Request.Validate] for a new name.
func (r RenameRequest) Validate() error {
	if err := (ReadRequest{Path: r.Path}).Validate(); err != nil {
		return err
	}
	if message := newPathFault(r.Target); message != "" {
		return invalid(FieldError{Field: FieldTarget, Fault: FaultValue, Message: message, Value: r.Target})
	}
	return nil
}

// newPathFault returns why a path cannot be that of a file that a client writes, or "".
func newPathFault(path string) string {
	if faults := pathFaults([]Input{{Path: path}}); len(faults) > 0 {
		return faults[0].Message
	}
	return ""
}

// checkMore returns a source of files that checks them as [Limits.checkFiles] does: their
// paths, their number, and their size together.
func (l Limits) checkMore(more func(ctx context.Context) (Input, error)) func(ctx context.Context) (Input, error) {
	var count int
	var total int64
	return func(ctx context.Context) (Input, error) {
		file, err := more(ctx)
		if err != nil {
			return file, err
		}
		fault := func(message string) error {
			return invalid(FieldError{Field: FieldArchive, Fault: FaultValue, Message: message, Value: file.Path})
		}
		if message := newPathFault(file.Path); message != "" {
			return file, fault(message)
		}
		if count++; count > MaxEntries {
			return file, fault(fmt.Sprintf("is one of more than %d entries", MaxEntries))
		}
		if err := AccountOf(ctx).Take(int64(2 * len(file.Path))); err != nil { // this one and the sandbox's connection keep it
			return file, err
		}
		if total = addUp(total, roundToPage(file.Size)); total > l.WorkspaceBytes {
			return file, &Error{Code: TooLarge, Message: fmt.Sprintf("files take more than the workspace of %d MB holds", l.WorkspaceBytes>>20)}
		}
		return file, nil
	}
}

// IsLast reports whether an error is that of a source of files that has no more.
func IsLast(err error) bool { return errors.Is(err, io.EOF) && err == io.EOF } //nolint:errorlint // an error that wraps io.EOF is a fault
