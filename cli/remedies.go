package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/vivarium-sandbox/vivarium/config"
)

// remedy says what to change where the engine does not answer or a container
// cannot serve many runs, by what the client or the supervisor says.
func remedy(err error) string {
	const start = "start it, mount its socket where this is a container, or set DOCKER_HOST to where it answers (`docker context inspect` tells)"
	for _, known := range []struct{ symptom, remedy string }{
		{"connect: permission denied", "join the socket's group: `sudo usermod -aG docker \"$USER\"` and log in again; in a container, `docker run --group-add \"$(stat -c %g /var/run/docker.sock)\"`"},
		{"Cannot connect to the Docker daemon", start},
		{"error during connect", start},
		{"unshare: Operation not permitted", "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 on Debian, kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu"},
		{"unshare: No space left on device", "allow user namespaces: sysctl user.max_user_namespaces must not be 0"},
		{"unshare: Function not implemented", "use a kernel that was built with user and pid namespaces"},
		{"which the image or engine mounts", "build the image without VOLUME"},
		{"seccomp filter is for", "run the server on the engine's kind of machine"},
		{"the zygote ended or says", "raise MEMORY_LIMIT_MB, or set PRELOAD_MODULES=none"},
	} {
		if strings.Contains(err.Error(), known.symptom) {
			return known.remedy
		}
	}
	return "see docs/security.md for what it takes"
}

// nameSetting puts the setting in front of an error of a sandbox's start that
// it is to blame for: the engine speaks of its own names alone.
func nameSetting(c config.Config, err error) error {
	switch {
	case err == nil:
		return nil
	case c.Runtime != "" && lacksRuntime(err.Error()):
		return fmt.Errorf("PYTHON_EXECUTOR_DOCKER_RUNTIME is %q: must be a runtime that the engine has (docker info lists them): %w", c.Runtime, err)
	case strings.Contains(err.Error(), "network "+c.Network+" not found"):
		return fmt.Errorf("PYTHON_EXECUTOR_DOCKER_NETWORK is %q: must be a network that the engine has (docker network ls lists them): %w", c.Network, err)
	}
	return err
}

// lacksRuntime says whether an engine's word is that it does not have a runtime: it is
// not known, or its program, which is not the sandbox's, is not there.
func lacksRuntime(text string) bool {
	for _, known := range []string{"Unknown runtime specified", "unknown or invalid runtime name", "binary not installed", "fork/exec /"} {
		if strings.Contains(text, known) {
			return true
		}
	}
	_, after, missing := strings.Cut(text, `exec: "`)
	return missing && !strings.HasPrefix(after, "python3")
}

// explainStorage puts what to set in front of an error of opening a bucket.
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
