package kubernetes

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"
)

// index has the pods of a pool. A watch feeds it, through the methods of [cache.ReflectorStore],
// and so does the answer to each patch of this server: the watch may show that later. It is safe
// for concurrent use.
type index struct {
	mu       sync.Mutex
	byName   map[string]*pod
	free     map[string]*pod // of byName, those in stateFree
	sessions map[string]*pod // of byName, by the id of the session
	owners   owners          // of sessions
	claiming map[string]bool // the uids of blanks that this server tries to claim
	watched  map[string]*fate
	seen     string        // the version of the newest object that the watch has shown
	changed  chan struct{} // closed and replaced when something changes
	synced   bool          // the first list is there
	fault    error         // why there is no list or watch at the moment
}

// fate is what becomes of a pod.
type fate struct {
	doomed chan struct{} // closed when it is to go
	gone   chan struct{} // closed when it is not there any more
}

func newIndex() *index {
	x := &index{watched: make(map[string]*fate), claiming: make(map[string]bool), changed: make(chan struct{})}
	x.clearLocked()
	return x
}

func (x *index) clearLocked() {
	x.byName, x.free, x.sessions = make(map[string]*pod), make(map[string]*pod), make(map[string]*pod)
	x.owners = newOwners()
}

// newer reports whether a version of an object is newer than another.
func newer(a, b string) bool {
	if b == "" {
		return true
	}
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || order > 0
}

// wake has those that wait for a change look again.
func (x *index) wake() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.changedLocked()
}

// changedLocked wakes those that wait for a change.
func (x *index) changedLocked() {
	close(x.changed)
	x.changed = make(chan struct{})
}

// putLocked adds a pod, or replaces what is known of it.
func (x *index) putLocked(p *pod) {
	if old := x.byName[p.name]; old != nil {
		if old.uid == p.uid && !newer(p.version, old.version) {
			return
		}
		x.dropLocked(old, old.uid != p.uid)
	}
	x.byName[p.name] = p
	switch p.state {
	case stateFree:
		x.free[p.name] = p
	case stateSession:
		x.sessions[p.session.ID] = p
		x.owners.add(p)
	}
	if f := x.watched[p.uid]; f != nil && p.going {
		closeOnce(f.doomed)
	}
}

