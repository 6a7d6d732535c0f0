package docker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A container's labels never change, but its name can. So the name of a session's
// container says when the session ends, once that is no longer what the label says:
//
//	vivarium-SESSION-EXPIRES-IDLE
//
// with both times in milliseconds, the first since 1970.

// Announce renames the container of a session.
func (b *Backend) Announce(ctx context.Context, session execution.SessionInfo) error {
	found, err := b.sessionContainers(ctx, labelSession+"="+session.ID)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return execution.SessionNotFound(session.ID)
	}
	name := fmt.Sprintf("vivarium-%s-%d-%d", session.ID, session.Expires.UnixMilli(), session.Idle.Milliseconds())
	if slices.Contains(found[0].Names, "/"+name) {
		return nil // the engine refuses to rename a container to its own name
	}
	if err := b.client.ContainerRename(ctx, found[0].ID, name); err != nil {
		return b.unavailable(fmt.Errorf("rename: %w", err))
	}
	return nil
}

// renamed returns what the name of a session's container says, if it says anything.
func renamed(c container.Summary) (expires time.Time, idle time.Duration, ok bool) {
	for _, name := range c.Names {
		parts := strings.Split(strings.TrimPrefix(name, "/"), "-")
		if len(parts) != 4 || parts[1] != c.Labels[labelSession] {
			continue
		}
		end, endErr := strconv.ParseInt(parts[2], 10, 64)
		pause, pauseErr := strconv.ParseInt(parts[3], 10, 64)
		if endErr == nil && pauseErr == nil {
			return time.UnixMilli(end), time.Duration(pause) * time.Millisecond, true
		}
	}
	return time.Time{}, 0, false
}

// sessionOf returns the session of a container, unless it is not one of ours.
func sessionOf(c container.Summary) (execution.SessionInfo, bool) {
	milliseconds := func(label string) int64 {
		n, err := strconv.ParseInt(c.Labels[label], 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	expires := milliseconds(labelExpires)
	if expires == 0 {
		return execution.SessionInfo{}, false
	}
	session := execution.SessionInfo{
		ID: c.Labels[labelSession], Owner: execution.Owner(c.Labels[labelOwner]),
		Created: time.UnixMilli(milliseconds(labelCreated)), Latest: time.UnixMilli(milliseconds(labelLatest)),
		Expires: time.UnixMilli(expires), Idle: time.Duration(milliseconds(labelIdle)) * time.Millisecond,
	}
	if end, idle, ok := renamed(c); ok {
		session.Expires, session.Idle = end, idle
	}
	return session, true
}
