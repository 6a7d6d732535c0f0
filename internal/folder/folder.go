// Package folder makes and checks folders that must belong to this process's user
// alone. What is in such a folder can be trusted: other users could neither put it
// there nor replace the folder itself.
//
// It trusts root and the user that it runs as. It leaves to the caller which setting
// named the folder.
package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Access is the set of permission bits that other users must not have.
type Access fs.FileMode

const (
	// NoWriters allows other users to read.
	NoWriters Access = 0o022
	// Private allows other users nothing.
	Private Access = 0o077
)

// maxLinks bounds the symbolic links on the way to a folder, as the kernel does.
const maxLinks = 40

// Error reports that a folder or file is not this user's alone.
type Error struct {
	// Path is the folder or file.
	Path string
	// Problem is what is wrong with it.
	Problem string
	// Remedy is what to do about it.
	Remedy string
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s: %s", e.Path, e.Problem, e.Remedy) }

// Make makes a folder if it is missing, checks it and returns its path without
// symbolic links, which the caller must use from then on. It also checks every folder and
// link on the way, since a user who can rename one of them can replace the folder.
// The error is an [*Error] if another user has access that is refused.
//
// The last element of the path must not be a symbolic link.
func Make(path string, refused Access) (string, error) {
	if !filepath.IsAbs(path) {
		working, err := os.Getwd()
		if err != nil {
			return "", err
		}
		path = working + "/" + path
	}
	at, rest := "/", elements(path)
	for links := 0; len(rest) > 0; {
		if rest[0] == ".." { // of a link; at has none, so this is where the kernel goes
			at, rest = filepath.Dir(at), rest[1:]
			continue
		}
		if err := checkParent(at, path); err != nil {
			return "", err
		}
		next, last := filepath.Join(at, rest[0]), len(rest) == 1
		status, err := statOrMake(next, last)
		if err != nil {
			return "", err
		}
		rest = rest[1:]
		if last || status.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := readLink(next, status, path)
		if err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(elements(target), rest...)
	}
	if err := Check(at, refused); err != nil {
		return "", err
	}
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		return "", fmt.Errorf("%s cannot be written: %w", at, err)
	}
	return at, nil
}

// elements splits a path. It leaves out what is empty or the folder itself.
func elements(path string) []string {
	var all []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			all = append(all, name)
		}
	}
	return all
}

// statOrMake returns what is at a path, and makes a folder where nothing is.
func statOrMake(path string, last bool) (fs.FileInfo, error) {
	status, err := os.Lstat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return status, err
	}
	mode := fs.FileMode(0o755)
	if last {
		mode = 0o700
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) { // another server may have made it
		return nil, err
	}
	return os.Lstat(path)
}

// readLink returns where a link on the way to a folder leads, if it can be trusted.
func readLink(link string, status fs.FileInfo, path string) (string, error) {
	if owner := ownerOf(status); !isTrusted(owner) {
		return "", &Error{link, fmt.Sprintf("is a symbolic link of uid %d, who can have it lead elsewhere", owner), "name a folder in place of " + path}
	}
	return os.Readlink(link)
}

// checkParent reports whether other users could replace what is in a folder.
func checkParent(folder, path string) error {
	status, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	if owner := ownerOf(status); !isTrusted(owner) {
		return &Error{folder, fmt.Sprintf("belongs to uid %d, who can replace %s in it", owner, path), fmt.Sprintf("run `chown %d %s`, or name another folder", os.Geteuid(), folder)}
	}
	// With the sticky bit they can replace only what is theirs.
	if writable(status) && status.Mode()&fs.ModeSticky == 0 {
		return &Error{
			folder, fmt.Sprintf("can be written by other users (mode %s), who can replace %s in it", modeOf(status), path),
			"run `chmod go-w " + folder + "`, or name another folder",
		}
	}
	return nil
}

// Check reports whether a path is a folder of this user's, not a link to one, to
// which other users do not have the access that is refused.
func Check(path string, refused Access) error {
	status, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if status.Mode()&fs.ModeSymlink != 0 {
		target, _ := filepath.EvalSymlinks(path)
		return &Error{path, "is a symbolic link", "name the folder that it leads to (" + target + ")"}
	}
	if !status.IsDir() {
		return &Error{path, "is not a folder", "remove it, or name another folder"}
	}
	if err := checkOwner(path, status); err != nil {
		return err
	}
	switch {
	case refused == Private && status.Mode()&fs.FileMode(Private) != 0:
		return &Error{path, fmt.Sprintf("is open to other users (mode %s)", modeOf(status)), "run `chmod 700 " + path + "`"}
	case writable(status):
		return &Error{path, fmt.Sprintf("can be written by other users (mode %s)", modeOf(status)), "run `chmod 700 " + path + "`"}
	}
	return nil
}

// CheckFile reports whether a path is this user's, not a link, and other users cannot
// write to it. It does not matter what kind of file it is.
func CheckFile(path string) error {
	status, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if status.Mode()&fs.ModeSymlink != 0 {
		return &Error{path, "is a symbolic link", "remove it"}
	}
	if err := checkOwner(path, status); err != nil {
		return err
	}
	if writable(status) {
		return &Error{path, fmt.Sprintf("can be written by other users (mode %s)", modeOf(status)), "run `chmod 600 " + path + "`"}
	}
	return nil
}

func checkOwner(path string, status fs.FileInfo) error {
	owner, self := ownerOf(status), os.Geteuid()
	if owner == self {
		return nil
	}
	return &Error{
		path, fmt.Sprintf("belongs to uid %d, and this server runs as uid %d", owner, self),
		fmt.Sprintf("name a folder of its own, or, if you trust what is in this one, run `chown -R %d %s`", self, path),
	}
}

// writable reports whether other users can write. A process's group that has the
// user's own number is the user's alone: many distributions make one for each user,
// and leave it write access to whatever the user makes.
func writable(status fs.FileInfo) bool {
	refused, own := fs.FileMode(NoWriters), os.Getegid()
	if known, ok := status.Sys().(*syscall.Stat_t); ok && int(known.Gid) == own && own == os.Geteuid() {
		refused &^= 0o020
	}
	return status.Mode()&refused != 0
}

// ownerOf returns the uid of a file's owner, -1 where the system has none.
func ownerOf(status fs.FileInfo) int {
	if known, ok := status.Sys().(*syscall.Stat_t); ok {
		return int(known.Uid)
	}
	return -1
}

// modeOf writes a mode as chmod(1) takes it.
func modeOf(status fs.FileInfo) string {
	mode := uint64(status.Mode().Perm())
	if status.Mode()&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	return "0" + strconv.FormatUint(mode, 8)
}

// isTrusted reports whether an owner of something on the way to a folder may replace
// it: root and this user. A user namespace that does not know the machine's root shows
// root's files as those of an unknown user.
func isTrusted(owner int) bool {
	return owner == 0 || owner == os.Geteuid() || owner == unknownUser()
}

// unknownUser returns the uid that stands for users whom this user namespace does not
// know (user_namespaces(7)), -1 where it knows all.
func unknownUser() int {
	known, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || strings.Join(strings.Fields(string(known)), " ") == "0 0 4294967295" {
		return -1
	}
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return -1
	}
	uid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return uid
}
