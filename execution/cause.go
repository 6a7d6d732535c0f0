package execution

import (
	"errors"
	"fmt"
	"slices"
)

// Cause is a machine-readable cause of an error, finer than [Code]. An interface
// maps it to advice for its users. The zero value means that there is no code for
// the cause.
type Cause string

// SessionMissing is the cause of [SessionNotFound].
const SessionMissing Cause = "session_missing"

// SessionNotFound returns the error of a session that does not exist, or belongs
// to another owner.
func SessionNotFound(id string) *Error {
	const most = 100 // bytes of the id
	return &Error{Code: NotFound, Cause: SessionMissing, Message: fmt.Sprintf("Session '%s' not found", ClipTo(id, most))}
}

// Causes of a sandbox that cannot be started, which a backend finds.
const (
	EngineDenied      Cause = "engine_denied"      // the engine's socket is closed to this user
	EngineUnreachable Cause = "engine_unreachable" // the engine does not answer
	RuntimeMissing    Cause = "runtime_missing"    // the engine does not have the OCI runtime
	NetworkMissing    Cause = "network_missing"    // the engine does not have the network
)

// Causes of a sandbox that cannot be started, which the supervisor sends under the
// same names.
const (
	NamespacesDenied    Cause = "namespaces_denied"    // the kernel refuses user namespaces to this user
	NamespacesExhausted Cause = "namespaces_exhausted" // the kernel's limit on namespaces is reached
	NamespacesMissing   Cause = "namespaces_missing"   // the kernel was built without namespaces
	ForeignMount        Cause = "foreign_mount"        // the image or the engine mounts a writable folder
	OtherMachine        Cause = "other_machine"        // the server's seccomp filter is for another architecture
	ZygoteEnded         Cause = "zygote_ended"         // the zygote ended, or broke its protocol
)

// SupervisorCause returns the cause that the supervisor sends under a name, or
// "" for any other name.
func SupervisorCause(name string) Cause {
	if r := Cause(name); slices.Contains(SupervisorCauses(), r) {
		return r
	}
	return ""
}

// SupervisorCauses returns all causes that the supervisor may send.
func SupervisorCauses() []Cause {
	return []Cause{NamespacesDenied, NamespacesExhausted, NamespacesMissing, ForeignMount, OtherMachine, ZygoteEnded}
}

// WithCause returns err with a cause, which [CauseOf] finds. Its text stays the
// same. Without a cause it returns err itself.
func WithCause(cause Cause, err error) error {
	if cause == "" || err == nil {
		return err
	}
	return &causeError{cause, err}
}

// CauseOf returns the cause of an error, or "" if it has none.
func CauseOf(err error) Cause {
	if found, ok := errors.AsType[*causeError](err); ok {
		return found.cause
	}
	if found, ok := errors.AsType[*Error](err); ok {
		return found.Cause
	}
	return ""
}

type causeError struct {
	cause Cause
	err   error
}

// Error implements error.
func (e *causeError) Error() string { return e.err.Error() }

// Unwrap returns the error without its cause.
func (e *causeError) Unwrap() error { return e.err }
