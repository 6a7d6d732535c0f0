package execution

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Code classifies an [Error]. Each interface maps codes to what its protocol has.
type Code string

// The codes.
const (
	Invalid         Code = "invalid"         // the request is at fault; Fields or Message explain it
	NotFound        Code = "not_found"       // the request names something that does not exist
	Unauthenticated Code = "unauthenticated" // the request has no valid credentials
	TooLarge        Code = "too_large"       // the request is larger than a limit
	StoreFull       Code = "store_full"      // there is no room for more files
	Busy            Code = "busy"            // too many requests are running and waiting; try later
	Overloaded      Code = "overloaded"      // other requests hold the memory for requests; try later
	Unavailable     Code = "unavailable"     // the server is shutting down, or no sandbox is available
	Cancelled       Code = "cancelled"       // the caller left
	Internal        Code = "internal"        // the server is at fault: the user sees no detail
)

// Error is the one error type of the domain.
type Error struct {
	Code Code
	// Cause is finer than Code. It may be empty.
	Cause Cause
	// Message is a sentence for the user.
	Message string
	// Fields name the faults of the request, where Code is [Invalid]. They replace
	// Message.
	Fields []FieldError
	// Err is the cause, for the log. It may be nil.
	Err error
}

// maxFaults is how many faults of a request are reported: enough to correct it, and
// few enough that no answer is much larger than its request.
const maxFaults = 20

// FirstFaults returns the faults of a request that are reported, and how many more
// there are.
func FirstFaults[T any](faults []T) (first []T, more int) {
	first = faults[:min(len(faults), maxFaults)]
	return first, len(faults) - len(first)
}

// Error returns the message for the user, followed by the cause.
func (e *Error) Error() string {
	text := e.Explain()
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Explain returns what the user may read, with the domain's names of the fields.
func (e *Error) Explain() string { return e.ExplainFields(FieldError.String) }

// ExplainFields returns what the user may read: the message, or what describe returns
// for each fault. An interface passes a describe that uses its own names of the fields.
func (e *Error) ExplainFields(describe func(FieldError) string) string {
	if len(e.Fields) == 0 {
		return e.Message
	}
	fields, more := FirstFaults(e.Fields)
	faults := make([]string, len(fields), len(fields)+1)
	for i, field := range fields {
		faults[i] = describe(field)
	}
	if more > 0 {
		faults = append(faults, fmt.Sprintf("and %d more faults", more))
	}
	return strings.Join(faults, "; ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError finds the [*Error] in err. Any other error becomes one with code
// [Internal], so that its text does not reach the user.
func AsError(err error) *Error {
	if domain, ok := errors.AsType[*Error](err); ok {
		return domain
	}
	return &Error{Code: Internal, Message: "internal error", Err: err}
}

// CancelledError returns the error of a request whose context has ended. It has code
// [Cancelled], unless the context's cause is itself an [*Error], such as that of a
// server that shuts down.
func CancelledError(ctx context.Context) error {
	if domain, ok := errors.AsType[*Error](context.Cause(ctx)); ok {
		return domain
	}
	return &Error{Code: Cancelled, Message: "the caller left", Err: context.Cause(ctx)}
}

// ErrNotStarted marks the failure of a sandbox that had not started the
// program: the run may be tried again in another sandbox.
var ErrNotStarted = errors.New("the program was not started")
