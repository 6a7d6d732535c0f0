package pool

import (
	"context"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Programs that compute are served no faster by more sandboxes than the cores can serve, and
// each start takes as much of the cores as a hundred short runs. Programs that wait for
// something leave the cores to others. Which they are follows from how the last runs went.

// coresServeAnotherLocked reports whether the cores can serve another sandbox of s for an owner:
//
//   - recent runs mostly waited for something; or
//   - fewer than Options.AtWork sandboxes are at work: they are starting or returning; or
//   - the owner has at least two fewer than another, also with those that start: the cores
//     are shared like the budget.
func (p *Pool) coresServeAnotherLocked(s *subpool, owner execution.Owner, returning map[execution.Owner]int) bool {
	atWork, most := s.starting, 0
	for _, count := range returning {
		atWork += count
		most = max(most, count)
	}
	return s.waiting > half || atWork < p.opts.AtWork || most-returning[owner]-s.starting >= 2
}

const (
	half = 0.5
	// waitingRun is how long a run must have lasted, at least, to count as one that waited for
	// something: a shorter one may as well have waited for a core. busyPart is the part of its
	// time in which it may have computed nevertheless. If Options.AtWork runs compute, each
	// does for more than that.
	waitingRun = 50 * time.Millisecond
	busyPart   = 4
	// recentRuns is over how many runs, roughly, the average is taken of whether they
	// waited for something.
	recentRuns = 8
)

// noteRunLocked records whether a run that has ended mostly waited for something.
func (s *subpool) noteRunLocked(took, cpu time.Duration) {
	waited := 0.0
	if took >= waitingRun && cpu < took/busyPart {
		waited = 1
	}
	s.waiting += (waited - s.waiting) / recentRuns
}

// Run runs a program, and notes the CPU time that it took. It is called by the holder of the
// lease, who calls release afterwards.
func (m *member) Run(ctx context.Context, req execution.Request, limits execution.Limits) (*execution.Result, error) {
	result, err := m.Sandbox.Run(ctx, req, limits)
	if err == nil {
		m.cpu = result.Usage.CPU
	}
	return result, err
}
