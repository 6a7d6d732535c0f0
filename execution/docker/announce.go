package docker

import (
	"context"
	"fmt"
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

// announceStep is how much later than a session's end its container's name may say that
// it ends. Calls that follow each other closely then need no rename each: the engine
// takes some milliseconds, and writes to its disk.
const announceStep = time.Second

// announced is what the name of a session's container says, or its labels.
type announced struct {
	container     string
	expires, idle int64 // milliseconds
}

// covers reports whether an announcement need not be made again for a session.
func (a announced) covers(session execution.SessionInfo) bool {
	ahead := time.UnixMilli(a.expires).Sub(session.Expires)
	return a.idle == session.Idle.Milliseconds() && 0 <= ahead && ahead <= announceStep
}

// Announce renames the container of a session, unless its name says enough already.
func (b *Backend) Announce(ctx context.Context, session execution.SessionInfo) error {
	present, known := b.announcedOf(session.ID)
	if !known {
		found, err := b.sessionContainers(ctx, labelSession+"="+session.ID)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return execution.SessionNotFound(session.ID)
		}
		session, _ := sessionOf(found[0])
		present = announced{found[0].ID, session.Expires.UnixMilli(), session.Idle.Milliseconds()}
	}
	if present.covers(session) {
		return nil
	}
	next := announced{present.container, session.Expires.Add(announceStep).UnixMilli(), session.Idle.Milliseconds()}
	name := fmt.Sprintf("vivarium-%s-%d-%d", session.ID, next.expires, next.idle)
	if err := b.client.ContainerRename(ctx, next.container, name); err != nil {
		return b.unavailable(fmt.Errorf("rename: %w", err))
	}
	b.note(session.ID, next)
	return nil
}

// note remembers what is announced of a session that this server is connected to.
func (b *Backend) note(session string, what announced) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.announcements[session] = what
}

func (b *Backend) announcedOf(session string) (announced, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	present, known := b.announcements[session]
	return present, known
}

// unnote forgets a session: another server may announce another end of it.
func (b *Backend) unnote(session string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.announcements, session)
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
