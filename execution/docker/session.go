package docker

import (
	"context"
	"fmt"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Sessions lists the sessions whose containers run on this engine, whichever
// server started them.
func (b *Backend) Sessions(ctx context.Context) ([]execution.SessionInfo, error) {
	found, err := b.sessionContainers(ctx, labelSession)
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

// sessionContainers lists the containers that run, or are paused, and have a label.
func (b *Backend) sessionContainers(ctx context.Context, label string) ([]container.Summary, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	found, err := b.client.ContainerList(ctx, container.ListOptions{
		Filters: filters.NewArgs(filters.Arg("label", label),
			filters.Arg("status", container.StateRunning), filters.Arg("status", container.StatePaused)),
	})
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
