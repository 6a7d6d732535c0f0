package execution

import (
	"fmt"
	"time"
)

// Field names a field of a request. Each interface maps it to the name that its
// clients know.
type Field string

// The fields that can be at fault.
const (
	FieldTimeout Field = "timeout"
	FieldCommand Field = "command"
	FieldPath    Field = "path"  // of the file to read
	FieldFiles   Field = "files" // the path of one of the files to stage or to write; see [FieldError.Index]
)

// Fault classifies what is wrong with a field. Each interface maps it to the kind
// that its clients know.
type Fault string

// The faults.
const (
	FaultValue    Fault = "value"     // the value is not allowed
	FaultTooSmall Fault = "too_small" // the number is below the minimum
	FaultTooLarge Fault = "too_large" // the number is above the maximum
	FaultAbsolute Fault = "absolute"  // the path of a file to stage is absolute
	FaultParent   Fault = "parent"    // the path of a file to stage has a ".." part
)

// FieldError is one fault of a request.
type FieldError struct {
	Field Field
	// Index is the index of the file at fault. It has no meaning for other fields.
	Index int
	Fault Fault
	// Message states what is allowed. It follows the field's name in a sentence.
	Message string
	// Value is the value at fault.
	Value any
	// Limit is the longest timeout that is allowed, for a [FieldTimeout] that is
	// too large.
	Limit time.Duration
}

// Describe returns a sentence about the fault that calls the field by name.
func (f FieldError) Describe(name string) string {
	value := f.Value
	if text, ok := value.(string); ok {
		value = fmt.Sprintf("%q", Clip(text))
	}
	return fmt.Sprintf("%s %s (it is %v)", name, f.Message, value)
}

// String describes the fault with the domain's name of the field.
func (f FieldError) String() string {
	if f.Field == FieldFiles {
		return f.Describe(fmt.Sprintf("%s[%d].path", f.Field, f.Index))
	}
	return f.Describe(string(f.Field))
}

// invalid returns the error of a request with faults.
func invalid(faults ...FieldError) *Error {
	return &Error{Code: Invalid, Message: "the request is not valid", Fields: faults}
}
