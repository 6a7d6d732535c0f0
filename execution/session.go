package execution

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// SessionInfo is what is known of a session: a sandbox that its client keeps
// for a while, with one Python interpreter, a shell, and files.
type SessionInfo struct {
	// ID names the session; nobody can guess it.
	ID string
	// Owner is who made the session.
	Owner Owner
	// Expires is when the session ends, whatever happens until then.
	Expires time.Time
}

// Operation is what a call of a session does.
type Operation int

// The operations. A call is a [Request], of which some use little.
const (
	// RunPython runs Code in the session's interpreter.
	RunPython Operation = iota
	// RunBash runs Code in a shell of its own. What it starts in the background
	// lives on.
	RunBash
	// ReadFile gives the file whose path is Code.
	ReadFile
	// WriteFiles puts Files in the workspace, as every operation does, and
	// nothing else.
	WriteFiles
)

// Session is the server's side of a session. Its methods may be used
// concurrently, but for Call: one call at a time.
type Session interface {
	// Call makes a call. An error that wraps [ErrNotStarted] means that the
	// connection was of no use: the call may be made over another one. When ctx
	// ends the call is called off, and the session stays as it is.
	Call(ctx context.Context, operation Operation, req Request, limits Limits) (*Result, error)
	// Usable says whether calls can still be made over this connection.
	Usable() bool
	// Done is closed when the connection has ended.
	Done() <-chan struct{}
	// Detach gives the connection up. The session goes on. It may be called more
	// than once.
	Detach()
}

// SessionBackend is a [Backend] that can find sessions again.
type SessionBackend interface {
	Backend
	// Attach connects to a running session. The error of an unknown one is an
	// [*Error] with code [NotFound].
	Attach(ctx context.Context, id string) (Instance, error)
	// Sessions lists the sessions that run, whichever server started them.
	Sessions(ctx context.Context) ([]SessionInfo, error)
	// End ends a session and returns when it is gone. That there is none is
	// success.
	End(ctx context.Context, id string) error
}

// DefaultCommandTimeout is how long a command of a session may run when its
// request does not say.
const DefaultCommandTimeout = 30 * time.Second

// maxCommandBytes is what Linux takes as one argument (MAX_ARG_STRLEN), with
// its NUL.
const maxCommandBytes = 128<<10 - 1

// ValidateCall checks a session's call, as Validate does a request.
func (l Limits) ValidateCall(operation Operation, req Request) (Request, error) {
	if operation == RunBash {
		if fault := commandFault(req.Code); fault != "" {
			return req, &Error{Code: Invalid, Message: "the request is not valid", Fields: []FieldError{
				{Path: []any{"cmd"}, Type: "value_error", Message: fault, Input: req.Code},
			}}
		}
		if req.Timeout == 0 {
			req.Timeout = min(DefaultCommandTimeout, l.MaxTimeout)
		}
	}
	if operation == ReadFile {
		if fault := PathFault(req.Code); fault != "" {
			return req, pathError(req.Code, fault)
		}
	}
	return l.Validate(req)
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

func pathError(path, fault string) *Error {
	return &Error{Code: Invalid, Message: "the request is not valid", Fields: []FieldError{
		{Path: []any{"path"}, Type: "value_error", Message: fault, Input: path},
	}}
}
