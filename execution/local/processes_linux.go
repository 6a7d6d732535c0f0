package local

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// spareTasks is how many more processes and threads this server's user must be able
	// to have before a sandbox is started: those of the process that becomes it, of the
	// supervisor, and some for this server. The Go runtime crashes without threads.
	spareTasks = 24
	// highLimit is a limit that is not reached in practice. It is not checked, since
	// counting takes milliseconds.
	highLimit = 4096
)

// roomForProcesses fails if this user, who is not root, may not have the processes of
// another sandbox.
func roomForProcesses() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err != nil || limit.Cur > highLimit {
		return nil //nolint:nilerr // the kernel decides
	}
	tasks, err := countTasks("/proc", os.Getuid())
	if err != nil || uint64(tasks)+spareTasks <= limit.Cur {
		return nil //nolint:nilerr // as above
	}
	return unavailable(nil, "this user has %d processes and threads and may have %d, and a sandbox takes %d more: end some, or raise the limit (ulimit -u)",
		tasks, limit.Cur, spareTasks)
}

// countTasks counts the processes and threads of a user, as the kernel does for
// RLIMIT_NPROC.
func countTasks(proc string, user int) (int, error) {
	places, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "status"))
	if err != nil {
		return 0, err
	}
	all := 0
	for _, place := range places {
		text, err := os.ReadFile(place)
		if err != nil {
			continue // it has ended
		}
		fields := statusFields(string(text))
		if owner, _, _ := strings.Cut(fields["Uid"], "\t"); owner != strconv.Itoa(user) {
			continue
		}
		threads, err := strconv.Atoi(fields["Threads"])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", place, err)
		}
		all += threads
	}
	return all, nil
}

// statusFields reads what proc_pid_status(5) describes.
func statusFields(text string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}
