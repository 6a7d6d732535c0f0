package execution

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// SessionInfo describes a session: a sandbox that its client keeps for a while, with
// one Python interpreter, a shell, and files.
type SessionInfo struct {
	// ID names the session. It cannot be guessed.
	ID string
	// Owner is who created the session.
	Owner Owner
	// Created is when the session was created.
	Created time.Time
	// Idle is how long the session lasts without a call. Zero means that calls do not
	// renew it: a version of this program started it that could not.
	Idle time.Duration
	// Expires is when the session ends unless a call is made before.
	Expires time.Time
	// Latest is when the session ends in spite of calls, when the last of them is over.
	Latest time.Time
}

// Renewed returns when the session ends if its last call ends now.
func (s SessionInfo) Renewed(now time.Time) time.Time {
	end := now.Add(s.Idle)
	if end.After(s.Latest) {
		end = s.Latest
	}
	if end.Before(now) {
		end = now
	}
	return end.Truncate(time.Millisecond)
}

// Ending reports whether the session is near its end, which no call can move: a tenth
// of its time is left, or not the whole idle time.
func (s SessionInfo) Ending(now time.Time) bool {
	left := s.Latest.Sub(now)
	return s.Idle > 0 && (left < s.Idle || left < s.Latest.Sub(s.Created)/10)
}

// Session is the server's connection to a session. A call is any method with Limits. The methods may be used concurrently, except that
// there must be one call at a time.
//
// An error of a call that wraps [ErrNotStarted] means that the connection failed: the
// call may be made again over another one. When ctx ends the call is called off, and
// the session stays as it is.
type Session interface {
	// RunPython runs a program in the session's interpreter.
	RunPython(ctx context.Context, req Request, limits Limits) (*Result, error)
	// RunBash runs a command in a shell of its own. What it starts in the background
	// goes on.
	RunBash(ctx context.Context, cmd Command, limits Limits) (*Result, error)
	// ReadFile reads a file of the workspace. The result has the file, or the reason
	// why it was skipped.
	ReadFile(ctx context.Context, req ReadRequest, limits Limits) (*Result, error)
	// WriteFiles writes files to the workspace.
	WriteFiles(ctx context.Context, req WriteRequest, limits Limits) error
	// ListFiles adds entries of the workspace to a list. The result has those that it
	// skipped.
	ListFiles(ctx context.Context, req ListRequest, listing *Listing, limits Limits) (*Result, error)
	// PackFolder reads a folder with all that it contains.
	PackFolder(ctx context.Context, req PackRequest, limits Limits) (*Result, error)
	// DeleteFile deletes an entry of the workspace, a folder with what it contains.
	DeleteFile(ctx context.Context, path string, limits Limits) error
	// RenameFile renames an entry of the workspace. A file may replace a file.
	RenameFile(ctx context.Context, req RenameRequest, limits Limits) error
	// SetEnd sets when the session ends. A later call replaces it.
	SetEnd(ctx context.Context, end time.Time) error
	// Usable reports whether calls can still be made over this connection.
	Usable() bool
	// Done is closed when the connection has ended.
	Done() <-chan struct{}
	// Detach closes the connection. The session goes on. It may be called more than
	// once.
	Detach()
}

// SessionBackend is a [Backend] that finds sessions again.
type SessionBackend interface {
	Backend
	// Attach connects to a running session. The error of an unknown one is an
	// [*Error] with code [NotFound].
	Attach(ctx context.Context, id string) (Instance, error)
	// Find returns a session that runs, whichever server started it. The error of an
	// unknown one is an [*Error] with code [NotFound].
	Find(ctx context.Context, id string) (SessionInfo, error)
	// Owned lists the running sessions of an owner.
	Owned(ctx context.Context, owner Owner) ([]SessionInfo, error)
	// Count returns the number of sessions that run, of an owner and of all, without
	// those of some ids.
	Count(ctx context.Context, owner Owner, except []string) (own, all int, err error)
	// Announce records when a running session ends, and its idle time, for Find and
	// Owned of every server.
	Announce(ctx context.Context, session SessionInfo) error
	// End ends a session and returns when it is gone. It succeeds if there is none.
	End(ctx context.Context, id string) error
}

// CountSessions returns how many sessions of a list an owner has, and how many there
// are, without those of some ids.
func CountSessions(list []SessionInfo, owner Owner, except []string) (own, all int) {
	for _, s := range list {
		if slices.Contains(except, s.ID) {
			continue
		}
		all++
		if s.Owner == owner {
			own++
		}
	}
	return own, all
}

// DefaultCommandTimeout is how long a command of a session may run when its
// request does not say.
const DefaultCommandTimeout = 30 * time.Second

// maxCommandBytes is what Linux takes as one argument (MAX_ARG_STRLEN), with
// its NUL.
const maxCommandBytes = 128<<10 - 1

// Command is a command for bash in a session. Only Command is required.
type Command struct {
	// Command is what bash -c runs.
	Command string
	// Timeout bounds the command's wall-clock time. Zero means
	// [DefaultCommandTimeout].
	Timeout time.Duration
	// Args are "$1", "$2" and so on.
	Args []string
	// Env, Keep, Started and Output are as in a [Request].
	Env     map[string]string
	Keep    Keep
	Started func()
	Output  Output
}

// Validate is [Request.Validate] for a command.
func (c Command) Validate(l Limits) (Command, error) {
	if fault := commandFault(c.Command); fault != "" {
		return c, invalid(FieldError{Field: FieldCommand, Fault: FaultValue, Message: fault, Value: c.Command})
	}
	if c.Timeout == 0 {
		c.Timeout = min(DefaultCommandTimeout, l.MaxTimeout)
	}
	faults, err := l.checkTimeout(c.Timeout)
	faults = append(faults, environmentFaults(c.Env, c.Args)...)
	if err == nil && len(faults) > 0 {
		err = invalid(faults...)
	}
	return c, err
}

func commandFault(command string) string {
	switch {
	case command == "":
		return "must not be empty"
	case strings.ContainsRune(command, 0):
		return "must not contain NUL"
	case len(command) > maxCommandBytes:
		return fmt.Sprintf("must have at most %d bytes; write a script to the workspace instead", maxCommandBytes)
	}
	return ""
}

// ReadRequest asks for a file of a session's workspace.
type ReadRequest struct {
	// Path is relative to the workspace and uses "/".
	Path string
	// Keep receives the file. It is required.
	Keep Keep
	// Entry, if not nil, receives the file's description before that, unless an earlier
	// version of this program started the session.
	Entry func(Entry)
}

// Validate is [Request.Validate] for a file to read.
func (r ReadRequest) Validate() error {
	if fault := PathFault(r.Path); fault != "" {
		return invalid(FieldError{Field: FieldPath, Fault: FaultValue, Message: fault, Value: r.Path})
	}
	return nil
}

// WriteRequest asks to write files to a session's workspace.
type WriteRequest struct {
	Files []Input
	// More, if not nil, returns further files, which become known one after the other,
	// and io.EOF when there are no more. Each is read before the next one is asked for.
	More func(ctx context.Context) (Input, error)
	// Spent, if not nil, reports whether a source of the files is used up, so
	// that it cannot be opened again.
	Spent func() bool
}

// Validate is [Request.Validate] for files to write.
func (w WriteRequest) Validate(ctx context.Context, l Limits) (WriteRequest, error) {
	var err error
	if w.More != nil {
		w.More = l.checkMore(w.More)
	}
	w.Files, err = l.checkFiles(ctx, w.Files)
	return w, err
}
