package inside

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Attributes of all mounts of a sandbox, and of those without executables.
const (
	plain      = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	noPrograms = plain | unix.MOUNT_ATTR_NOEXEC
)

// opened is a tree of the host that is not mounted in the sandbox yet.
type opened struct {
	Tree

	fd     int
	folder bool
}

// openTrees copies the mounts of what the sandbox shows, read-only. It needs the paths
// as the server sees them.
func openTrees(trees []Tree) ([]opened, error) {
	var all []opened
	for _, t := range trees {
		fd, err := openTree(t)
		if err != nil {
			if t.Optional && errors.Is(err, unix.ENOENT) {
				continue
			}
			return nil, At(Taking, t.From, Step(err, "taking %s", t.From))
		}
		var status unix.Stat_t
		if err := unix.Fstat(fd, &status); err != nil {
			return nil, At(Taking, t.From, Step(err, "taking %s", t.From))
		}
		all = append(all, opened{Tree: t, fd: fd, folder: status.Mode&unix.S_IFMT == unix.S_IFDIR})
	}
	return all, nil
}

func openTree(t Tree) (int, error) {
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

// newMount makes a file system that is not mounted yet.
func newMount(kind string, attributes int, options ...string) (int, error) {
	made, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(made) }()
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		if value == "" {
			err = unix.FsconfigSetFlag(made, name)
		} else {
			err = unix.FsconfigSetString(made, name, value)
		}
		if err != nil {
			return -1, fmt.Errorf("%s: %w", option, err)
		}
	}
	if err := unix.FsconfigCreate(made); err != nil {
		return -1, err
	}
	return unix.Fsmount(made, unix.FSMOUNT_CLOEXEC, attributes)
}

// attach mounts what a descriptor stands for over a file or folder that is there.
func attach(fd int, path string) error {
	defer func() { _ = unix.Close(fd) }()
	return unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// put mounts what a descriptor stands for at a path below the working directory.
func put(fd int, path string, folder bool) error {
	if err := makePlace(path, folder); err != nil {
		return err
	}
	return attach(fd, path)
}

// putNew mounts a new file system at a path below the working directory.
func putNew(path, kind string, attributes int, options ...string) error {
	fd, err := newMount(kind, attributes, options...)
	if err != nil {
		return err
	}
	return put(fd, path, true)
}

// makePlace makes an empty folder or file, if it is not there yet.
func makePlace(path string, folder bool) error {
	if folder {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(parent(path), 0o755); err != nil {
		return err
	}
	place, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return place.Close()
}

// parent returns the folder that a path lies in. Package path/filepath would delay init.
func parent(name string) string { return path.Dir(name) }

// below returns a path as seen from the root.
func below(path string) string { return strings.TrimPrefix(path, "/") }

// makeRoot builds the sandbox's root and makes it this process's, with nothing
// of the old one left.
func makeRoot(p *Plan, trees []opened) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return Step(err, "keeping mounts to itself")
	}
	// Before leaving the old root: the kernel then checks what is hidden in its /proc.
	proc, err := newMount("proc", noPrograms)
	if err != nil {
		return At(MountingProc, "", Step(err, "mounting /proc"))
	}
	owner := []string{fmt.Sprintf("uid=%d", p.User), fmt.Sprintf("gid=%d", p.Group)}
	root, err := newMount("tmpfs", plain, append(owner, "mode=0755", "size=1m", "nr_inodes=2048")...)
	if err != nil {
		return Step(err, "making a root")
	}
	// Any folder does: it goes with all of the old root.
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return Step(err, "mounting a root")
	}
	if err := unix.Fchdir(root); err != nil {
		return Step(err, "entering the root")
	}
	// The old root comes to lie on the new one, and is taken off it: pivot_root(2). Before
	// anything is put into the new one: links in what is put there then lead nowhere else.
	if err := unix.PivotRoot(".", "."); err != nil {
		return Step(err, "entering the root")
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return Step(err, "leaving the old root")
	}
	if err := unix.Chdir("/"); err != nil {
		return Step(err, "entering the root")
	}
	if err := put(proc, "proc", true); err != nil {
		return At(MountingProc, "", Step(err, "mounting /proc"))
	}
	if err := setSwitches(p); err != nil {
		return err
	}
	if err := furnish(*p, trees, owner); err != nil {
		return err
	}
	if err := hideKernel(); err != nil {
		return err
	}
	if err := fillRoot(root); err != nil {
		return Step(err, "making the root full")
	}
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return Step(unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &readOnly), "making the root read-only")
}

