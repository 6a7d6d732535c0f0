package docker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
)

// sweepGrace is the age from which on a container without a server is a stray: a
// younger one may be between creation and start.
const sweepGrace = 30 * time.Second

// Sweep removes stray containers: those that never ran or have stopped, those past
// their deadline, and those of this server that it does not hold. It leaves running
// containers of other servers alone: they end by themselves when their server dies.
// Sessions end by themselves when they expire.
func (b *Backend) Sweep(ctx context.Context) (int, error) {
	if err := b.connect(ctx); err != nil {
		return 0, err
	}
	found, err := b.client.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelInstance)),
	})
	if err != nil {
		return 0, b.unavailable(fmt.Errorf("list: %w", err))
	}
	removed := 0
	var failures []error
	for _, c := range found {
		if !b.isStray(c, time.Now()) {
			continue
		}
		if err := b.remove(ctx, c.ID); err != nil {
			failures = append(failures, fmt.Errorf("remove %.12s: %w", c.ID, err))
			continue
		}
		removed++
	}
	return removed, errors.Join(failures...)
}

func (b *Backend) isStray(c container.Summary, now time.Time) bool {
	session := c.Labels[labelSession] != ""
	held := b.holds(c.ID) && (!session || c.State == container.StateCreated) // a running session ends only at its time
	if held || now.Sub(time.Unix(c.Created, 0)) < sweepGrace {
		return false
	}
	ours := c.Labels[labelInstance] == b.id && !session
	if ours || !runs(c) {
		return true
	}
	if s, ok := sessionOf(c); ok && s.Idle > 0 { // else its end does not move
		return now.Sub(s.Expires) > sweepGrace
	}
	deadline, err := strconv.ParseInt(c.Labels[labelDeadline], 10, 64)
	return err != nil || now.Unix() > deadline
}

// runs reports whether a container runs. A paused one does: it can be resumed.
func runs(c container.Summary) bool {
	return c.State == container.StateRunning || c.State == container.StatePaused
}
