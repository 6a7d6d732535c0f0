package docker

import (
	"errors"
	"io/fs"
	"strings"

	dockerclient "github.com/docker/docker/client"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// engineCause returns why the engine cannot be reached.
func engineCause(err error) execution.Cause {
	switch {
	case !unreachable(err):
		return ""
	case dockerclient.IsErrConnectionFailed(err) && errors.Is(err, fs.ErrPermission):
		return execution.EngineDenied
	}
	return execution.EngineUnreachable
}

// startCause returns why the engine did not start a sandbox. It matches the
// engine's texts, since the engine has no code for these causes.
func startCause(spec execution.Spec, err error) execution.Cause {
	switch text := err.Error(); {
	case spec.Runtime != "" && lacksRuntime(text):
		return execution.RuntimeMissing
	case strings.Contains(text, "network "+spec.Network+" not found"):
		return execution.NetworkMissing
	}
	return ""
}

// lacksRuntime reports whether an engine's text means that it does not have a
// runtime: either the name is unknown, or the runtime's program is missing. A
// missing program of the sandbox's own (python3) is another matter.
func lacksRuntime(text string) bool {
	for _, known := range []string{"Unknown runtime specified", "unknown or invalid runtime name", "binary not installed", "fork/exec /"} {
		if strings.Contains(text, known) {
			return true
		}
	}
	_, after, missing := strings.Cut(text, `exec: "`)
	return missing && !strings.HasPrefix(after, "python3")
}
