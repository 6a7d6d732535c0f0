package local

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/walls"
)

// unavailable is the error of a sandbox that cannot be had.
func unavailable(cause error, format string, args ...any) error {
	return &execution.Error{Code: execution.Unavailable, Message: fmt.Sprintf(format, args...), Err: cause}
}

// host is what an explanation depends on.
type host struct {
	root bool                     // this server is root
	read func(path string) string // a setting of the kernel's, "" where it has none of the kind
}

// explain returns why no sandbox can be had, and what to change, given what the
// kernel has refused.
func explain(err error) error {
	return host{root: isRoot(), read: readSetting}.explain(err)
}

func (h host) explain(err error) error {
	if f, inside := errors.AsType[*fault](err); inside {
		return h.explainInside(err, f)
	}
	switch {
	case h.switchedOff(err) != "":
		return unavailable(err, "%s", h.switchedOff(err))
	case errors.Is(err, unix.EAGAIN):
		return unavailable(err, "there are as many processes of this user as may be: end some, or raise the limit (ulimit -u)")
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return unavailable(err, tooManyFiles)
	case errors.Is(err, unix.ENOSPC):
		return unavailable(err, "there are as many user namespaces as may be: sudo sysctl -w user.max_user_namespaces=15000")
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return unavailable(err, tooOld, kernel())
	case refused(err):
		return unavailable(err, "the kernel refuses namespaces, as in a container: start that with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or use its engine (EXECUTOR_BACKEND=docker)")
	}
	return unavailable(err, "the sandbox cannot be made")
}

const tooManyFiles = "this server has as many files open as it may: raise the limit (ulimit -n)"

const tooOld = "the kernel is too old, or was built without namespaces: it takes Linux 5.12 or newer, and this is %s"

// explainInside explains what has gone wrong in the process that was to become a sandbox.
func (h host) explainInside(err error, f *fault) error {
	switch {
	case h.switchedOff(err) != "":
		return unavailable(err, "%s", h.switchedOff(err))
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL) && f.Stage == closing: // CLOSE_RANGE_CLOEXEC is of 5.11
		return unavailable(err, tooOld, kernel())
	case f.Stage == entering && errors.Is(err, unix.EINVAL):
		return unavailable(err, "the kernel keeps a sandbox out of its cgroup, as it does with processes of real time: start the server without (chrt -o 0)")
	case f.Stage == taking && f.Path == "/usr":
		return unavailable(err, "this machine has no /usr that could be seen in sandboxes: LOCAL_ROOTFS names a folder with a root file system")
	case refused(err) && f.Stage == mountingProc:
		return unavailable(err, "this is a container, of whose /proc parts are hidden: start it with --security-opt systempaths=unconfined, or use its engine (EXECUTOR_BACKEND=docker)")
	case f.Stage == starting && errors.Is(err, unix.EACCES):
		return unavailable(err, "the interpreter cannot be started: the sandbox's user (%d where the server is root) may not read %s or what it lives in: chmod -R a+rX lets all", walls.User, f.Path)
	case f.Stage == starting:
		return unavailable(err, "the interpreter cannot be started: in the sandbox %s is not seen, or not what it needs", f.Path)
	}
	return unavailable(err, "the sandbox cannot be made")
}

// switchedOff returns with which setting user namespaces are switched off, or "".
func (h host) switchedOff(err error) string {
	switch {
	case h.read("/proc/sys/user/max_user_namespaces") == "0":
		return "user namespaces are switched off: sudo sysctl -w user.max_user_namespaces=15000"
	case !h.root && h.read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "user namespaces are kept to root: sudo sysctl -w kernel.unprivileged_userns_clone=1"
	case !h.root && refused(err) && h.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor keeps user namespaces to programs that it knows: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give vivarium a profile with userns"
	}
	return ""
}

func refused(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) }

// readSetting reads a setting of the kernel's, "" where it has none of the kind.
func readSetting(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// kernel is the kernel's version.
func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "another"
	}
	return unix.ByteSliceToString(name.Release[:])
}
