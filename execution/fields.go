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
	FieldPath    Field = "path"    // of the file to read, or to change
	FieldTarget  Field = "target"  // the new path of a file
	FieldArchive Field = "archive" // one of the files that become known one after the other
	FieldEnv     Field = "env"     // one of the variables, or all of them; see [FieldError.Variable]
	FieldArgs    Field = "args"    // one of the arguments, or all of them; see [FieldError.Index]
	FieldFiles   Field = "files"   // the path of one of the files to stage or to write; see [FieldError.Index]
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
	// Index is the index of the file or the argument at fault; -1: all arguments. It has no
	// meaning for other fields.
	Index int
	// Variable is the name of the variable at fault. It is empty for all of them and for
	// other fields.
	Variable string
	Fault    Fault
	// Message states what is allowed. It follows the field's name in a sentence.
	Message string
	// Value is the value at fault. It is nil where that may be a secret, or is not one value.
	Value any
	// Limit is the longest timeout that is allowed, for a [FieldTimeout] that is
	// too large.
	Limit time.Duration
}

// Describe returns a sentence about the fault that calls the field by name.
func (f FieldError) Describe(name string) string {
	value := f.Value
	if value == nil {
		return name + " " + f.Message
	}
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
	return f.Describe(f.Part())
}

// Part returns the name of the field or, where one of its variables or arguments is at
// fault, of that.
func (f FieldError) Part() string {
	switch {
	case f.Variable != "":
		return fmt.Sprintf("%s.%s", f.Field, Clip(f.Variable))
	case f.Field == FieldArgs && f.Index >= 0:
		return fmt.Sprintf("%s[%d]", f.Field, f.Index)
	}
	return string(f.Field)
}

// invalid returns the error of a request with faults.
func invalid(faults ...FieldError) *Error {
	return &Error{Code: Invalid, Message: "the request is not valid", Fields: faults}
}
