package execution

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Code classifies an [Error]. Each door maps codes to what its protocol has.
type Code string

// The codes.
const (
	Invalid         Code = "invalid"         // the request is at fault; Fields or Message say how
	NotFound        Code = "not_found"       // the request names what does not exist
	Unauthenticated Code = "unauthenticated" // the request does not say who it comes from, or not truly
	TooLarge        Code = "too_large"       // the request is larger than a limit
	StoreFull       Code = "store_full"      // there is no room for more files
	Busy            Code = "busy"            // as much is running and waiting as may; try later
	Overloaded      Code = "overloaded"      // the memory for requests is held by others; try later
	Unavailable     Code = "unavailable"     // shutting down, or no sandbox to be had
	Cancelled       Code = "cancelled"       // the caller left
	Internal        Code = "internal"        // our own fault: the user learns no detail
)

// Error is the one error type of the domain.
type Error struct {
	Code Code
	// Message is a sentence for the user.
	Message string
	// Fields name the request's faults, where Code is [Invalid].
	Fields []FieldError
	// Err is the cause, for the log. It may be nil.
	Err error
}

// FieldError is one fault of a request.
type FieldError struct {
	// Path leads to the field: names and, in lists, numbers.
	Path []any
	// Type is a machine-readable name of the fault.
	Type string
	// Message says what is allowed.
	Message string
	// Input is the value at fault.
	Input any
}

func (f FieldError) String() string {
	var name strings.Builder
	for i, part := range f.Path {
		switch part := part.(type) {
		case int:
			fmt.Fprintf(&name, "[%d]", part)
		default:
			if i > 0 {
				name.WriteByte('.')
			}
			fmt.Fprint(&name, part)
		}
	}
	input := f.Input
	if text, ok := input.(string); ok {
		input = Clip(text)
	}
	return fmt.Sprintf("%s %s (it is %#v)", name.String(), f.Message, input)
}

// maxFaults is how many faults of a request are told: enough to mend it, and few
// enough that no answer is much larger than its request.
const maxFaults = 20

// FirstFaults returns the faults of a request that are told, and how many more
// there are.
func FirstFaults[T any](faults []T) (told []T, more int) {
	told = faults[:min(len(faults), maxFaults)]
	return told, len(faults) - len(told)
}

// Error gives the message for the user and, behind it, the cause.
func (e *Error) Error() string {
	text := e.Explain()
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Explain gives what the user may read: the message and each field's fault.
func (e *Error) Explain() string {
	if len(e.Fields) == 0 {
		return e.Message
	}
	fields, more := FirstFaults(e.Fields)
	faults := make([]string, len(fields), len(fields)+1)
	for i, field := range fields {
		faults[i] = field.String()
	}
	if more > 0 {
		faults = append(faults, fmt.Sprintf("and %d more faults", more))
	}
	return strings.Join(faults, "; ")
}

// Unwrap gives the cause.
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
// [Cancelled], or is the context's cause where that is an [*Error]: a server that
// shuts down ends requests with one of its own.
func CancelledError(ctx context.Context) error {
	if domain, ok := errors.AsType[*Error](context.Cause(ctx)); ok {
		return domain
	}
	return &Error{Code: Cancelled, Message: "the caller left", Err: context.Cause(ctx)}
}

// ErrNotStarted marks the failure of a sandbox that had not started the
// program: the run may be tried again in another one.
var ErrNotStarted = errors.New("the program was not started")
