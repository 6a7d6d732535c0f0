// Package local is the [execution.Backend] without an engine: the server itself
// starts sandboxes. Each is this binary once more: it makes Linux namespaces and a
// root of its own around itself, and then becomes the supervisor. It needs no
// privileges, and no software except a Python.
//
// It leaves to the caller what runs in a sandbox, and the protocol with it.
package local

import "github.com/vivarium-sandbox/vivarium/execution"

// Command makes command lines, of which the first word is a name for the interpreter.
type Command interface {
	// Line starts PID 1.
	Line(spec execution.Spec) []string
	// CompileLine prints on stdout what CompiledLine reads from an open file, to start the
	// same in less time. The environment variable VIVARIUM_COMPILED has its descriptor.
	CompileLine(isolation execution.Isolation) []string
	CompiledLine(spec execution.Spec) []string
	// CompileDigest identifies what CompileLine compiles.
	CompileDigest(isolation execution.Isolation) string
}

// Options configure a [Backend].
type Options struct {
	// Command makes the command lines of PID 1.
	Command Command
	// Environment is PID 1's environment.
	Environment []string
	// Workspace is the folder in which programs run. It must be absolute.
	Workspace string
	// Python is the interpreter: a path, or a name that is looked up in PATH.
	// Empty means python3.
	Python string
	// Rootfs is a folder with a root file system to use instead of the host's own
	// /usr, or empty. Python is a path in it then.
	Rootfs string
	// Folder has the records of sessions, through which other servers of this user
	// find them. It is made on first use. Empty means one in the system's temporary
	// folder.
	Folder string
}
