package kubernetes

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// The API of agent-sandbox (sigs.k8s.io/agent-sandbox). It is small enough to do without its Go module.
const (
	agentGroup      = "agents.x-k8s.io"
	agentExtensions = "extensions." + agentGroup
	agentVersion    = "v1beta1"

	labelSandbox = agentGroup + "/sandbox-name-hash" // which all pods of its controller have
	// noteClaim is an annotation that a SandboxClaim gives its pod: the claim's name, which begins with the name of
	// the server that made the claim.
	noteClaim = "vivarium.dev/claim"

	// finishedTime is how long in seconds a claim stays after the end of its pod.
	finishedTime = 20
)

// agentClaimer claims pods of a SandboxWarmPool, by a SandboxClaim for each. The controller of agent-sandbox gives the
// claim one of the pool, or a new one if the pool has none. It implements [claimer].
type agentClaimer struct{ *Backend }

// Claim implements [claimer].
func (c agentClaimer) Claim(ctx context.Context, want want) (*pod, error) {
	var lost error
	for range mostPods {
		p, err := c.claimOne(ctx, want)
		if !errors.Is(err, errLost) {
			return p, err
		}
		lost = err
	}
	return nil, unavailable("pods end while they are claimed", lost)
}

// claimOne makes a claim, and then its pod this server's. The claim's own pod is not recognized by its state: the
// controller would set back a label that its template has.
func (c agentClaimer) claimOne(ctx context.Context, want want) (*pod, error) {
	name := c.id + "-" + strings.ToLower(rand.Text()[:10])
	c.expect(name)
	defer c.unexpect(name)
	if err := c.create(ctx, name, want); err != nil {
		return nil, err
	}
	p, err := c.await(ctx, name, want)
	if err == nil {
		p, err = c.own(ctx, p, c.claimPatch(p.patch().test("/metadata/annotations/"+escape(noteClaim), name), p, want))
	}
	if err != nil {
		c.abandon(ctx, unseen(name))
		return nil, err
	}
	return p, nil
}

// unseen stands for the pod of a claim, whatever pod that is, and if there is none yet.
func unseen(claim string) *pod { return &pod{name: claim, uid: claim, claim: claim} }

// create makes a claim. It ends by itself after its pod, with the pool, and at the deadline.
func (c agentClaimer) create(ctx context.Context, name string, want want) error {
	const api = agentExtensions + "/" + agentVersion
	from := c.lastPool()
	text, err := json.Marshal(map[string]any{
		"apiVersion": api, "kind": "SandboxClaim",
		"metadata": map[string]any{
			"name": name, "labels": map[string]string{labelPool: from.label},
			"ownerReferences": []metav1.OwnerReference{{APIVersion: api, Kind: "SandboxWarmPool", Name: c.opts.Pool, UID: types.UID(from.uid)}},
		},
		"spec": map[string]any{
			"warmPoolRef": map[string]string{"name": c.opts.Pool},
			"additionalPodMetadata": map[string]any{"annotations": map[string]string{
				noteClaim: name, noteEvict: strconv.FormatBool(want.state != stateSession),
			}},
			"lifecycle": map[string]any{
				"shutdownTime": c.deadline(want).UTC().Format(time.RFC3339), "shutdownPolicy": "Delete", "ttlSecondsAfterFinished": finishedTime,
			},
		},
	})
	if err != nil {
		return err
	}
	// A caller who leaves does not cut the request short: no server would know of the claim.
	lasting, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), connectTime, errSlow)
	defer cancel()
	err = c.of(c.api.raw.Post(), agentExtensions, "sandboxclaims").SetHeader("Content-Type", runtime.ContentTypeJSON).Body(text).Do(lasting).Error()
	if _, answered := errors.AsType[*apierrors.StatusError](err); err != nil && !answered { // it may be there
		c.disown(unseen(name))
	}
	return c.explain("create sandboxclaims", err)
}

// await waits until the pod of a claim can be used.
func (c agentClaimer) await(ctx context.Context, name string, want want) (*pod, error) {
	var found *pod
	err := c.index.wait(ctx, func() bool {
		found = c.index.claimed(name)
		return found != nil && (found.blank() || found.going || found.ended)
	})
	switch {
	case err != nil:
		return nil, c.unanswered(ctx, name)
	case !found.blank():
		return nil, errLost
	case !want.fits(found):
		return nil, c.noBlank(ctx, want)
	}
	return found, nil
}

// unanswered returns why a claim has got no pod.
func (c agentClaimer) unanswered(ctx context.Context, name string) error {
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTime)
	defer cancel()
	var claim conditioned
	p := c.lastPool()
	if err := c.ask(asking, c.of(c.api.raw.Get(), agentExtensions, "sandboxclaims").Name(name), &claim); err == nil {
		p.failure = claim.failure()
		if len(claim.Status.Conditions) == 0 {
			p.failure = idleController
		}
	}
	return unavailable(c.unready(p), context.Cause(ctx))
}

// idleController is why nothing happens to objects of agent-sandbox.
const idleController = "the controller of agent-sandbox does nothing about them: it must run in this cluster, with --extensions"

// Delete implements [claimer]. With the claim, Kubernetes deletes its sandbox and the pod. A blank that has ended is
// deleted itself, and the controller makes another one.
func (c agentClaimer) Delete(ctx context.Context, p *pod) error {
	if p.claim == "" {
		return c.deletePod(ctx, p)
	}
	err := c.of(c.api.raw.Delete(), agentExtensions, "sandboxclaims").Name(p.claim).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		c.disown(p)
		return c.explain("delete sandboxclaims", err)
	}
	c.drop(p.uid)
	c.index.deleting(p)
	return nil
}

// Rights implements [claimer].
func (c agentClaimer) Rights() []right {
	return []right{
		{objectKind{agentExtensions, "sandboxclaims"}, []string{"get", "create", "delete"}},
		{objectKind{agentExtensions, "sandboxwarmpools"}, []string{"get"}},
		{objectKind{agentExtensions, "sandboxtemplates"}, []string{"get"}},
		{objectKind{agentGroup, "sandboxes"}, []string{"list"}},
	}
}

// of directs a request to objects of agent-sandbox.
func (c agentClaimer) of(request *rest.Request, group, resource string) *rest.Request {
	return request.AbsPath("/apis", group, agentVersion).Namespace(c.api.namespace).Resource(resource).SetHeader("Accept", runtime.ContentTypeJSON)
}

// ask sends a request and reads its answer.
func (c agentClaimer) ask(ctx context.Context, request *rest.Request, answer any) error {
	result := request.Do(ctx)
	if err := result.Error(); err != nil {
		return err
	}
	text, err := result.Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// expect notes that this server waits for the pod of a claim.
func (b *Backend) expect(claim string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected[claim] = true
}

// unexpect ends what expect began.
func (b *Backend) unexpect(claim string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.expected, claim)
}

// forsaken reports whether a pod was claimed for a server that has not made it its own, and never will: such as the
// successor of one that was deleted, which the controller makes.
func (b *Backend) forsaken(p *pod) bool {
	server, _, claimed := strings.Cut(p.claim, "-")
	switch {
	case !claimed:
		return false
	case server != b.id:
		return b.leases.over(server) >= orphanTime
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.expected[p.claim]
}
