//go:build k8s

package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution/blank"
	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// newCluster returns the backend of the cluster that the settings name. The settings that follow a
// machine have the values for one that is not known, since a cluster has many.
func newCluster(c config.Config, log *slog.Logger) (backend, error) {
	c, err := c.ForMachine(config.Machine{})
	if err != nil {
		return nil, err
	}
	maker, err := blank.NewMaker()
	if err != nil {
		return nil, err
	}
	credentials, err := link.LoadCredentials(c.KubernetesLinkDir)
	if err != nil {
		return nil, fmt.Errorf("KUBERNETES_LINK_DIR is %q: %w", c.KubernetesLinkDir, err)
	}
	return kubernetes.New(kubernetes.Options{
		Kubeconfig: c.Kubeconfig, Context: c.KubernetesContext, Namespace: c.KubernetesNamespace, Pool: c.KubernetesPool,
		AgentSandbox: c.KubernetesProvider == "agent-sandbox",
		Port:         c.KubernetesLinkPort, Image: c.KubernetesImage, Settings: sandboxSettings(c), Lifetime: lifetime(c),
		Dial: func(ctx context.Context, address, pin string) (net.Conn, error) {
			conn, err := credentials.Dial(ctx, address, pin)
			if err != nil {
				return nil, err // a nil *link.Conn would be a net.Conn that is not nil
			}
			return conn, nil
		},
		End: credentials.End, Trusted: credentials.CheckFor, Peer: c.PeerAddress(),
		Boot: maker.Boot, UserAgent: "vivarium/" + version(), Log: log,
	})
}

// isCluster reports whether a backend is that of a cluster.
func isCluster(b backend) bool {
	_, ok := b.(*kubernetes.Backend)
	return ok
}

// examinePods prints what a cluster is like for sandboxes.
func examinePods(ctx context.Context, b backend, finding finder) {
	cluster, ok := b.(*kubernetes.Backend)
	if !ok {
		return
	}
	marks := map[kubernetes.Verdict]mark{kubernetes.Good: good, kubernetes.Doubtful: open, kubernetes.Failing: missing}
	for _, f := range cluster.Examine(ctx) {
		finding(marks[f.Verdict], "%s", f.Text)
	}
}
