package kubernetes

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// renewEvery is how often a server renews its Lease.
	renewEvery = 10 * time.Second
	// leaseTime is how long a Lease is valid.
	leaseTime = 30 * time.Second
	// renewTime bounds one renewal.
	renewTime = 5 * time.Second
	// releaseTime bounds the deletion of the Lease at the end.
	releaseTime = 3 * time.Second
)

// leaseName returns the name of a server's Lease.
func leaseName(instance string) string { return "vivarium-" + instance }

// leases has the Leases of all servers of a pool. A watch feeds it. A Lease is valid for a time
// from when this server has seen it renewed: clocks of servers differ.
type leases struct {
	wake func() // is called when something is known of the list or the watch

	mu     sync.Mutex
	byName map[string]seenLease
	synced bool
	fault  error     // why there is no list or watch at the moment
	unkept error     // why this server's own Lease could not be renewed
	touch  time.Time // since when each renewal of this server has succeeded; zero while it does not
	last   time.Time // the last one that did
}

// seenLease is a Lease as it was last renewed.
type seenLease struct {
	peer    string    // where other servers reach the server
	renewed time.Time // by the server's clock
	seen    time.Time // by ours
}

func newLeases(wake func()) *leases { return &leases{wake: wake, byName: make(map[string]seenLease)} }

// Add implements [cache.ReflectorStore].
func (l *leases) Add(object any) error { return l.Update(object) }

// Update implements [cache.ReflectorStore].
func (l *leases) Update(object any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.putLocked(object)
	return nil
}

// putLocked notes a Lease. What is seen for the first time was renewed when it says so, if that is
// past.
func (l *leases) putLocked(object any) {
	from, ok := object.(*coordinationv1.Lease)
	if !ok || from.Spec.RenewTime == nil {
		return
	}
	now, renewed := time.Now(), from.Spec.RenewTime.Time
	known, found := l.byName[from.Name]
	switch {
	case found && known.renewed.Equal(renewed):
		return
	case !found && renewed.Before(now):
		now = renewed
	}
	l.byName[from.Name] = seenLease{peer: from.Annotations[notePeer], renewed: renewed, seen: now}
}

// Delete implements [cache.ReflectorStore].
func (l *leases) Delete(object any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from, ok := object.(*coordinationv1.Lease); ok {
		delete(l.byName, from.Name)
	}
	return nil
}

// Replace implements [cache.ReflectorStore].
func (l *leases) Replace(objects []any, _ string) error {
	defer l.wake()
	l.mu.Lock()
	defer l.mu.Unlock()
	there := make(map[string]bool)
	for _, object := range objects {
		l.putLocked(object)
		if from, ok := object.(*coordinationv1.Lease); ok {
			there[from.Name] = true
		}
	}
	for name := range l.byName {
		if !there[name] {
			delete(l.byName, name)
		}
	}
	l.synced = true
	return nil
}

// Resync implements [cache.ReflectorStore].
func (l *leases) Resync() error { return nil }

// attempted notes why there is no list or watch at the moment, nil if there is one.
func (l *leases) attempted(err error) {
	defer l.wake()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = err
}

// renewed notes the result of a renewal of this server's own Lease.
func (l *leases) renewed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case err != nil:
		l.touch, l.unkept = time.Time{}, err
		return
	case l.touch.IsZero() || now.Sub(l.last) > leaseTime:
		l.touch = now
	}
	l.last, l.unkept = now, nil
}

// over returns for how long a server's Lease has been over, as far as this server can tell: it is
// no longer than this server has been in touch with the apiserver. A Lease that is not there was
// released. The result is negative while the Lease is valid.
func (l *leases) over(instance string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.synced || l.touch.IsZero() || now.Sub(l.last) > leaseTime {
		return -1
	}
	inTouch := now.Sub(l.touch)
	lease, found := l.byName[leaseName(instance)]
	if !found {
		return inTouch
	}
	over := now.Sub(lease.seen) - leaseTime
	if over >= 0 && inTouch < leaseTime {
		return -1 // the servers that are alive renew theirs, too, when the apiserver is back
	}
	return min(over, inTouch)
}

// peer returns where other servers reach a server.
func (l *leases) peer(instance string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byName[leaseName(instance)].peer
}

// mute reports whether a server has announced no address.
func (l *leases) mute(instance string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	lease, found := l.byName[leaseName(instance)]
	return found && lease.peer == ""
}

// ended returns the names of Leases that have been over for a while.
func (l *leases) ended(least time.Duration) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for name, lease := range l.byName {
		if time.Since(lease.seen) > leaseTime+least {
			names = append(names, name)
		}
	}
	return names
}

// state returns whether the first list is there, and why there is no list or watch at the moment.
func (l *leases) state() (synced bool, fault error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.synced, l.fault
}

// renewal returns why this server's own Lease could not be renewed.
func (l *leases) renewal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unkept
}

// keepLease renews this server's Lease until ctx ends, and then releases it.
func (b *Backend) keepLease(ctx context.Context, selector string) {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		b.leases.renewed(b.renewLease(ctx, selector))
		select {
		case <-ctx.Done():
			b.releaseLease(ctx)
			return
		case <-ticker.C:
		}
	}
}

// renewLease renews this server's Lease, and creates it where it is not there.
func (b *Backend) renewLease(ctx context.Context, pool string) error {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	name, now := leaseName(b.id), metav1.NowMicro()
	lease, err := b.api.leases.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		seconds := int32(leaseTime.Seconds())
		lease = &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Labels: map[string]string{labelPool: pool}, Annotations: map[string]string{notePeer: b.opts.Peer},
			},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: &b.id, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now},
		}
		_, err = b.api.leases.Create(ctx, lease, metav1.CreateOptions{})
		return b.explain("create leases", err)
	case err != nil:
		return b.explain("get leases", err)
	}
	lease.Spec.RenewTime = &now
	_, err = b.api.leases.Update(ctx, lease, metav1.UpdateOptions{})
	return b.explain("update leases", err)
}

// releaseLease deletes this server's Lease, so that others take its sessions over at once. If that
// fails, they do so when it is over.
func (b *Backend) releaseLease(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	err := b.api.leases.Delete(ctx, leaseName(b.id), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		b.log.WarnContext(ctx, "this server's Lease could not be released", "error", fmt.Errorf("delete leases: %w", err))
	}
}
