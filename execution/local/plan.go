package local

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
)

// Descriptors of a process that becomes a sandbox, beside the usual three.
const (
	planFD   = 3 // the plan is read from it
	wordFD   = 4 // why there is no sandbox is written to it, as to stderr; it closes when there is one
	errorsFD = 5 // is to be the supervisor's stderr
)

// finished is what a process sends when it has become a sandbox and starts the supervisor.
const finished = "\n"

// stage is a step that has an explanation of its own (see explain).
type stage string

const (
	closing      stage = "closing"       // inherited descriptors
	entering     stage = "entering"      // the cgroup
	taking       stage = "taking"        // a folder or file of the host, named by the path
	mountingProc stage = "mounting_proc" // of the sandbox
	starting     stage = "starting"      // the interpreter, named by the path
)

// plan is what a process receives that becomes a sandbox.
type plan struct {
	// User and Group are those of the supervisor. With Become the process must change
	// to them, which needs the capability.
	User, Group int
	Become      bool
	Hostname    string

	// Trees are folders and files of the host that the sandbox shows, read-only.
	Trees []tree
	// Links are symbolic links in the root, by name.
	Links []link
	// Files are small files, with their contents.
	Files []file
	// Spaces are the folders that programs can write.
	Spaces []space

	// Command is the supervisor's command line, Environment its environment,
	// Folder where it starts.
	Command, Environment []string
	Folder               string
	// Compiled is what the supervisor reads from an open file, which has no name; see
	// Command.CompiledLine. It may be nil.
	Compiled []byte

	// ChoosesNumbers has the supervisor choose the numbers of processes in namespaces that it
	// makes.
	ChoosesNumbers bool
	// Ptys is how many pseudo-terminals there may be; 0 is none.
	Ptys int64
	// Processes, DataBytes and OpenFiles are limits of the kernel's
	// (RLIMIT_NPROC, RLIMIT_DATA, RLIMIT_NOFILE); 0 is none.
	Processes, DataBytes, OpenFiles uint64
	// Filter is a seccomp filter: instructions of struct sock_filter.
	Filter []byte
}

type tree struct {
	From, To string
	// Optional trees may be missing.
	Optional bool
	// NoExec forbids to execute what lies in it.
	NoExec bool
	// Device is a node in /dev, which stays one.
	Device bool
}

type link struct {
	Name, Target string
	// Optional links are left out where something else has their name.
	Optional bool
}

type file struct {
	Path string
	Data []byte
	// Bytes is the file's size, where it is larger than the data: the rest is a hole.
	Bytes int64
}

type space struct {
	Path, Mode string
	Bytes      int64
	NoExec     bool
}

// fault is an error of a process that becomes a sandbox, as it is sent to the server.
type fault struct {
	Stage stage         // "" for a step without an explanation of its own
	Path  string        // what Stage is about, for some
	Step  string        // what was being done, for people
	Errno syscall.Errno // 0 if the kernel reported none
	Text  string
}

// Error implements error.
func (f *fault) Error() string { return fmt.Sprintf("%s: %s", f.Step, f.Text) }

// Unwrap returns the kernel's error, if there is one.
func (f *fault) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}

// at returns a fault of step with its stage.
func at(s stage, path string, err error) error {
	if f, ok := err.(*fault); ok { //nolint:errorlint // it is step's own result
		f.Stage, f.Path = s, path
	}
	return err
}

// readPlan reads the plan of this process.
func readPlan() (plan, error) {
	var p plan
	in := os.NewFile(planFD, "plan")
	defer func() { _ = in.Close() }()
	return p, json.NewDecoder(in).Decode(&p)
}
