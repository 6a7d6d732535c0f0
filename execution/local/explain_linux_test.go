package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/local/inside"
)

// A process counts for its real user, with all its threads.
func TestCountTasks(t *testing.T) {
	proc := t.TempDir()
	for pid, status := range map[string]string{
		"1":   "Name:\tinit\nUid:\t0\t0\t0\t0\nThreads:\t9\n",
		"12":  "Name:\tx\nUid:\t1000\t0\t0\t0\nThreads:\t3\n",
		"345": "Name:\tUid:\t7\nUid:\t1000\t1000\t1000\t1000\nThreads:\t1\n",
		"xyz": "Uid:\t1000\nThreads:\t100\n",
	} {
		if err := os.Mkdir(filepath.Join(proc, pid), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "status"), []byte(status), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := countTasks(proc, 1000); n != 4 || err != nil {
		t.Errorf("%d (%v), not 4", n, err)
	}
}

func TestKnowsUser(t *testing.T) {
	for known, want := range map[string]bool{
		"         0          0 4294967295\n": true,
		"         0       1000          1\n": false,
		"0 1000 1\n1 100000 65536\n":         true,
		"0 1000 1\n1 100000 65531\n":         false,
		"":                                   false, "nothing of the kind\n": false,
	} {
		if got := knowsUser(known, 65532); got != want {
			t.Errorf("%q: %v", known, got)
		}
	}
}

// For each way in which the kernel refuses a sandbox, the error names what to do.
func TestExplain(t *testing.T) {
	const (
		namespaces = "/proc/sys/user/max_user_namespaces"
		cloning    = "/proc/sys/kernel/unprivileged_userns_clone"
		apparmor   = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
	)
	outside := func(number unix.Errno) error { return fmt.Errorf("fork/exec: %w", number) }
	within := func(s inside.Stage, path string, number unix.Errno) error {
		return inside.At(s, path, inside.Step(number, "some step"))
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
		"AppArmor":               {within("", "", unix.EACCES), map[string]string{apparmor: "1"}, false, "apparmor_restrict_unprivileged_userns=0"},
		"too many":               {outside(unix.ENOSPC), nil, false, "user.max_user_namespaces"},
		"too many processes":     {outside(unix.EAGAIN), nil, false, "ulimit -u"},
		"no thread, with cgo":    {died("runtime/cgo: pthread_create failed: Resource temporarily unavailable\nSIGABRT: abort\n"), nil, false, "ulimit -u"},
		"no thread":              {died("runtime: failed to create new OS thread (have 5 already; errno=11)\n"), nil, false, "ulimit -u"},
		"too many files":         {outside(unix.EMFILE), nil, true, "ulimit -n"},
		"killed":                 {died(""), nil, false, "cannot be made"},
		"no namespaces":          {outside(unix.EINVAL), nil, false, "Linux 5.12"},
		"older kernel":           {within(inside.Closing, "", unix.EINVAL), nil, false, "Linux 5.12"},
		"real time":              {within(inside.Entering, "", unix.EINVAL), nil, true, "chrt -o 0"},
		"old kernel":             {within(inside.Taking, "/usr", unix.ENOSYS), nil, false, "Linux 5.12"},
		"container":              {outside(unix.EPERM), nil, true, "seccomp=unconfined"},
		"container with a /proc": {within(inside.MountingProc, "", unix.EPERM), nil, true, "systempaths=unconfined"},
		"no /usr":                {within(inside.Taking, "/usr", unix.ENOENT), nil, true, "LOCAL_ROOTFS"},
		"no interpreter":         {within(inside.Starting, "/opt/x/python3", unix.ENOENT), nil, true, "the sandbox does not show /opt/x/python3"},
		"an unreadable one":      {within(inside.Starting, "/opt/x/python3", unix.EACCES), nil, true, "chmod -R a+rX"},
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
