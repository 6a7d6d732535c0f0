package docker

import (
	"context"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Find returns a session whose container runs on this engine.
func (b *Backend) Find(ctx context.Context, id string) (execution.SessionInfo, error) {
	found, err := b.sessions(ctx, labelSession+"="+id)
	if err != nil {
		return execution.SessionInfo{}, err
	}
	if len(found) == 0 {
		return execution.SessionInfo{}, execution.SessionNotFound(id)
	}
	return found[0], nil
}

// Owned lists the sessions of an owner whose containers run on this engine.
func (b *Backend) Owned(ctx context.Context, owner execution.Owner) ([]execution.SessionInfo, error) {
	labels := []string{labelSession}
	if owner != "" { // those without an owner have no such label
		labels = append(labels, labelOwner+"="+string(owner))
	}
	found, err := b.sessions(ctx, labels...)
	return slices.DeleteFunc(found, func(s execution.SessionInfo) bool { return s.Owner != owner }), err
}

// Count counts the sessions whose containers run on this engine.
func (b *Backend) Count(ctx context.Context, owner execution.Owner, except []string) (own, all int, err error) {
	found, err := b.sessions(ctx, labelSession)
	own, all = execution.CountSessions(found, owner, except)
	return own, all, err
}

// sessions lists the sessions whose containers run, whichever server started them, and
// have all of some labels.
func (b *Backend) sessions(ctx context.Context, labels ...string) ([]execution.SessionInfo, error) {
	found, err := b.sessionContainers(ctx, labels...)
	if err != nil {
		return nil, err
	}
	sessions := make([]execution.SessionInfo, 0, len(found))
	for _, c := range found {
		if session, ok := sessionOf(c); ok {
			sessions = append(sessions, session)
		}
	}
	return sessions, nil
}

// sessionContainers lists the containers that run, or are paused, and have all of some
// labels.
func (b *Backend) sessionContainers(ctx context.Context, labels ...string) ([]container.Summary, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	wanted := filters.NewArgs(filters.Arg("status", container.StateRunning), filters.Arg("status", container.StatePaused))
	for _, label := range labels {
		wanted.Add("label", label)
	}
	found, err := b.client.ContainerList(ctx, container.ListOptions{Filters: wanted})
	if err != nil {
		return nil, b.unavailable(fmt.Errorf("list: %w", err))
	}
	return found, nil
}

// Attach connects to the container of a session.
func (b *Backend) Attach(ctx context.Context, id string) (execution.Instance, error) {
	found, err := b.sessionContainers(ctx, labelSession+"="+id)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, execution.SessionNotFound(id)
	}
	if found[0].State == container.StatePaused { // the engine refuses connections to it
		return nil, &execution.Error{Code: execution.Unavailable, Message: "the session does not answer: its container is paused"}
	}
	conn, err := b.attach(ctx, found[0].ID)
	if err != nil {
		return nil, b.unavailable(fmt.Errorf("attach: %w", err))
	}
	b.hold(found[0].ID, 0)
	return b.newInstance(found[0].ID, conn, true), nil
}

// End removes the containers of a session.
func (b *Backend) End(ctx context.Context, id string) error {
	found, err := b.sessionContainers(ctx, labelSession+"="+id)
	if err != nil {
		return err
	}
	for _, c := range found {
		if err := b.remove(ctx, c.ID); err != nil {
			return b.unavailable(fmt.Errorf("remove: %w", err))
		}
	}
	return nil
}
