package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pool implements [claimer].
func (c agentClaimer) Pool(ctx context.Context) (*pool, error) {
	var found warmPool
	err := c.ask(ctx, c.of(c.api.raw.Get(), agentExtensions, "sandboxwarmpools").Name(c.opts.Pool), &found)
	switch {
	case apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) && apierrors.IsNotFound(err): // not of this API
		return nil, unavailable(fmt.Sprintf("this cluster has no agent-sandbox (%s/%s): install version 1.0 or newer with its extensions, or set KUBERNETES_PROVIDER to deployment",
			agentExtensions, agentVersion), err)
	case apierrors.IsNotFound(err):
		return nil, c.noPool("SandboxWarmPool", err)
	case err != nil:
		return nil, c.explain("get sandboxwarmpools", err)
	}
	var template sandboxTemplate
	name := found.Spec.SandboxTemplateRef.Name
	err = c.ask(ctx, c.of(c.api.raw.Get(), agentExtensions, "sandboxtemplates").Name(name), &template)
	switch {
	case apierrors.IsNotFound(err):
		return nil, unavailable(fmt.Sprintf("there is no SandboxTemplate %q in the namespace %q, which SandboxWarmPool %q names: install Vivarium's chart there",
			name, c.api.namespace, c.opts.Pool), err)
	case err != nil:
		return nil, c.explain("get sandboxtemplates", err)
	}
	p := c.readWarmPool(&found, &template)
	if found.Status.ReadyReplicas == 0 && p.failure == "" {
		p.failure = c.sandboxFailure(ctx, p.uid)
	}
	return p, nil
}

// warmPool has what is read of a SandboxWarmPool.
type warmPool struct {
	Metadata metav1.ObjectMeta
	Spec     struct {
		Replicas           int
		SandboxTemplateRef struct{ Name string }
	}
	Status struct {
		ReadyReplicas      int
		ObservedGeneration int64
	}
}

// sandboxTemplate has what is read of a SandboxTemplate.
type sandboxTemplate struct {
	Spec struct {
		PodTemplate struct {
			Metadata struct{ Labels, Annotations map[string]string }
			Spec     corev1.PodSpec
		}
		NetworkPolicyManagement string
	}
}

// conditioned has the state of an object.
type conditioned struct {
	Metadata metav1.ObjectMeta
	Status   struct{ Conditions []metav1.Condition }
}

// failure returns why the controller cannot do what an object asks for, or "".
func (o conditioned) failure() string {
	for _, c := range o.Status.Conditions {
		if c.Type == "Ready" && c.Status == metav1.ConditionFalse && c.Reason != "DependenciesNotReady" && c.Reason != "SandboxNotReady" {
			return strings.TrimPrefix(c.Message, "Error seen: ")
		}
	}
	return ""
}

// readWarmPool returns what the backend keeps of a warm pool and its template.
func (c agentClaimer) readWarmPool(from *warmPool, template *sandboxTemplate) *pool {
	name, labels := from.Spec.SandboxTemplateRef.Name, template.Spec.PodTemplate.Metadata.Labels
	p := &pool{
		what: fmt.Sprintf("SandboxWarmPool %q", from.Metadata.Name), template: fmt.Sprintf("SandboxTemplate %q", name),
		uid: string(from.Metadata.UID), label: labels[labelPool], hash: labels[labelHash], replicas: from.Spec.Replicas,
		faults: c.agentFaults(template), ownUsers: hasOwnUsers(&template.Spec.PodTemplate.Spec), found: time.Now(),
	}
	if from.Status.ObservedGeneration == 0 {
		p.failure = idleController
	}
	return p
}

// agentFaults returns what is wrong with a SandboxTemplate, each with the field's name.
func (c agentClaimer) agentFaults(template *sandboxTemplate) []string {
	pod := &template.Spec.PodTemplate
	faults := c.podFaults(&pod.Spec)
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if pod.Metadata.Labels[labelPool] == "" || pod.Metadata.Labels[labelHash] == "" {
		fault("podTemplate.metadata.labels must have %s, and %s, which changes with the template", labelPool, labelHash)
	}
	for _, name := range slices.Sorted(maps.Keys(pod.Metadata.Labels)) {
		if name == labelState || name == labelHolder || name == labelSession {
			fault("podTemplate.metadata.labels must not have %s: the controller would set it back where a server changes it", name)
		}
	}
	if _, there := pod.Metadata.Annotations[noteEvict]; there {
		fault("podTemplate.metadata.annotations must not have %s, which claims set", noteEvict)
	}
	if pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
		fault("restartPolicy must be Never: claims end when their pods do")
	}
	if template.Spec.NetworkPolicyManagement != "Unmanaged" {
		fault("networkPolicyManagement must be Unmanaged: the controller's policy would keep servers from sandboxes")
	}
	return faults
}

// sandboxFailure returns why the pods of a warm pool cannot be created, or "": the pool itself does not say.
func (c agentClaimer) sandboxFailure(ctx context.Context, uid string) string {
	const most = "100"
	var found struct{ Items []conditioned }
	if err := c.ask(ctx, c.of(c.api.raw.Get(), agentGroup, "sandboxes").Param("limit", most), &found); err != nil {
		return ""
	}
	for _, sandbox := range found.Items {
		if owner := metav1.GetControllerOf(&sandbox.Metadata); owner != nil && string(owner.UID) == uid && sandbox.failure() != "" {
			return sandbox.failure()
		}
	}
	return ""
}