// fillRoot shrinks the root to what is in it. Otherwise a program that maps a hole of a
// file there could leave memory for the next one to find.
func fillRoot(root int) error {
	var status unix.Statfs_t
	if err := unix.Fstatfs(root, &status); err != nil {
		return err
	}
	picked, err := unix.Fspick(root, "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(picked) }()
	used := (status.Blocks - status.Bfree) * uint64(status.Bsize)
	if err := unix.FsconfigSetString(picked, "size", strconv.FormatUint(used, 10)); err != nil {
		return err
	}
	return unix.FsconfigReconfigure(picked)
}

// furnish puts what is planned into the root, which is the working directory.
func furnish(p Plan, trees []opened, owner []string) error {
	for _, t := range trees {
		if err := put(t.fd, below(t.To), t.folder); err != nil {
			return Step(err, "mounting %s", t.To)
		}
	}
	for _, l := range p.Links {
		if err := l.make(); err != nil {
			return Step(err, "making a root")
		}
	}
	for _, f := range p.Files {
		if err := writeFile(f); err != nil {
			return Step(err, "writing %s", f.Path)
		}
	}
	for _, s := range p.Spaces {
		attributes := plain
		if s.NoExec {
			attributes = noPrograms
		}
		if err := putNew(below(s.Path), "tmpfs", attributes, append(owner, "mode="+s.Mode,
			fmt.Sprintf("size=%d", s.Bytes), fmt.Sprintf("nr_inodes=%d", s.Inodes))...); err != nil {
			return Step(err, "making %s", s.Path)
		}
	}
	if p.Ptys > 0 {
		if err := putNew("dev/pts", "devpts", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC,
			"ptmxmode=0666", "mode=0620", fmt.Sprintf("max=%d", p.Ptys)); err != nil {
			return Step(err, "making /dev/pts")
		}
	}
	return nil
}

// make makes the link, below the working directory.
func (l Link) make() error {
	name := below(l.Name)
	if !l.Optional {
		return os.Symlink(l.Target, name)
	}
	// What a root file system has itself stays as it is, and a folder of it that is
	// mounted read-only.
	if _, err := os.Lstat(name); err == nil {
		return nil
	}
	err := os.MkdirAll(parent(name), 0o755)
	if err == nil {
		err = os.Symlink(l.Target, name)
	}
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// writeFile writes a planned file. It replaces one of a root file system. If that has
// the folder but not the file, it stays without.
func writeFile(f File) error {
	path := below(f.Path)
	if status, err := os.Lstat(path); err == nil && status.Mode()&fs.ModeSymlink != 0 {
		return nil // the root file system's own link
	}
	err := os.MkdirAll(parent(path), 0o755)
	if err == nil {
		err = f.write(path)
	}
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) {
		return err
	}
	const passing = "passing" // a name for it until it is mounted
	if err := f.write(passing); err != nil {
		return err
	}
	return errors.Join(cover(path, passing), os.Remove(passing))
}

// write writes a file at a path.
func (f File) write(path string) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o444)
	if err != nil {
		return err
	}
	_, err = out.Write(f.Data)
	if f.Bytes > 0 {
		err = errors.Join(err, out.Truncate(f.Bytes))
	}
	return errors.Join(err, out.Close())
}

// hideKernel covers files of the kernel that programs do not need, as container engines
// do. The kernel would refuse most of it as well.
func hideKernel() error {
	for _, path := range []string{"kcore", "keys", "latency_stats", "timer_list", "sched_debug", "sysrq-trigger", "interrupts", "kallsyms", "kmsg"} {
		if err := cover("proc/"+path, "dev/null"); err != nil {
			return Step(err, "hiding /proc/%s", path)
		}
	}
	for _, path := range []string{"acpi", "asound", "scsi", "bus", "fs", "irq", "pressure"} {
		if err := coverFolder("proc/" + path); err != nil {
			return Step(err, "hiding /proc/%s", path)
		}
	}
	return Step(cover("proc/sys", "proc/sys"), "making /proc/sys read-only")
}

// cover puts a read-only copy of a file or folder over another that is there.
func cover(path, with string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil //nolint:nilerr // what is not there need not be covered
	}
	fd, err := openTree(Tree{From: with, NoExec: true, Device: with == "dev/null"})
	if err != nil {
		return err
	}
	return attach(fd, path)
}

// coverFolder puts an empty folder over one that is there.
func coverFolder(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil //nolint:nilerr // what is not there need not be covered
	}
	fd, err := newMount("tmpfs", noPrograms|unix.MOUNT_ATTR_RDONLY, "size=4k", "nr_inodes=1")
	if err != nil {
		return err
	}
	return attach(fd, path)
}

// setSwitches sets the kernel's settings that are per namespace. A supervisor that chooses the
// numbers of processes gets a descriptor of the setting for that, because all of them become
// read-only. Kernels may be built without it.
func setSwitches(p *Plan) error {
	for name, value := range p.Sysctls {
		if err := os.WriteFile("proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
			return Step(err, "setting %s", name)
		}
	}
	if p.ChoosesNumbers {
		if fd, err := unix.Open("proc/sys/kernel/ns_last_pid", unix.O_WRONLY, 0); err == nil {
			p.Environment = append(p.Environment, "VIVARIUM_LAST_NUMBER="+strconv.Itoa(fd))
		}
	}
	return nil
}
