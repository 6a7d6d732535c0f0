package execution

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"
)

// Limits bound every run. All fields must be positive, except that CPUTime, CPUs and
// MemoryBytes may be zero.
type Limits struct {
	// MaxTimeout is the longest Timeout a request may ask for.
	MaxTimeout time.Duration
	// CPUTime bounds each process of a program, in whole seconds
	// (RLIMIT_CPU). The wall clock and the container's cpu quota bound the sum.
	// Zero means that it follows the run's timeout: see For.
	CPUTime time.Duration
	// OutputBytes is how much of stdout and of stderr each is kept.
	OutputBytes int
	// WorkspaceBytes is the size of the workspace: staged files must fit.
	WorkspaceBytes int64
	// ResultFiles is how many files a run returns.
	ResultFiles int
	// ResultFileBytes is the size of the largest file a run returns.
	ResultFileBytes int64
	// ResultBytes is the size of all files that a run returns.
	ResultBytes int64
	// CPUs and MemoryBytes are what a sandbox has: no usage beyond that is
	// reported. Zero means that it is not known.
	CPUs        float64
	MemoryBytes int64
}

// cpuSlack is what a process may take beyond its timeout until it has ended.
const cpuSlack = 5 * time.Second

// For returns the limits of a run with a timeout. Where CPUTime follows the timeout, a
// process can compute during all of it, on all processors: then the timeout ends the run,
// not CPUTime. Without a cgroup no quota bounds the processors.
func (l Limits) For(timeout time.Duration) Limits {
	if l.CPUTime == 0 {
		processors := math.Ceil(max(l.CPUs, float64(runtime.NumCPU())))
		l.CPUTime = time.Duration(math.Ceil((timeout+cpuSlack).Seconds()*processors)) * time.Second
	}
	return l
}

// checkTimeout returns the fault of a timeout, if it has one. One that is too long
// is an error at once: clients know its text as that of the whole answer.
func (l Limits) checkTimeout(timeout time.Duration) ([]FieldError, error) {
	switch {
	case timeout < 0:
		return []FieldError{{Field: FieldTimeout, Fault: FaultTooSmall, Message: "must be positive", Value: timeout}}, nil
	case timeout > l.MaxTimeout:
		return nil, invalid(FieldError{
			Field: FieldTimeout, Fault: FaultTooLarge, Message: fmt.Sprintf("must be at most %s", l.MaxTimeout),
			Value: timeout, Limit: l.MaxTimeout,
		})
	}
	return nil, nil
}

// checkFiles checks the files of a request of which other faults are known. If there
// are none, it finds the files and checks that the workspace has room for them.
func (l Limits) checkFiles(ctx context.Context, files []Input, faults ...FieldError) ([]Input, error) {
	if faults = append(faults, pathFaults(files)...); len(faults) > 0 {
		return files, invalid(faults...)
	}
	if err := l.checkRoom(files); err != nil { // of those whose size is known
		return files, err
	}
	found := slices.Clone(files)
	for i, file := range files {
		var err error
		if found[i], err = file.Found(ctx); err != nil {
			return files, AsError(err)
		}
	}
	return found, l.checkRoom(found)
}

// checkRoom returns an error where the workspace has no room for files.
func (l Limits) checkRoom(files []Input) error {
	var total int64
	for _, file := range files {
		total = addUp(total, roundToPage(file.Size))
	}
	if total > l.WorkspaceBytes {
		return &Error{Code: TooLarge, Message: fmt.Sprintf(
			"files take %d bytes, more than the workspace of %d MB holds", total, l.WorkspaceBytes>>20)}
	}
	return nil
}

// roundToPage returns the room that a file of some size takes in a tmpfs.
func roundToPage(size int64) int64 {
	const page = 4096
	if size > math.MaxInt64-page {
		return size
	}
	return (size + page - 1) / page * page
}

// addUp adds two sizes. A sum that overflows stays too large.
func addUp(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
