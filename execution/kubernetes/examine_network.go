package kubernetes

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// policyTime is how long a port that no policy closes may take to refuse a connection.
const policyTime = 3 * time.Second

// errOpen is the result of a connection to a port on which something listens.
var errOpen = errors.New("something listens")

// examinePolicies finds out whether NetworkPolicies are enforced. No sandbox listens on the port
// beside that of the link, and policies close it: then nothing answers, not even to refuse. A
// policy does not keep a node from its own pods, so that a server beside the cluster learns nothing.
func (b *Backend) examinePolicies(ctx context.Context, from []corev1.Pod) Finding {
	if b.opts.Peer == "" { // it is in no pod
		return Finding{Doubtful, "whether NetworkPolicies are enforced shows only from a server's pod: `kubectl exec deployment/vivarium -c server -- /vivarium doctor` in its namespace"}
	}
	for i := range from {
		if p := readPod(&from[i]); p.blank() {
			ctx, cancel := context.WithTimeout(ctx, policyTime)
			defer cancel()
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(p.addresses[0], strconv.Itoa(b.opts.Port+1)))
			if err == nil {
				err = errors.Join(errOpen, conn.Close())
			}
			return judgePolicies(err, b.opts.Settings.Network)
		}
	}
	return Finding{Doubtful, "whether NetworkPolicies are enforced shows only while a blank pod is ready"}
}

// judgePolicies returns what the error of a connection to a closed port means.
func judgePolicies(err error, network string) Finding {
	var reached net.Error
	switch {
	case errors.Is(err, errOpen), errors.Is(err, syscall.ECONNREFUSED):
		wall := "programs are isolated all the same, by a network of their own"
		if network == networkOfPod {
			wall = "programs reach whatever pods of this cluster reach"
		}
		return Finding{Doubtful, "NetworkPolicies are not enforced, or there are none: a closed port of a sandbox answers; " + wall +
			"; to change that, use a network (CNI) that enforces policies, and networkPolicy.enabled"}
	case errors.As(err, &reached) && reached.Timeout(), errors.Is(err, syscall.EPERM):
		return Finding{Good, "NetworkPolicies are enforced: a closed port of a sandbox does not answer"}
	}
	return Finding{Doubtful, "it is not known whether NetworkPolicies are enforced: " + err.Error()}
}
