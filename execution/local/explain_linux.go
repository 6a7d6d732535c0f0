package local

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/local/inside"
)

// unavailable returns the error of a sandbox that cannot be made.
func unavailable(cause error, format string, args ...any) error {
	return &execution.Error{Code: execution.Unavailable, Message: fmt.Sprintf(format, args...), Err: cause}
}

// host is the machine, as far as an explanation depends on it.
type host struct {
	root bool                     // this server is root
	read func(path string) string // a setting of the kernel, "" if it has none
}

// explain returns an error with the cause in plain words and what to change.
func explain(err error) error {
	return host{root: isRoot(), read: readSetting}.explain(err)
}

func (h host) explain(err error) error {
	if f, ok := errors.AsType[*inside.Error](err); ok {
		return h.explainInside(err, f)
	}
	switch {
	case h.switchedOff(err) != "":
		return unavailable(err, "%s", h.switchedOff(err))
	case errors.Is(err, unix.EAGAIN):
		return unavailable(err, "the limit of processes of this user is reached: end some, or raise the limit (ulimit -u)")
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return unavailable(err, tooManyFiles)
	case errors.Is(err, unix.ENOSPC):
		return unavailable(err, "the limit of user namespaces is reached: sudo sysctl -w user.max_user_namespaces=15000")
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return unavailable(err, tooOld, kernel())
	case refused(err):
		return unavailable(err, "the kernel refuses namespaces, as in a container: start that with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or use its engine (EXECUTOR_BACKEND=docker)")
	}
	return unavailable(err, "the sandbox cannot be made")
}

const tooManyFiles = "the limit of open files of this server is reached: raise it (ulimit -n)"

const tooOld = "the kernel is too old, or was built without namespaces: it must be Linux 5.12 or newer, and is %s"

// explainInside explains an error of the process that was to become a sandbox.
func (h host) explainInside(err error, f *inside.Error) error {
	switch {
	case h.switchedOff(err) != "":
		return unavailable(err, "%s", h.switchedOff(err))
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL) && f.Stage == inside.Closing: // CLOSE_RANGE_CLOEXEC is of 5.11
		return unavailable(err, tooOld, kernel())
	case f.Stage == inside.Entering && errors.Is(err, unix.EINVAL):
		return unavailable(err, "the kernel does not let a sandbox into its cgroup, as is usual for real-time processes: start the server without real-time scheduling (chrt -o 0)")
	case f.Stage == inside.Taking && f.Path == "/usr":
		return unavailable(err, "this machine has no /usr to show in sandboxes: set LOCAL_ROOTFS to a folder with a root file system")
	case refused(err) && f.Stage == inside.MountingProc:
		return unavailable(err, "this is a container in which parts of /proc are hidden: start it with --security-opt systempaths=unconfined, or use its engine (EXECUTOR_BACKEND=docker)")
	case f.Stage == inside.Starting && errors.Is(err, unix.EACCES):
		return unavailable(err, "the interpreter cannot be started: the sandbox's user (%d where the server is root) may not read %s or its folders: run `chmod -R a+rX` on them", hardening.User, f.Path)
	case f.Stage == inside.Starting:
		return unavailable(err, "the interpreter cannot be started: the sandbox does not show %s, or not everything that it needs", f.Path)
	}
	return unavailable(err, "the sandbox cannot be made")
}

// switchedOff returns which setting switches user namespaces off, as an advice, or "".
func (h host) switchedOff(err error) string {
	switch {
	case h.read("/proc/sys/user/max_user_namespaces") == "0":
		return "user namespaces are switched off: sudo sysctl -w user.max_user_namespaces=15000"
	case !h.root && h.read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "only root may make user namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1"
	case !h.root && refused(err) && h.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor allows user namespaces only to programs that it knows: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give vivarium a profile with userns"
	}
	return ""
}

func refused(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) }

// readSetting returns a setting of the kernel, or "" if it has none.
func readSetting(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// kernel returns the kernel's version.
func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "another"
	}
	return unix.ByteSliceToString(name.Release[:])
}
