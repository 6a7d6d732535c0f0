package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// mostCandidates is how many blanks a claim tries before it waits for the watch.
const mostCandidates = 5

// deploymentClaimer claims pods of a Deployment. It implements [claimer].
type deploymentClaimer struct{ *Backend }

// Claim implements [claimer].
func (c deploymentClaimer) Claim(ctx context.Context, want want) (*pod, error) {
	for {
		_, changed, _ := c.index.state()
		p, err := c.tryCandidates(ctx, want)
		if p != nil || err != nil {
			return p, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, c.noBlank(ctx, want)
		}
	}
}

// tryCandidates tries to claim a few blanks. It returns nil if it gets none.
func (c deploymentClaimer) tryCandidates(ctx context.Context, want want) (*pod, error) {
	for range mostCandidates {
		candidate := c.index.take(want)
		if candidate == nil {
			break
		}
		p, err := c.patchClaim(ctx, candidate, want)
		c.index.settle(candidate, err != nil)
		if !errors.Is(err, errLost) {
			return p, err
		}
	}
	return nil, nil //nolint:nilnil // there is none at the moment
}

// patchClaim claims a blank, unless another server does so first, which the apiserver decides.
func (c deploymentClaimer) patchClaim(ctx context.Context, candidate *pod, want want) (*pod, error) {
	owner, err := c.recent(ctx)
	if err != nil {
		return nil, err
	}
	// Without the label the pod is none of its ReplicaSet any more, which makes another one.
	return c.own(ctx, candidate, c.claimPatch(candidate.patch().test(label(labelState), stateFree), candidate, want).
		set("/metadata/ownerReferences", []metav1.OwnerReference{owner.reference()}))
}

// Delete implements [claimer].
func (c deploymentClaimer) Delete(ctx context.Context, p *pod) error { return c.deletePod(ctx, p) }

// Rights implements [claimer].
func (c deploymentClaimer) Rights() []right {
	return []right{{objectKind{"apps", "deployments"}, []string{"get", "list", "watch"}}}
}

// Pool implements [claimer].
func (c deploymentClaimer) Pool(ctx context.Context) (*pool, error) {
	found, err := c.api.deployments.Get(ctx, c.opts.Pool, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, c.noPool("Deployment", err)
	case err != nil:
		return nil, c.explain("get deployments", err)
	}
	return c.readDeployment(found), nil
}

// readDeployment returns what the backend keeps of the Deployment.
func (c deploymentClaimer) readDeployment(from *appsv1.Deployment) *pool {
	what := fmt.Sprintf("Deployment %q", from.Name)
	p := &pool{
		what: what, template: what, name: from.Name, uid: string(from.UID), replicas: 1, found: time.Now(),
		faults: c.podFaults(&from.Spec.Template.Spec), ownUsers: hasOwnUsers(&from.Spec.Template.Spec),
	}
	if from.Spec.Replicas != nil {
		p.replicas = int(*from.Spec.Replicas)
	}
	if from.Spec.Selector != nil {
		p.label = from.Spec.Selector.MatchLabels[labelPool]
	}
	for _, condition := range from.Status.Conditions {
		if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue {
			p.failure = condition.Message
		}
	}
	if from.Spec.Selector == nil || p.label == "" || from.Spec.Selector.MatchLabels[labelState] != stateFree {
		p.faults = append(p.faults, fmt.Sprintf("spec.selector.matchLabels must have %s, and %s=%s", labelPool, labelState, stateFree))
	}
	return p
}

// reference returns the pool as the owner of a claimed pod. With one a drain does not refuse the
// pod, and the pod ends with the Deployment.
func (p *pool) reference() metav1.OwnerReference {
	controller := true
	return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: p.name, UID: types.UID(p.uid), Controller: &controller}
}
