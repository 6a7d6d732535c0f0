package execution_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// The limit on CPU time lets a process use all processors during its whole timeout,
// unless it is set.
func TestCPUTimeOfARun(t *testing.T) {
	minute := time.Duration(60*runtime.NumCPU()) * time.Second // of all processors
	for name, test := range map[string]struct {
		limits  execution.Limits
		timeout time.Duration
		least   time.Duration
	}{
		"a minute":        {execution.Limits{CPUs: 0.5}, time.Minute, minute + time.Second},
		"a moment":        {execution.Limits{}, time.Millisecond, time.Second},
		"many processors": {execution.Limits{CPUs: 1000.5}, time.Minute, 1001*time.Minute + time.Second},
	} {
		got := test.limits.For(test.timeout).CPUTime
		if got < test.least || got > 2*test.least+minute || got%time.Second != 0 {
			t.Errorf("%s: %v, not at least %v", name, got, test.least)
		}
	}
	if got := (execution.Limits{CPUTime: 5 * time.Second, CPUs: 8}).For(time.Minute).CPUTime; got != 5*time.Second {
		t.Errorf("one that is set becomes %v", got)
	}
}
