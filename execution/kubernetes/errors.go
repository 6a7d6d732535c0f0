package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// errSlow is the cause of a first exchange with the apiserver that takes too long.
var errSlow = errors.New("there was no complete answer within " + connectTime.String())

func unavailable(message string, err error) error {
	return &execution.Error{Code: execution.Unavailable, Message: message, Err: err}
}

// configFault explains why there is no cluster to talk to.
func configFault(opts Options, err error) error {
	if clientcmd.IsEmptyConfig(err) {
		return fmt.Errorf("there is no cluster: set KUBECONFIG to a file that names one, or run this server as a pod with a ServiceAccount: %w", err)
	}
	if strings.Contains(err.Error(), fmt.Sprintf("context %q", opts.Context)) { // the library has no type for that
		return fmt.Errorf("KUBERNETES_CONTEXT is %q: must be a context of KUBECONFIG: %w", opts.Context, err)
	}
	return fmt.Errorf("KUBECONFIG is %q: must name files that describe a cluster: %w", opts.Kubeconfig, err)
}

// explain returns an error of the apiserver as a sentence for operators, nil for nil. What was
// attempted is a verb and a resource, such as "patch pods".
func (b *Backend) explain(what string, err error) error {
	if _, known := errors.AsType[*execution.Error](err); known || err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return unavailable(b.sentence(what, err), err)
}

func (b *Backend) sentence(what string, err error) string {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("Kubernetes does not allow this server to %s in the namespace %q: give its account a Role there with %s", what, b.api.namespace, listed(b.needed()))
	case apierrors.IsUnauthorized(err):
		return fmt.Sprintf("Kubernetes at %s does not accept this server's credentials: renew those in KUBECONFIG, or the token of its ServiceAccount", b.Host())
	case isUntrusted(err):
		return fmt.Sprintf("the apiserver at %s has a certificate that this server does not trust: KUBECONFIG must have the CA of this cluster", b.Host())
	}
	if status, answered := errors.AsType[*apierrors.StatusError](err); answered {
		return fmt.Sprintf("Kubernetes refused to %s in the namespace %q: %s", what, b.api.namespace, execution.Clip(status.ErrStatus.Message))
	}
	return fmt.Sprintf("Kubernetes does not answer at %s: start the cluster, or set KUBECONFIG and KUBERNETES_CONTEXT to one that runs", b.Host())
}

// noPool returns the error of a pool of some kind that is not there.
func (b *Backend) noPool(kind string, err error) error {
	return unavailable(fmt.Sprintf("there is no %s %q in the namespace %q: install Vivarium's chart there, or set KUBERNETES_POOL and KUBERNETES_EXECUTOR_NAMESPACE",
		kind, b.opts.Pool, b.api.namespace), err)
}

// isUntrusted reports whether a server's certificate was refused.
func isUntrusted(err error) bool {
	if _, refused := errors.AsType[*tls.CertificateVerificationError](err); refused {
		return true
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return unknown
}

// noBlank returns why no blank can be claimed.
func (b *Backend) noBlank(ctx context.Context, want want) error {
	p := b.lastPool()
	message := b.unready(p)
	if b.index.hash() != "" && (want.namespaces || want.network) {
		message = fmt.Sprintf("the nodes of %s allow no user namespaces in pods, or no network namespaces in these, which sandboxes need: give the pods a seccomp profile that allows unshare, and the nodes user.max_user_namespaces", p.what)
	}
	return unavailable(message, context.Cause(ctx))
}

// lastPool returns the pool as it was found last. It must have been.
func (b *Backend) lastPool() pool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pool == nil {
		return pool{what: fmt.Sprintf("the pool %q", b.opts.Pool)}
	}
	return *b.pool
}

// unready returns why no blank of a pool is ready.
func (b *Backend) unready(p pool) string {
	namespace := b.api.namespace
	switch {
	case strings.Contains(p.failure, "exceeded quota"):
		return fmt.Sprintf("a ResourceQuota of the namespace %q is used up, so that %s has no blank pod: raise it, or lower MAX_SANDBOXES and MAX_SESSIONS (%s)",
			namespace, p.what, execution.Clip(p.failure))
	case strings.Contains(p.failure, "violates PodSecurity"):
		return fmt.Sprintf("the namespace %q rejects the pods of %s: label it with a Pod Security level that allows them, or change the template (%s)",
			namespace, p.what, execution.Clip(p.failure))
	case p.failure != "":
		return fmt.Sprintf("the pods of %s in the namespace %q cannot be created: %s", p.what, namespace, execution.Clip(p.failure))
	case p.replicas == 0:
		return fmt.Sprintf("%s in the namespace %q has 0 replicas: scale it to as many as there are to be blank pods", p.what, namespace)
	}
	blanks := b.index.all(func(p *pod) bool { return p.state == stateFree && !p.going })
	for _, blank := range blanks {
		if blank.waiting != "" {
			return fmt.Sprintf("pod %q in the namespace %q does not start: %s", blank.name, namespace, advise(blank.waiting))
		}
	}
	return fmt.Sprintf("0 of %d blank pods of %s in the namespace %q are ready: wait, or see what `kubectl -n %s describe pods` says", p.replicas, p.what, namespace, namespace)
}

// advise adds what to do to what a pod waits for.
func advise(waiting string) string {
	switch {
	case strings.Contains(waiting, "ErrImagePull"), strings.Contains(waiting, "ImagePullBackOff"), strings.Contains(waiting, "InvalidImageName"),
		strings.Contains(waiting, "ErrImageNeverPull"):
		return waiting + "; the template must name images that the nodes can pull"
	case strings.Contains(waiting, "CreateContainer"):
		return waiting + "; the node must have what the template names, such as its seccomp profile"
	}
	return waiting
}
