package local

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/local/inside"
)

const (
	// zeroBytes is the size of the file that replaces /dev/zero.
	zeroBytes = 1 << 50
	// sharedOpenFiles is the limit of programs that have the server's own user outside.
	// What they open, such as watches of epoll, counts towards that user's limits.
	sharedOpenFiles = 128
)

// plan plans a sandbox.
func (b *Backend) plan(spec execution.Spec, py python, g group, begins beginning) inside.Plan {
	command := slices.Clone(begins.command)
	if len(command) > 0 {
		command[0] = py.path
	}
	p := inside.Plan{
		User: hardening.User, Group: hardening.User, Become: b.root, Hostname: hardening.Hostname,
		Command: command, Environment: b.environment(spec, py), Folder: b.opts.Workspace,
		OpenFiles: hardening.OpenFiles, Filter: b.filters[spec.Isolation == execution.IsolationRun],
		ChoosesNumbers: spec.Isolation == execution.IsolationRun,
		Trees:          append(b.rootTrees(py), g.trees()...),
		Files: []inside.File{
			textFile("/etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\nsandbox:x:%d:%d::/tmp:/bin/sh\n", hardening.User, hardening.User),
			textFile("/etc/group", "root:x:0:\nsandbox:x:%d:\n", hardening.User),
			textFile("/etc/hosts", "127.0.0.1 localhost %s\n", hardening.Hostname),
			textFile("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
		},
		Links: []inside.Link{
			{Name: "/dev/fd", Target: "/proc/self/fd"},
			{Name: "/dev/stdin", Target: "/proc/self/fd/0"},
			{Name: "/dev/stdout", Target: "/proc/self/fd/1"},
			{Name: "/dev/stderr", Target: "/proc/self/fd/2"},
		},
		Spaces: []inside.Space{
			space(b.opts.Workspace, "0700", spec.WorkspaceBytes),
			temporary("/tmp", spec.TempBytes),
			temporary("/dev/shm", hardening.SharedMemoryBytes(spec.MemoryBytes)),
		},
		Sysctls: hardening.Sysctls(), Signals: hardening.Signals, LockedBytes: hardening.LockedBytes,
	}
	if p.Ptys = spec.Ptys; p.Ptys > 0 {
		p.Links = append(p.Links, inside.Link{Name: "/dev/ptmx", Target: "pts/ptmx"})
	}
	p.Links = append(p.Links, b.rootLinks()...)
	for _, path := range hardening.WorkspaceNames() {
		p.Links = append(p.Links, inside.Link{Name: path, Target: b.opts.Workspace, Optional: true})
	}
	p.Compiled = begins.compiled != nil
	if len(py.preload) > 0 {
		p.Files = append(p.Files, textFile("/opt/vivarium/preload", "%s\n", strings.Join(py.preload, ",")))
	}
	if b.groupsFault != nil {
		// The device, mapped to be shared, is memory that no process is seen to have. A file
		// that is one hole can be read alike; for it to be mapped the root has no room (fillRoot).
		p.Trees = slices.DeleteFunc(p.Trees, func(t inside.Tree) bool { return t.To == "/dev/zero" })
		p.Files = append(p.Files, inside.File{Path: "/dev/zero", Bytes: zeroBytes})
		p.DataBytes = uint64(spec.MemoryBytes)
		p.Processes = uint64(hardening.Processes(spec))
	}
	return p
}

func textFile(path, format string, args ...any) inside.File {
	return inside.File{Path: path, Data: fmt.Appendf(nil, format, args...)}
}

// space returns a folder that programs can write.
func space(path, mode string, bytes int64) inside.Space {
	return inside.Space{Path: path, Mode: mode, Bytes: bytes, Inodes: hardening.Inodes(bytes)}
}

// temporary returns a folder with the mode of /tmp, from which nothing is executed.
func temporary(path string, bytes int64) inside.Space {
	s := space(path, "1777", bytes)
	s.NoExec = true
	return s
}

// environment returns PID 1's environment.
func (b *Backend) environment(spec execution.Spec, py python) []string {
	all := append(slices.Clone(b.opts.Environment), "HOSTNAME="+hardening.Hostname) // as container engines have it
	all = append(all, hardening.Environment(spec)...)
	folder := filepath.Dir(py.path)
	for i, entry := range all {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok && !slices.Contains(strings.Split(path, ":"), folder) {
			all[i] = "PATH=" + folder + ":" + path
		}
	}
	if !b.root {
		all = append(all, "VIVARIUM_OPEN_FILES="+strconv.Itoa(sharedOpenFiles))
	}
	if b.groupsFault != nil {
		all = append(all, "VIVARIUM_WATCH_MEMORY="+strconv.FormatInt(spec.MemoryBytes, 10))
	}
	return all
}

// systemFolders are those of a root file system that hold programs and libraries.
func systemFolders() []string {
	return []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
}

// rootTrees returns what the sandbox shows of the host, or of LOCAL_ROOTFS.
func (b *Backend) rootTrees(py python) []inside.Tree {
	all := devices()
	if b.opts.Rootfs != "" {
		return append(all, b.rootfsTrees()...)
	}
	all = append(all, inside.Tree{From: "/usr", To: "/usr"})
	for _, folder := range systemFolders() {
		if status, err := os.Lstat(folder); err == nil && status.IsDir() {
			all = append(all, inside.Tree{From: folder, To: folder})
		}
	}
	for _, path := range SystemFiles() {
		all = append(all, inside.Tree{From: "/etc/" + path, To: "/etc/" + path, Optional: true, NoExec: true})
	}
	for _, folder := range py.trees {
		all = append(all, inside.Tree{From: folder, To: folder})
	}
	return all
}

// SystemFiles returns what the sandbox shows of the host's /etc, as far as it exists:
// what libraries, fonts and Python's own modules look up, and nothing private.
func SystemFiles() []string {
	return []string{
		"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts", "matplotlibrc", "mime.types",
		"protocols", "services", "python3", "localtime", "magic", "ImageMagick-6", "ImageMagick-7",
	}
}

// devices returns the device nodes that programs expect.
func devices() []inside.Tree {
	var all []inside.Tree
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		all = append(all, inside.Tree{From: "/dev/" + name, To: "/dev/" + name, Device: true})
	}
	return all
}

// rootLinks returns the host's own symbolic links in its root, such as /bin.
func (b *Backend) rootLinks() []inside.Link {
	var all []inside.Link
	for _, name := range systemFolders() {
		if target, err := os.Readlink(filepath.Join(b.opts.Rootfs, name)); err == nil {
			all = append(all, inside.Link{Name: name, Target: target})
		}
	}
	return all
}

// rootfsTrees returns the folders of LOCAL_ROOTFS, except those that the sandbox has of
// its own.
func (b *Backend) rootfsTrees() []inside.Tree {
	entries, err := os.ReadDir(b.opts.Rootfs)
	if err != nil {
		return nil // findInRootfs has checked it; the missing interpreter will be the error
	}
	own := []string{"proc", "sys", "dev", "tmp", "run", "boot", "home", "root", "mnt", "media", filepath.Base(b.opts.Workspace)}
	var all []inside.Tree
	for _, entry := range entries {
		if entry.IsDir() && !slices.Contains(own, entry.Name()) {
			all = append(all, inside.Tree{From: filepath.Join(b.opts.Rootfs, entry.Name()), To: "/" + entry.Name()})
		}
	}
	return all
}
