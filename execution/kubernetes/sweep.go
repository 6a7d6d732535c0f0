package kubernetes

import (
	"context"
	"errors"
	"maps"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// orphanTime is how long a server's Lease must be over until others delete its sandboxes. They
	// end by themselves before that, unless they are stopped.
	orphanTime = time.Minute
	// expiryGrace is how long a session gets to end by itself.
	expiryGrace = 30 * time.Second
	// oldLeaseTime is how long the Lease of a server that is gone stays.
	oldLeaseTime = time.Hour
)

// Sweep deletes pods that no server uses: those of servers that are gone, those of this server that
// it does not hold, sessions that are over, blanks that have lost their key with their first PID 1 (the Deployment
// counts them, so that it makes no others), and pods that could not be deleted earlier. Each server
// may do that. The deletion names the pod's uid, so that no other pod is ever meant.
func (b *Backend) Sweep(ctx context.Context) (int, error) {
	if err := b.ready(ctx); err != nil {
		return 0, err
	}
	b.mu.Lock()
	strays := maps.Clone(b.unwanted)
	b.mu.Unlock()
	for _, p := range b.index.all(func(p *pod) bool { return !p.deleted }) {
		if b.isStray(p, time.Now()) {
			strays[p.uid] = p
		}
	}
	removed := 0
	var failures []error
	for _, p := range strays {
		if err := b.claimer.Delete(ctx, p); err != nil {
			failures = append(failures, err)
			continue
		}
		removed++
	}
	failures = append(failures, b.sweepLeases(ctx))
	return removed, errors.Join(failures...)
}

// isStray reports whether no server uses a pod, or can claim it.
func (b *Backend) isStray(p *pod, now time.Time) bool {
	switch {
	case p.state == stateFree:
		return p.ended || b.forsaken(p)
	case p.state == stateSession:
		return p.ended || now.Sub(p.session.Expires) > expiryGrace
	case p.holder == b.id:
		return !b.holds(p.uid)
	}
	return b.leases.over(p.holder) >= orphanTime
}

// sweepLeases deletes the Leases of servers that ended without releasing them.
func (b *Backend) sweepLeases(ctx context.Context) error {
	var failures []error
	for _, name := range b.leases.ended(oldLeaseTime) {
		if err := b.api.leases.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			failures = append(failures, b.explain("delete leases", err))
		}
	}
	return errors.Join(failures...)
}
