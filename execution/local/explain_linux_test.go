package local

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Each way in which the kernel refuses a sandbox has a sentence that says what to do.
func TestExplain(t *testing.T) {
	const (
		namespaces = "/proc/sys/user/max_user_namespaces"
		cloning    = "/proc/sys/kernel/unprivileged_userns_clone"
		apparmor   = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
	)
	outside := func(number unix.Errno) error { return fmt.Errorf("fork/exec: %w", number) }
	inside := func(step string, number unix.Errno) error {
		return &fault{Step: step, Errno: number, Text: number.Error()}
	}
	for name, test := range map[string]struct {
		err      error
		settings map[string]string
		root     bool
		want     string
	}{
		"switched off":           {outside(unix.ENOSPC), map[string]string{namespaces: "0"}, true, "user.max_user_namespaces=15000"},
		"kept to root":           {outside(unix.EPERM), map[string]string{cloning: "0"}, false, "kernel.unprivileged_userns_clone=1"},
		"kept to root, by root":  {outside(unix.EPERM), map[string]string{cloning: "0"}, true, "seccomp=unconfined"},
		"AppArmor":               {inside("keeping mounts to itself", unix.EACCES), map[string]string{apparmor: "1"}, false, "apparmor_restrict_unprivileged_userns=0"},
		"too many":               {outside(unix.ENOSPC), nil, false, "user.max_user_namespaces"},
		"too many processes":     {outside(unix.EAGAIN), nil, false, "ulimit -u"},
		"no namespaces":          {outside(unix.EINVAL), nil, false, "Linux 5.12"},
		"old kernel":             {inside("taking /usr", unix.ENOSYS), nil, false, "Linux 5.12"},
		"container":              {outside(unix.EPERM), nil, true, "seccomp=unconfined"},
		"container with a /proc": {inside("mounting /proc", unix.EPERM), nil, true, "systempaths=unconfined"},
		"no /usr":                {inside("taking /usr", unix.ENOENT), nil, true, "LOCAL_ROOTFS"},
		"no interpreter":         {inside("starting /opt/x/python3", unix.ENOENT), nil, true, "/opt/x/python3 is not seen"},
		"anything else":          {errors.New("odd"), nil, true, "cannot be made"},
	} {
		t.Run(name, func(t *testing.T) {
			err := host{root: test.root, read: func(path string) string { return test.settings[path] }}.explain(test.err)
			var e *execution.Error
			if !errors.As(err, &e) || e.Code != execution.Unavailable || !strings.Contains(e.Message, test.want) {
				t.Errorf("%q is not in %v", test.want, err)
			}
			if !errors.Is(err, test.err) {
				t.Errorf("the cause is lost: %v", err)
			}
		})
	}
}
