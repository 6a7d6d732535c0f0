package kubernetes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// deadlineGrace is how long after its end a pod may still be there until the kubelet ends it.
	deadlineGrace = time.Minute
)

// want is what a claim is for.
type want struct {
	hash       string // the wanted version of the template
	state      string // what the pod becomes: stateRun or stateSession
	namespaces bool   // the sandbox makes namespaces for runs
	network    bool   // the sandbox makes a network namespace
	session    execution.SessionInfo
}

// fits reports whether a blank is on a node that suffices.
func (w want) fits(p *pod) bool {
	return (!w.namespaces || p.facts.UserNS) && (!w.network || p.facts.NetNS)
}

// errLost is the error of a claim of a pod that another server has, or that is gone.
var errLost = errors.New("the pod is not a blank any more")

// claimer turns blanks into sandboxes. There is one for each way to keep blanks ready.
type claimer interface {
	// Claim returns a pod that belongs to this server from then on. It waits for one until
	// ctx ends.
	Claim(ctx context.Context, want want) (*pod, error)
	// Delete asks for a pod's end, and succeeds if the pod is gone already. Where it fails, the
	// sweep does it later.
	Delete(ctx context.Context, p *pod) error
	// Pool asks the apiserver for what keeps blanks ready.
	Pool(ctx context.Context) (*pool, error)
	// Rights returns what this server must be allowed in the sandboxes' namespace, beyond pods
	// and Leases.
	Rights() []right
}

// claimPatch returns the patch that turns a blank into a sandbox of this server. It begins with
// tests of what the blank must be.
func (b *Backend) claimPatch(tests jsonPatch, p *pod, want want) jsonPatch {
	all := tests.
		set(label(labelState), want.state).
		set(label(labelHolder), b.id).
		annotate(noteKey, p.pin)
	if want.state == stateSession {
		s := want.session
		all = all.set(label(labelSession), s.ID).describe(s).
			annotate(noteOwner, string(s.Owner)).
			annotate(noteCreated, strconv.FormatInt(s.Created.UnixMilli(), 10)).
			annotate(noteLatest, strconv.FormatInt(s.Latest.UnixMilli(), 10)).
			annotate(noteEvict, "false")
	}
	return all.set("/spec/activeDeadlineSeconds", int64(b.deadline(want).Sub(p.started).Seconds()))
}

// own makes a pod this server's, by a patch. The error is errLost where the pod is not what the patch tests, or is
// being deleted.
func (b *Backend) own(ctx context.Context, p *pod, changes jsonPatch) (*pod, error) {
	b.hold(p.uid)
	// A caller who leaves does not cut the request short: no server would know of the pod that it may have claimed.
	lasting, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), connectTime, errSlow)
	defer cancel()
	now, err := b.patch(lasting, p, changes)
	switch {
	case lasting.Err() != nil && err != nil: // it may be claimed
		b.disown(p)
		return nil, err
	case err == nil && now.deleted: // at the same moment
		err = errLost
	}
	if err != nil {
		b.drop(p.uid)
		return nil, err
	}
	return now, nil
}

// deadline returns when a claimed pod ends at the latest, even if no server is there any more.
func (b *Backend) deadline(want want) time.Time {
	end := time.Now().Add(b.opts.Lifetime)
	if want.state == stateSession {
		end = want.session.Latest
	}
	return end.Add(deadlineGrace)
}

// jsonPatch is a patch as of RFC 6902.
type jsonPatch []operation

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patch returns a patch that changes nothing but the pod itself: one of another uid is refused.
func (p *pod) patch() jsonPatch {
	all := jsonPatch{}.test("/metadata/uid", p.uid)
	if !p.noted {
		all = all.set("/metadata/annotations", map[string]string{})
	}
	return all
}

func (j jsonPatch) test(path string, value any) jsonPatch {
	return append(j, operation{"test", path, value})
}

// set sets a value, whether it is there or not.
func (j jsonPatch) set(path string, value any) jsonPatch {
	return append(j, operation{"add", path, value})
}

func (j jsonPatch) annotate(name, value string) jsonPatch {
	return j.set("/metadata/annotations/"+escape(name), value)
}

// describe notes what calls change of a session.
func (j jsonPatch) describe(s execution.SessionInfo) jsonPatch {
	return j.annotate(noteExpires, strconv.FormatInt(s.Expires.UnixMilli(), 10)).
		annotate(noteIdle, strconv.FormatInt(s.Idle.Milliseconds(), 10))
}

// label returns the path of a label.
func label(name string) string { return "/metadata/labels/" + escape(name) }

// escape returns a name as a part of a path (RFC 6901).
func escape(name string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(name) }

// patch changes a pod. The error is errLost where the pod is gone, or is not any more what the
// patch tests: what a second look shows of it must differ.
func (b *Backend) patch(ctx context.Context, p *pod, changes jsonPatch) (*pod, error) {
	text, err := json.Marshal(changes)
	if err != nil {
		return nil, err
	}
	made, err := b.api.pods.Patch(ctx, p.name, types.JSONPatchType, text, metav1.PatchOptions{})
	switch {
	case apierrors.IsNotFound(err):
		b.index.lose(p)
		return nil, errLost
	case apierrors.IsInvalid(err), apierrors.IsConflict(err): // a test has failed, or the patch is not allowed
		now, lookErr := b.look(ctx, p)
		if lookErr == nil && now.state == p.state && now.holder == p.holder {
			return nil, b.explain("patch pods", err)
		}
		return nil, cmp.Or(lookErr, errLost)
	case err != nil:
		return nil, b.explain("patch pods", err)
	}
	changed := readPod(made)
	b.index.learn(changed)
	return changed, nil
}

// look asks the apiserver for a pod. The error is errLost where it is gone.
func (b *Backend) look(ctx context.Context, p *pod) (*pod, error) {
	found, err := b.api.pods.Get(ctx, p.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && string(found.UID) != p.uid:
		b.index.lose(p)
		return nil, errLost
	case err != nil:
		return nil, b.explain("get pods", err)
	}
	now := readPod(found)
	b.index.learn(now)
	return now, nil
}

// remove deletes a pod and returns when it is gone. It has PID 1 exit, because the kubelet waits two seconds for one that
// ignores its signal, as that of a session does. The pod gets a second: a name that is free before the
// node has ended the pod would promise memory that is still in use.
func (b *Backend) remove(ctx context.Context, p *pod) error {
	fate := b.index.watch(p)
	if err := b.claimer.Delete(ctx, p); err != nil {
		return err
	}
	ending, stop := context.WithTimeout(ctx, endTime)
	defer stop()
	go b.end(ending, p)
	select {
	case <-fate.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// deletePod asks for a pod's end. Where that fails, the sweep does it later.
func (b *Backend) deletePod(ctx context.Context, p *pod) error {
	grace, uid := int64(1), types.UID(p.uid)
	err := b.api.pods.Delete(ctx, p.name, metav1.DeleteOptions{GracePeriodSeconds: &grace, Preconditions: &metav1.Preconditions{UID: &uid}})
	switch {
	case err == nil:
		b.drop(p.uid)
		b.index.deleting(p)
		return nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // a conflict: another pod has its name
		b.drop(p.uid)
		b.index.lose(p)
		return nil
	}
	b.disown(p)
	return b.explain("delete pods", err)
}
