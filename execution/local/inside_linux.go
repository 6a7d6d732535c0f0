package local

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution/walls"
)

// Become turns this process into the sandbox that its parent has planned: PID 1
// of new namespaces, which nobody else is in yet. It does not return: the
// supervisor takes its place, or it ends with status 1 after a word on why.
//
// It may be called by the first thing in main alone: it changes the process.
func Become() {
	runtime.LockOSThread() // what exec(2) keeps is the calling thread's
	word := os.NewFile(wordFD, "word")
	// What the server has from whoever started it is no sandbox's.
	if err := unix.CloseRange(wordFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		_ = json.NewEncoder(word).Encode(step(err, "closing descriptors"))
		os.Exit(1)
	}
	err := become(word)
	var f *fault
	if !errors.As(err, &f) {
		f = &fault{Step: "making the sandbox", Text: err.Error()}
	}
	_ = json.NewEncoder(word).Encode(f)
	os.Exit(1)
}

// step says what was being done when an error came.
func step(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	f := &fault{Step: fmt.Sprintf(format, args...), Text: err.Error()}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		f.Errno = number
	}
	return f
}

func become(word io.Writer) error {
	p, err := readPlan()
	if err != nil {
		return step(err, "reading the plan")
	}
	// Nobody needs project ids; but for the map to be written in a namespace below, there
	// must be one here. Where there is none above, the supervisor says what it thinks of that.
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
	if err := makeRoot(p, trees); err != nil {
		return err
	}
	// Not at birth: only now is it in the cgroup that is to be the root of what it sees.
	if err := step(unix.Unshare(unix.CLONE_NEWCGROUP), "making a namespace of cgroups"); err != nil {
		return err
	}
	if err := step(unix.Sethostname([]byte(p.Hostname)), "setting the host's name"); err != nil {
		return err
	}
	if err := raiseLoopback(); err != nil {
		return err
	}
	if err := step(unix.Chdir(p.Folder), "entering %s", p.Folder); err != nil {
		return err
	}
	if err := stayInside(p); err != nil {
		return err
	}
	if err := lockDown(p); err != nil {
		return err
	}
	if _, err := word.Write([]byte(finished)); err != nil {
		return step(err, "telling the server")
	}
	if len(p.Command) == 0 {
		os.Exit(0) // it was but to be seen whether it can be done
	}
	// The last of all: it bounds this process too, which is larger than the supervisor.
	if p.DataBytes > 0 {
		if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: p.DataBytes, Max: p.DataBytes}); err != nil {
			return step(err, "limiting memory")
		}
	}
	return step(unix.Exec(p.Command[0], p.Command, p.Environment), "starting %s", p.Command[0])
}

// stayInside has the kernel refuse to write or make anything elsewhere than in the
// places for that, should a mount be other than it ought to be. Kernels before 5.13
// know nothing of the kind, later ones more and more.
func stayInside(p plan) error {
	var places []string
	for _, s := range p.Spaces {
		places = append(places, s.Path)
	}
	return step(landlock.V5.BestEffort().RestrictPaths(
		landlock.RODirs("/"),
		landlock.RWDirs(places...).WithRefer(),
		landlock.RWDirs("/dev").WithIoctlDev(),
		landlock.RWDirs("/proc"), // of processes; the kernel's settings are read-only mounts
	), "closing the file system")
}

// becomeUser gives up the identity of the server, but not what is needed to go on.
func becomeUser(user, group int) error {
	// The namespace knows neither root nor any other user, so that nothing is lost
	// by becoming one (capabilities(7), "Effect of user ID changes").
	return errors.Join(
		step(unix.Setgroups(nil), "leaving the server's groups"),
		step(syscall.Setresgid(group, group, group), "taking a group"),
		step(syscall.Setresuid(user, user, user), "taking a user"))
}

