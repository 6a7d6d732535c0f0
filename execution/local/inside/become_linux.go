package inside

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// init makes this process a sandbox, if it was started to be one. In each step Go initializes
// the first package, by import path, whose imports are all initialized ("Program
// initialization" in the language's specification). This one imports little, so it comes
// before the libraries of the server, and a sandbox does not wait for them: a process that
// gets no plan ends after 7 ms instead of 24, where python3 takes 16. main_linux_test.go
// notices an import that changes this.
func init() {
	if os.Args[0] == Name {
		becomeSandbox()
	}
}

// becomeSandbox turns this process into the sandbox that its parent has planned: PID 1
// of new namespaces, in which there is no other process yet. It does not return: the
// supervisor takes its place, or it reports the error and ends with status 1.
func becomeSandbox() {
	runtime.LockOSThread() // exec(2) keeps the state of the calling thread
	word := os.NewFile(wordFD, "word")
	unix.Umask(0o022) // the server's umask may deny others everything
	// The sandbox must not inherit descriptors that the server itself inherited.
	if err := unix.CloseRange(wordFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		_ = json.NewEncoder(word).Encode(At(Closing, "", Step(err, "closing descriptors")))
		os.Exit(1)
	}
	err := become(word)
	var f *Error
	if !errors.As(err, &f) {
		f = &Error{Step: "making the sandbox", Text: err.Error()}
	}
	_ = json.NewEncoder(word).Encode(f)
	os.Exit(1)
}

// Step returns err with a description of the step that failed, or nil if err is nil.
func Step(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	f := &Error{Step: fmt.Sprintf(format, args...), Text: err.Error()}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		f.Errno = number
	}
	return f
}

func become(word io.Writer) error {
	p, err := readPlan()
	if err != nil {
		return Step(err, "reading the plan")
	}
	// Project ids are not needed. But a namespace below can only write its map if there
	// is one here. If there is none above, the supervisor reports the error.
	_ = os.WriteFile("/proc/self/projid_map", []byte("0 0 1"), 0)
	trees, err := openTrees(p.Trees)
	if err != nil {
		return err
	}
	if p.Become {
		if err := becomeUser(p.User, p.Group); err != nil {
			return err
		}
	}
	if err := makeRoot(&p, trees); err != nil {
		return err
	}
	// Not with clone(2): only now is this process in the cgroup that becomes its root.
	if err := Step(unix.Unshare(unix.CLONE_NEWCGROUP), "making a namespace of cgroups"); err != nil {
		return err
	}
	if err := Step(unix.Sethostname([]byte(p.Hostname)), "setting the host's name"); err != nil {
		return err
	}
	if err := raiseLoopback(); err != nil {
		return err
	}
	if err := Step(unix.Chdir(p.Folder), "entering %s", p.Folder); err != nil {
		return err
	}
	if err := passCompiled(&p); err != nil {
		return Step(err, "passing the supervisor on")
	}
	if err := stayInside(p); err != nil {
		return err
	}
	if err := lockDown(p); err != nil {
		return err
	}
	if _, err := word.Write([]byte(Finished)); err != nil {
		return Step(err, "telling the server")
	}
	if len(p.Command) == 0 {
		os.Exit(0) // this was only a test
	}
	// This comes last: it limits this process too, which is larger than the supervisor.
	if p.DataBytes > 0 {
		if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: p.DataBytes, Max: p.DataBytes}); err != nil {
			return Step(err, "limiting memory")
		}
	}
	if err := unix.Dup3(errorsFD, unix.Stderr, 0); err != nil {
		return Step(err, "taking over stderr")
	}
	// The stderr of a session is a FIFO without a reader at times: it must not block PID 1.
	if err := unix.SetNonblock(unix.Stderr, true); err != nil {
		return Step(err, "taking over stderr")
	}
	return At(Starting, p.Command[0], Step(unix.Exec(p.Command[0], p.Command, p.Environment), "starting %s", p.Command[0]))
}

