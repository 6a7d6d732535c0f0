package execution

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of what a request passes to its program beside the code. Linux takes 128 KB as
// one string (MAX_ARG_STRLEN), and at least as much in all (ARG_MAX): a program can pass
// all of it on to the processes that it starts.
const (
	MaxVariables     = 64
	maxVariableName  = 128 // bytes
	maxArguments     = 256
	maxPassedOnBytes = 64 << 10 // of names, values and arguments, with a separator for each
)

// reservedPrefix begins the names of the variables with which the server configures
// sandboxes.
const reservedPrefix = "VIVARIUM_"

// VariableFault returns why a request must not set an environment variable of some name,
// or "" when it may.
func VariableFault(name string) string {
	switch {
	case name == "":
		return "must not have an empty name"
	case !isVariableName(name):
		return "must have a name of ASCII letters, digits and _, with no digit first"
	case len(name) > maxVariableName:
		return fmt.Sprintf("must have a name of at most %d bytes", maxVariableName)
	case strings.HasPrefix(strings.ToUpper(name), reservedPrefix):
		return "must not be set: names that begin with " + reservedPrefix + " are reserved"
	}
	return ""
}

// isVariableName reports whether a name that is not empty is one that shells can use, too.
func isVariableName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// textFault returns why a text cannot be a variable's value or an argument.
func textFault(text string) string {
	switch {
	case strings.ContainsRune(text, 0):
		return "must not contain NUL"
	case !utf8.ValidString(text):
		return "must be valid UTF-8"
	}
	return ""
}

// environmentFaults returns the faults of variables and arguments. None has the value of a
// variable, which may be a secret.
func environmentFaults(env map[string]string, args []string) []FieldError {
	whole := func(field Field, format string, numbers ...any) []FieldError {
		return []FieldError{{Field: field, Index: -1, Fault: FaultValue, Message: fmt.Sprintf(format, numbers...)}}
	}
	size := passedOnBytes(env, args)
	switch {
	case len(env) > MaxVariables:
		return whole(FieldEnv, "must have at most %d variables, and has %d", MaxVariables, len(env))
	case len(args) > maxArguments:
		return whole(FieldArgs, "must have at most %d arguments, and has %d", maxArguments, len(args))
	case size > maxPassedOnBytes && len(env) == 0:
		return whole(FieldArgs, "must have at most %d bytes, and has %d", maxPassedOnBytes, size)
	case size > maxPassedOnBytes:
		return whole(FieldEnv, "must have at most %d bytes of names, values and arguments, and has %d", maxPassedOnBytes, size)
	}
	var faults []FieldError
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if message := cmp.Or(VariableFault(name), textFault(env[name])); message != "" {
			faults = append(faults, FieldError{Field: FieldEnv, Variable: name, Fault: FaultValue, Message: message})
		}
	}
	for i, arg := range args {
		if message := textFault(arg); message != "" {
			faults = append(faults, FieldError{Field: FieldArgs, Index: i, Fault: FaultValue, Message: message, Value: arg})
		}
	}
	return faults
}

// passedOnBytes returns how much a new process's stack takes of variables and arguments:
// NAME=VALUE and a NUL, or an argument and a NUL.
func passedOnBytes(env map[string]string, args []string) int {
	size := 0
	for name, value := range env {
		size += len(name) + len(value) + 2
	}
	for _, arg := range args {
		size += len(arg) + 1
	}
	return size
}