// dropLocked removes a pod. If it is gone, those that watch it learn that.
func (x *index) dropLocked(p *pod, gone bool) {
	delete(x.byName, p.name)
	delete(x.free, p.name)
	if x.sessions[p.session.ID] == p {
		delete(x.sessions, p.session.ID)
	}
	x.owners.remove(p)
	if f := x.watched[p.uid]; f != nil && gone {
		closeOnce(f.doomed)
		closeOnce(f.gone)
		delete(x.watched, p.uid)
	}
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// Add implements [cache.ReflectorStore].
func (x *index) Add(object any) error { return x.Update(object) }

// Update implements [cache.ReflectorStore].
func (x *index) Update(object any) error {
	if from, ok := object.(*corev1.Pod); ok {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.seen = from.ResourceVersion
		x.putLocked(readPod(from))
		x.changedLocked()
	}
	return nil
}

// Delete implements [cache.ReflectorStore].
func (x *index) Delete(object any) error {
	if from, ok := object.(*corev1.Pod); ok {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.seen = from.ResourceVersion
		x.goneLocked(from.Name, string(from.UID))
	}
	return nil
}

// goneLocked removes a pod that is not there any more.
func (x *index) goneLocked(name, uid string) {
	if p := x.byName[name]; p != nil && p.uid == uid {
		x.dropLocked(p, true)
		x.changedLocked()
	}
}

// Replace implements [cache.ReflectorStore]. A pod that is newer than the list stays.
func (x *index) Replace(objects []any, version string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.byName
	x.clearLocked()
	for _, object := range objects {
		if from, ok := object.(*corev1.Pod); ok {
			x.putLocked(readPod(from))
		}
	}
	for _, old := range before {
		switch now := x.byName[old.name]; {
		case now != nil && now.uid == old.uid:
			x.putLocked(old) // stays if it is newer
		case now == nil && newer(old.version, version):
			x.putLocked(old)
		default:
			x.forgetLocked(old.uid)
		}
	}
	x.seen, x.synced = version, true
	x.changedLocked()
	return nil
}

// forgetLocked notes that a pod is gone, for those that watch it.
func (x *index) forgetLocked(uid string) {
	if f := x.watched[uid]; f != nil {
		closeOnce(f.doomed)
		closeOnce(f.gone)
		delete(x.watched, uid)
	}
}

// Bookmark notes how far the watch is.
func (x *index) Bookmark(version string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seen = version
	return nil
}

// Resync implements [cache.ReflectorStore].
func (x *index) Resync() error { return nil }

// Transformer implements [cache.TransformingStore].
func (x *index) Transformer() cache.TransformFunc { return trim }

// attempted notes why there is no list or watch at the moment, nil if there is one.
func (x *index) attempted(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fault = err
	x.changedLocked()
}

// learn notes a pod that the apiserver has answered with. One that the watch has shown to be
// gone since does not come back.
func (x *index) learn(p *pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byName[p.name] == nil && x.seen != "" && !newer(p.version, x.seen) {
		return
	}
	x.putLocked(p)
	x.changedLocked()
}

// lose notes that a pod is gone.
func (x *index) lose(p *pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.goneLocked(p.name, p.uid)
}

// deleting notes that a pod is being deleted, before the watch shows it.
func (x *index) deleting(p *pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.byName[p.name]
	if now == nil || now.uid != p.uid {
		return
	}
	going := *now
	going.going, going.deleted = true, true
	x.dropLocked(now, false)
	x.putLocked(&going)
	x.changedLocked()
}

// watch returns the fate of a pod, which must be in the index or have been there.
func (x *index) watch(p *pod) *fate {
	x.mu.Lock()
	defer x.mu.Unlock()
	f := x.watched[p.uid]
	if f == nil {
		f = &fate{doomed: make(chan struct{}), gone: make(chan struct{})}
		x.watched[p.uid] = f
	}
	switch now := x.byName[p.name]; {
	case now == nil || now.uid != p.uid:
		x.forgetLocked(p.uid)
	case now.going:
		closeOnce(f.doomed)
	}
	return f
}

// get returns what is known of a pod now, or nil if it is gone.
func (x *index) get(name, uid string) *pod {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p := x.byName[name]; p != nil && p.uid == uid {
		return p
	}
	return nil
}

// session returns the pod of a session that runs, or nil.
func (x *index) session(id string) *pod {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p := x.sessions[id]; p != nil && p.runs() {
		return p
	}
	return nil
}

// claimed returns the pod of a SandboxClaim that no server has made its own yet, or nil.
func (x *index) claimed(claim string) *pod {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.free {
		if p.claim == claim {
			return p
		}
	}
	return nil
}

// all returns the pods that a condition selects.
func (x *index) all(selects func(*pod) bool) []*pod {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found []*pod
	for _, p := range x.byName {
		if selects(p) {
			found = append(found, p)
		}
	}
	return found
}

// state returns whether the first list is there, a channel that is closed at the next change, and
// why there is no list or watch at the moment.
func (x *index) state() (synced bool, changed <-chan struct{}, fault error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.synced, x.changed, x.fault
}

// hash returns the version of the template that blanks have: that which came last, while
// there are two. It is empty if no blank is there.
func (x *index) hash() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	first := make(map[string]*pod)
	for _, p := range x.free {
		if f := first[p.hash]; p.blank() && (f == nil || p.created.Before(f.created)) {
			first[p.hash] = p
		}
	}
	var last *pod
	for _, p := range first {
		if last == nil || p.created.After(last.created) {
			last = p
		}
	}
	if last == nil {
		return ""
	}
	return last.hash
}

// take chooses a blank that a claim may have, and keeps it from other claims of this server until
// settle is called. It is one of the older half at random, so that servers seldom choose the
// same; of a large pool, it is of the older half of some blanks, since to sort 20,000 takes
// milliseconds. Blanks of the wanted version of the template come first. It returns nil if there
// is none.
func (x *index) take(want want) *pod {
	x.mu.Lock()
	defer x.mu.Unlock()
	const enough = 64
	var fit, other []*pod
	for _, p := range x.free { // in no order
		if len(fit) == enough {
			break
		}
		switch {
		case !p.blank() || x.claiming[p.uid] || !want.fits(p):
		case p.hash == want.hash:
			fit = append(fit, p)
		default: // the template has changed since
			other = append(other, p)
		}
	}
	if len(fit) == 0 {
		fit = other
	}
	if len(fit) == 0 {
		return nil
	}
	slices.SortFunc(fit, func(a, b *pod) int { return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.name, b.name)) })
	const half = 2
	chosen := fit[rand.IntN((len(fit)+half-1)/half)] //nolint:gosec // it need not be secret
	x.claiming[chosen.uid] = true
	return chosen
}

// settle ends what take began. A blank that another server has is none any more, even before the
// watch shows that.
func (x *index) settle(p *pod, lost bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.claiming, p.uid)
	if lost && x.free[p.name] == p {
		delete(x.free, p.name)
	}
}

// wait waits until a condition holds, which may use the index, or ctx ends.
func (x *index) wait(ctx context.Context, holds func() bool) error {
	for {
		_, changed, _ := x.state()
		if holds() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
