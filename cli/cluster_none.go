//go:build !k8s

package cli

import (
	"context"
	"errors"
	"log/slog"

	"github.com/vivarium-sandbox/vivarium/config"
)

// newCluster fails: the client library would add 13 MB to the binary.
func newCluster(config.Config, *slog.Logger) (backend, error) {
	return nil, errors.New("EXECUTOR_BACKEND is kubernetes, and this binary was built without that backend: build it with -tags k8s, or use the server's image")
}

// isCluster reports whether a backend is that of a cluster.
func isCluster(backend) bool { return false }

// examinePods prints nothing: there is no such backend.
func examinePods(context.Context, backend, finder) {}
