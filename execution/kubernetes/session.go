package kubernetes

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Find implements [execution.SessionBackend].
func (b *Backend) Find(ctx context.Context, id string) (execution.SessionInfo, error) {
	p, err := b.find(ctx, id)
	if err != nil {
		return execution.SessionInfo{}, err
	}
	return p.session, nil
}

// find returns the pod of a session. The index may not have it yet, where another server has just
// created it. So the apiserver is asked then, but not more often than misses allows, since
// clients choose the ids.
func (b *Backend) find(ctx context.Context, id string) (*pod, error) {
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	if p := b.index.session(id); p != nil {
		return p, nil
	}
	if !execution.IsID(id) {
		return nil, execution.SessionNotFound(id)
	}
	if err := b.misses.Wait(ctx); err != nil {
		return nil, b.explain("list pods", err)
	}
	found, err := b.api.pods.List(ctx, metav1.ListOptions{LabelSelector: labelPool + "=" + b.lastPool().label + "," + labelSession + "=" + id})
	if err != nil {
		return nil, b.explain("list pods", err)
	}
	for i := range found.Items {
		b.index.learn(readPod(&found.Items[i]))
	}
	if p := b.index.session(id); p != nil {
		return p, nil
	}
	return nil, execution.SessionNotFound(id)
}

// Owned implements [execution.SessionBackend].
func (b *Backend) Owned(ctx context.Context, owner execution.Owner) ([]execution.SessionInfo, error) {
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	return b.index.owned(owner), nil
}

// Count implements [execution.SessionBackend].
func (b *Backend) Count(ctx context.Context, owner execution.Owner, except []string) (own, all int, err error) {
	if err := b.ready(ctx); err != nil {
		return 0, 0, err
	}
	own, all = b.index.count(owner, except)
	return own, all, nil
}

// Attach connects to a session, which this server takes over if no other one holds it. Otherwise
// the error is an [*execution.HeldError].
func (b *Backend) Attach(ctx context.Context, id string) (execution.Instance, error) {
	p, err := b.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if p, err = b.confirm(ctx, p); err != nil {
		return nil, err
	}
	if p, err = b.takeOver(ctx, p); err != nil {
		return nil, err
	}
	conn, err := b.dial(ctx, p)
	if err != nil {
		return nil, unavailable("the session's pod cannot be reached", err)
	}
	b.hold(p.uid)
	return b.newInstance(conn, p, execution.Spec{}, 0), nil
}

// Announce implements [execution.SessionBackend].
func (b *Backend) Announce(ctx context.Context, session execution.SessionInfo) error {
	p, err := b.find(ctx, session.ID)
	if err != nil {
		return err
	}
	_, err = b.patch(ctx, p, p.patch().test(label(labelSession), session.ID).describe(session))
	if errors.Is(err, errLost) {
		return execution.SessionNotFound(session.ID)
	}
	return err
}

// End implements [execution.SessionBackend].
func (b *Backend) End(ctx context.Context, id string) error {
	p, err := b.find(ctx, id)
	if err != nil {
		if execution.AsError(err).Code == execution.NotFound {
			return nil
		}
		return err
	}
	return b.remove(ctx, p)
}