// passCompiled has the supervisor inherit its compiled form, and tells it the descriptor.
func passCompiled(p *Plan) error {
	if !p.Compiled {
		return nil
	}
	p.Environment = append(p.Environment, "VIVARIUM_COMPILED="+strconv.Itoa(compiledFD))
	_, err := unix.FcntlInt(compiledFD, unix.F_SETFD, 0)
	return err
}

// stayInside has the kernel refuse to write or make anything elsewhere than in the
// places for that, should a mount be other than it ought to be, or to speak to
// sockets that lie in what is seen of the host. Kernels before 5.19 know nothing of
// the kind, or too little for programs to move files; later ones more and more.
func stayInside(p Plan) error {
	var places []string
	for _, s := range p.Spaces {
		places = append(places, s.Path)
	}
	return Step(landlock.V9.BestEffort().RestrictPaths(
		landlock.RODirs("/"),
		landlock.RWDirs(places...).WithRefer(),
		landlock.RWDirs("/dev").WithIoctlDev(),
		landlock.RWDirs("/proc"), // of processes; the kernel's settings are read-only mounts
	), "closing the file system")
}

// becomeUser drops the identity of the server, but not what is needed to go on.
func becomeUser(user, group int) error {
	// The namespace knows neither root nor any other user, so that nothing is lost
	// by becoming one (capabilities(7), "Effect of user ID changes").
	return errors.Join(
		Step(unix.Setgroups(nil), "leaving the server's groups"),
		Step(syscall.Setresgid(group, group, group), "taking a group"),
		Step(syscall.Setresuid(user, user, user), "taking a user"))
}

// lockDown sets the limits and gives up every power.
func lockDown(p Plan) error {
	limits := map[int]uint64{
		unix.RLIMIT_CORE: 1, // where dumps go to a program, 0 does not keep them from it: core(5)
		// These count for the server's user too.
		unix.RLIMIT_SIGPENDING: p.Signals, unix.RLIMIT_MEMLOCK: p.LockedBytes,
	}
	if p.Processes > 0 {
		limits[unix.RLIMIT_NPROC] = p.Processes
	}
	if p.OpenFiles > 0 {
		limits[unix.RLIMIT_NOFILE] = p.OpenFiles
	}
	for resource, most := range limits {
		limit := unix.Rlimit{Cur: most, Max: most}
		if err := unix.Setrlimit(resource, &limit); err != nil && !errors.Is(err, unix.EPERM) { // a lower one stands already
			return Step(err, "setting limit %d to %d", resource, most)
		}
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel has no more of them
		}
		if err != nil {
			return Step(err, "giving up capability %d", capability)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return Step(err, "giving up ambient capabilities")
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return Step(err, "giving up capabilities")
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return Step(err, "giving up new privileges")
	}
	return installFilter(p.Filter)
}

// installFilter puts this thread, and what it becomes, behind a seccomp filter.
func installFilter(instructions []byte) error {
	const size = 8 // of struct sock_filter
	if len(instructions) == 0 {
		return nil
	}
	filters := make([]unix.SockFilter, len(instructions)/size)
	for i := range filters {
		raw := instructions[i*size:]
		filters[i] = unix.SockFilter{
			Code: binary.LittleEndian.Uint16(raw), Jt: raw[2], Jf: raw[3], K: binary.LittleEndian.Uint32(raw[4:]),
		}
	}
	program := unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0) //nolint:gosec // G103: as prctl(2) takes it
	runtime.KeepAlive(&program)
	return Step(err, "installing the filter of system calls")
}

// raiseLoopback lets programs talk to themselves.
func raiseLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Step(err, "making the loopback network")
	}
	defer func() { _ = unix.Close(socket) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return Step(err, "making the loopback network")
	}
	request.SetUint16(unix.IFF_UP)
	return Step(unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request), "making the loopback network")
}
