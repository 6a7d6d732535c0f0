package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
)

// remedy returns what to change so that the engine answers or a sandbox can serve
// many runs.
func remedy(err error) string {
	switch execution.CauseOf(err) {
	case execution.EngineDenied:
		return "join the socket's group: `sudo usermod -aG docker \"$USER\"` and log in again; in a container, `docker run --group-add \"$(stat -c %g /var/run/docker.sock)\"`"
	case execution.EngineUnreachable:
		return "start it, mount its socket where this is a container, or set DOCKER_HOST to where it answers (`docker context inspect` shows it)"
	case execution.NamespacesDenied:
		return "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 on Debian, kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu"
	case execution.NamespacesExhausted:
		return "allow user namespaces: sysctl user.max_user_namespaces must not be 0"
	case execution.NamespacesMissing:
		return "use a kernel that was built with user and pid namespaces"
	case execution.ForeignMount:
		return "build the image without VOLUME"
	case execution.OtherMachine:
		return "run the server on the engine's kind of machine"
	case execution.ZygoteEnded:
		return "raise MEMORY_LIMIT_MB, or set PRELOAD_MODULES=none"
	default:
		return "see docs/security.md for what it takes"
	}
}

// nameSetting puts the setting that is to blame in front of an error of a
// sandbox's start. The engine's own text does not name settings.
func nameSetting(c config.Config, err error) error {
	switch execution.CauseOf(err) {
	case execution.RuntimeMissing:
		return fmt.Errorf("PYTHON_EXECUTOR_DOCKER_RUNTIME is %q: must be a runtime that the engine has (docker info lists them): %w", c.Runtime, err)
	case execution.NetworkMissing:
		return fmt.Errorf("PYTHON_EXECUTOR_DOCKER_NETWORK is %q: must be a network that the engine has (docker network ls lists them): %w", c.Network, err)
	default:
		return err
	}
}

// explainStorage puts what to set in front of an error of opening a bucket. It
// matches two texts of the S3 library, which has no type for these errors (v1.111).
func explainStorage(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "get credentials"):
		return fmt.Errorf("there are no credentials for it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for those in ~/.aws: %w", err)
	case strings.Contains(text, "A region must be set"):
		return fmt.Errorf("its region is not known: put ?region= into the URL, or set AWS_REGION: %w", err)
	}
	for _, refusal := range []error{fs.ErrPermission, syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, refusal) {
			return fmt.Errorf("must name a folder that the server can make and write: %w", err)
		}
	}
	return err
}
