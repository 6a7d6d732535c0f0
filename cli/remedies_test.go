package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Each known cause has its remedy, and an unknown one a place to look.
func TestRemedy(t *testing.T) {
	for cause, want := range map[execution.Cause]string{
		execution.NamespacesDenied:    "apparmor_restrict_unprivileged_userns",
		execution.NamespacesExhausted: "user.max_user_namespaces",
		execution.NamespacesMissing:   "kernel",
		execution.ForeignMount:        "without VOLUME",
		execution.OtherMachine:        "kind of machine",
		execution.ZygoteEnded:         "raise MEMORY_LIMIT_MB, or set PRELOAD_MODULES=none",
		execution.EngineDenied:        "usermod -aG docker",
		execution.EngineUnreachable:   "or set DOCKER_HOST",
		"":                            "docs/security.md",
	} {
		err := fmt.Errorf("the supervisor did not start: %w", execution.WithCause(cause, errors.New("odd")))
		if got := remedy(err); !strings.Contains(got, want) {
			t.Errorf("%s: %s", cause, got)
		}
	}
}

// An error about a runtime or a network that the engine does not have names the
// setting, and any other error stays as it is.
func TestNameSetting(t *testing.T) {
	c := defaults(t)
	c.Runtime, c.Network = "runsc", "zz"
	for cause, want := range map[execution.Cause]string{
		execution.RuntimeMissing: `PYTHON_EXECUTOR_DOCKER_RUNTIME is "runsc": must be a runtime that the engine has (docker info lists them): `,
		execution.NetworkMissing: `PYTHON_EXECUTOR_DOCKER_NETWORK is "zz": must be a network that the engine has (docker network ls lists them): `,
		execution.ZygoteEnded:    "",
		"":                       "",
	} {
		cause := execution.WithCause(cause, errors.New("the engine's text"))
		if err := nameSetting(c, cause); err.Error() != want+"the engine's text" || !errors.Is(err, cause) {
			t.Errorf("%s: %v", cause, err)
		}
	}
	if err := nameSetting(c, nil); err != nil {
		t.Error(err)
	}
}

// The error names the setting, which the object store's library does not.
func TestExplainStorage(t *testing.T) {
	for cause, want := range map[string]string{
		"get identity: get credentials: failed to refresh cached credentials":   "there are no credentials for it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for those in ~/.aws: ",
		"endpoint rule error, A region must be set when sending requests to S3": "its region is not known: put ?region= into the URL, or set AWS_REGION: ",
		"there is no such bucket": "",
	} {
		err := errors.New(cause)
		if got := explainStorage(err); got.Error() != want+cause || !errors.Is(got, err) {
			t.Errorf("%s: %v", cause, got)
		}
	}
	for _, refusal := range []error{syscall.EACCES, syscall.EROFS, syscall.ENOSPC} {
		err := &os.PathError{Op: "mkdir", Path: "/x", Err: refusal}
		if got := explainStorage(err).Error(); got != "must name a folder that the server can make and write: "+err.Error() {
			t.Error(got)
		}
	}
}