// lockDown sets the limits and gives up every power.
func lockDown(p plan) error {
	limits := map[int]uint64{
		unix.RLIMIT_CORE: 1, // where dumps go to a program, 0 does not keep them from it: core(5)
		// These count for the server's user too.
		unix.RLIMIT_SIGPENDING: maxSignals, unix.RLIMIT_MSGQUEUE: maxQueueBytes, unix.RLIMIT_MEMLOCK: maxLockedBytes,
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
			return step(err, "setting limit %d to %d", resource, most)
		}
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel has no more of them
		}
		if err != nil {
			return step(err, "giving up capability %d", capability)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return step(err, "giving up ambient capabilities")
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return step(err, "giving up capabilities")
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return step(err, "giving up new privileges")
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
	return step(err, "installing the filter of system calls")
}

// setSwitches sets what the kernel has for these namespaces alone.
func setSwitches() error {
	switches := walls.Sysctls()
	// They count for the server's user too, who has few, and would tell a program
	// what the machine does with the files that it shares.
	switches["user.max_inotify_instances"] = "0"
	for name, value := range switches {
		if err := os.WriteFile("proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
			return step(err, "setting %s", name)
		}
	}
	return nil
}

// raiseLoopback lets programs talk to themselves.
func raiseLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return step(err, "making the loopback network")
	}
	defer func() { _ = unix.Close(socket) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return step(err, "making the loopback network")
	}
	request.SetUint16(unix.IFF_UP)
	return step(unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request), "making the loopback network")
}

// Limits that no setting moves.
const (
	maxSignals     = 1024      // that wait, of all processes together
	maxQueueBytes  = 128 << 10 // of POSIX message queues: one of the usual size
	maxLockedBytes = 64 << 10  // of memory, in each process
)

// opened is a tree that is on its way from the host's root to the sandbox's.
type opened struct {
	tree

	fd     int
	folder bool
}

// openTrees takes copies of the mounts of what is to be seen inside, all of it
// read-only. That needs the paths as the server sees them.
func openTrees(trees []tree) ([]opened, error) {
	var all []opened
	for _, t := range trees {
		fd, err := openTree(t)
		if err != nil {
			if t.Optional && errors.Is(err, unix.ENOENT) {
				continue
			}
			return nil, step(err, "taking %s", t.From)
		}
		var status unix.Stat_t
		if err := unix.Fstat(fd, &status); err != nil {
			return nil, step(err, "taking %s", t.From)
		}
		all = append(all, opened{tree: t, fd: fd, folder: status.Mode&unix.S_IFMT == unix.S_IFDIR})
	}
	return all, nil
}

func openTree(t tree) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, t.From, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, err
	}
	attr := unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_PRIVATE,
	}
	if t.Device {
		// Read-only are its times and mode; it can be written to.
		attr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	} else {
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
	}
	if t.NoExec {
		attr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	}
	return fd, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
}

// newMount makes a file system that is not mounted anywhere yet.
func newMount(kind string, attributes int, options ...string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(fs) }()
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		if value == "" {
			err = unix.FsconfigSetFlag(fs, name)
		} else {
			err = unix.FsconfigSetString(fs, name, value)
		}
		if err != nil {
			return -1, fmt.Errorf("%s: %w", option, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
}

// put mounts what a descriptor stands for at a path below the working directory.
func put(fd int, path string, folder bool) error {
	if err := makePlace(path, folder); err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// makePlace makes an empty folder or file, if it is not there yet.
func makePlace(path string, folder bool) error {
	if folder {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	place, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return place.Close()
}

func below(path string) string { return strings.TrimPrefix(path, "/") }

// makeRoot builds the sandbox's root and makes it this process's, with nothing
// of the old one left.
func makeRoot(p plan, trees []opened) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return step(err, "keeping mounts to itself")
	}
	const plain = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	// While the old one is in sight: what is hidden there would be seen in a new one.
	proc, err := newMount("proc", plain|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return step(err, "mounting /proc")
	}
	owner := []string{fmt.Sprintf("uid=%d", p.User), fmt.Sprintf("gid=%d", p.Group)}
	root, err := newMount("tmpfs", plain, append(owner, "mode=0755", "size=1m", "nr_inodes=2048")...)
	if err != nil {
		return step(err, "making a root")
	}
	// Any folder does: it will be out of sight, with all of the old root.
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return step(err, "mounting a root")
	}
	if err := unix.Fchdir(root); err != nil {
		return step(err, "entering the root")
	}
	// The old root comes to lie on the new one, and is taken off it: pivot_root(2). Before
	// anything is put into the new one: links in what is put there then lead nowhere else.
	if err := unix.PivotRoot(".", "."); err != nil {
		return step(err, "entering the root")
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return step(err, "leaving the old root")
	}
	if err := unix.Chdir("/"); err != nil {
		return step(err, "entering the root")
	}
	if err := put(proc, "proc", true); err != nil {
		return step(err, "mounting /proc")
	}
	if err := setSwitches(); err != nil {
		return err
	}
	if err := furnish(p, trees, owner); err != nil {
		return err
	}
	if err := hideKernel(); err != nil {
		return err
	}
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return step(unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &readOnly), "making the root read-only")
}

