// Package inside makes this process a sandbox of the local backend, as a [Plan] says, if the
// process's own name (os.Args[0]) is [Name]. The backend starts its binary once more for
// that. A binary that imports this package, also through the backend, needs nothing else.
package inside

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
)

// Name is the name, os.Args[0], of a process that is to become a sandbox.
const Name = "vivarium-sandbox"

// Descriptors of a process that becomes a sandbox, beside the usual three.
const (
	planFD     = 3 // the plan is read from it
	wordFD     = 4 // why there is no sandbox is written to it, as to stderr; it closes when there is one
	errorsFD   = 5 // is to be the supervisor's stderr
	compiledFD = 6 // the supervisor's compiled form, if there is one
)

// Finished is what a process sends when it has become a sandbox and starts the supervisor.
const Finished = "\n"

// Stage is a step for which the backend has an explanation of its own.
type Stage string

// The stages.
const (
	Closing      Stage = "closing"       // inherited descriptors
	Entering     Stage = "entering"      // the cgroup
	Taking       Stage = "taking"        // a folder or file of the host, named by the path
	MountingProc Stage = "mounting_proc" // of the sandbox
	Starting     Stage = "starting"      // the interpreter, named by the path
)

// Plan is what a process receives that becomes a sandbox.
type Plan struct {
	// User and Group are those of the supervisor. With Become the process must change
	// to them, which needs the capability.
	User, Group int
	Become      bool
	Hostname    string

	// Trees are folders and files of the host that the sandbox shows, read-only.
	Trees []Tree
	// Links are symbolic links in the root, by name.
	Links []Link
	// Files are small files, with their contents.
	Files []File
	// Spaces are the folders that programs can write.
	Spaces []Space

	// Command is the supervisor's command line, Environment its environment,
	// Folder where it starts.
	Command, Environment []string
	Folder               string
	// Compiled has the supervisor read its compiled form from an open file.
	Compiled bool

	// ChoosesNumbers has the supervisor choose the numbers of processes in namespaces that it
	// makes.
	ChoosesNumbers bool
	// Sysctls are settings of the kernel for the sandbox's namespaces, by name.
	Sysctls map[string]string
	// Ptys is how many pseudo-terminals there may be; 0 is none.
	Ptys int64
	// Processes, DataBytes and OpenFiles are limits of the kernel's
	// (RLIMIT_NPROC, RLIMIT_DATA, RLIMIT_NOFILE); 0 is none.
	Processes, DataBytes, OpenFiles uint64
	// Signals and LockedBytes are such limits too (RLIMIT_SIGPENDING, RLIMIT_MEMLOCK).
	Signals, LockedBytes uint64
	// Filter is a seccomp filter: instructions of struct sock_filter.
	Filter []byte
}

// Tree is a folder or file of the host that the sandbox shows.
type Tree struct {
	From, To string
	// Optional trees may be missing.
	Optional bool
	// NoExec forbids to execute what lies in it.
	NoExec bool
	// Device is a node in /dev, which stays one.
	Device bool
}

// Link is a symbolic link in the sandbox.
type Link struct {
	Name, Target string
	// Optional links are left out where something else has their name.
	Optional bool
}

// File is a small file in the sandbox.
type File struct {
	Path string
	Data []byte
	// Bytes is the file's size, where it is larger than the data: the rest is a hole.
	Bytes int64
}

// Space is a file system in memory that programs can write.
type Space struct {
	Path, Mode    string
	Bytes, Inodes int64
	NoExec        bool
}

// Error is an error of a process that becomes a sandbox, as it is sent to the server.
type Error struct {
	Stage Stage         // "" for a step without an explanation of its own
	Path  string        // what Stage is about, for some
	Step  string        // what was being done, for people
	Errno syscall.Errno // 0 if the kernel reported none
	Text  string
}

// Error implements error.
func (f *Error) Error() string { return fmt.Sprintf("%s: %s", f.Step, f.Text) }

// Unwrap returns the kernel's error, if there is one.
func (f *Error) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}

// At returns an error of [Step] with its stage and path.
func At(s Stage, path string, err error) error {
	if f, ok := err.(*Error); ok { //nolint:errorlint // it is Step's own result
		f.Stage, f.Path = s, path
	}
	return err
}

// readPlan reads the plan of this process.
func readPlan() (Plan, error) {
	var p Plan
	in := os.NewFile(planFD, "plan")
	defer func() { _ = in.Close() }()
	return p, json.NewDecoder(in).Decode(&p)
}
