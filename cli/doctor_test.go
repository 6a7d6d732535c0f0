package cli

import (
	"errors"
	"strings"
	"testing"
)

// Each known cause has its remedy, and an unknown one a place to look.
func TestRemedy(t *testing.T) {
	for cause, want := range map[string]string{
		"the supervisor did not start: OSError: [Errno 1] unshare: Operation not permitted":   "apparmor_restrict_unprivileged_userns",
		"the supervisor did not start: OSError: [Errno 28] unshare: No space left on device":  "user.max_user_namespaces",
		"programs could leave files for others at /data, which the image or engine mounts":    "without VOLUME",
		"the server's seccomp filter is for x86_64, and this is aarch64":                      "kind of machine",
		"the supervisor did not start: OSError: [Errno 38] unshare: Function not implemented": "kernel",
		"something else": "docs/security.md",
	} {
		if got := remedy(errors.New(cause)); !strings.Contains(got, want) {
			t.Errorf("%s: %s", cause, got)
		}
	}
}