// furnish puts into the root, which is the working directory, what is planned.
func furnish(p plan, trees []opened, owner []string) error {
	for _, t := range trees {
		if err := put(t.fd, below(t.To), t.folder); err != nil {
			return step(err, "mounting %s", t.To)
		}
	}
	for _, l := range p.Links {
		if err := os.Symlink(l.Target, below(l.Name)); err != nil {
			return step(err, "making a root")
		}
	}
	for _, f := range p.Files {
		if err := writeFile(f); err != nil {
			return step(err, "writing %s", f.Path)
		}
	}
	for _, s := range p.Spaces {
		attributes := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
		if s.NoExec {
			attributes |= unix.MOUNT_ATTR_NOEXEC
		}
		fd, err := newMount("tmpfs", attributes, append(owner, "mode="+s.Mode,
			fmt.Sprintf("size=%d", s.Bytes), fmt.Sprintf("nr_inodes=%d", walls.Inodes(s.Bytes)))...)
		if err == nil {
			err = put(fd, below(s.Path), true)
		}
		if err != nil {
			return step(err, "making %s", s.Path)
		}
	}
	terminals, err := newMount("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "ptmxmode=0666", "mode=0620")
	if err == nil {
		err = put(terminals, "dev/pts", true)
	}
	if err != nil {
		return step(err, "making /dev/pts")
	}
	queues, err := newMount("mqueue", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil // the kernel knows no message queues
	}
	if err == nil {
		err = put(queues, "dev/mqueue", true)
	}
	return step(err, "making /dev/mqueue")
}

// writeFile writes a file of ours, in place of one where a root file system has it.
func writeFile(f file) error {
	path := below(f.Path)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(f.Text), 0o444)
	}
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) {
		return err
	}
	const passing = "passing" // a name for it until it is mounted
	if err := os.WriteFile(passing, []byte(f.Text), 0o444); err != nil {
		return err
	}
	return errors.Join(cover(path, passing), os.Remove(passing))
}

// hideKernel covers what no program has any business with, as container engines
// do: most of it the kernel would refuse as well.
func hideKernel() error {
	for _, path := range []string{"kcore", "keys", "latency_stats", "timer_list", "sched_debug", "sysrq-trigger", "interrupts", "kallsyms", "kmsg"} {
		if err := cover("proc/"+path, "dev/null"); err != nil {
			return step(err, "hiding /proc/%s", path)
		}
	}
	for _, path := range []string{"acpi", "asound", "scsi", "bus", "fs", "irq", "pressure"} {
		if err := coverFolder("proc/" + path); err != nil {
			return step(err, "hiding /proc/%s", path)
		}
	}
	return step(cover("proc/sys", "proc/sys"), "making /proc/sys read-only")
}

// cover puts a read-only copy of a file or folder over another that is there.
func cover(path, with string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil //nolint:nilerr // what is not there need not be covered
	}
	fd, err := openTree(tree{From: with, NoExec: true, Device: with == "dev/null"})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// coverFolder puts an empty folder over one that is there.
func coverFolder(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil //nolint:nilerr // what is not there need not be covered
	}
	fd, err := newMount("tmpfs", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, "size=4k", "nr_inodes=1")
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
