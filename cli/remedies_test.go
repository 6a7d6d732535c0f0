package cli

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// Each known cause has its remedy, and an unknown one a place to look.
func TestRemedy(t *testing.T) {
	for cause, want := range map[string]string{
		"the supervisor did not start: OSError: [Errno 1] unshare: Operation not permitted":            "apparmor_restrict_unprivileged_userns",
		"the supervisor did not start: OSError: [Errno 28] unshare: No space left on device":           "user.max_user_namespaces",
		"programs could leave files for others at /data, which the image or engine mounts":             "without VOLUME",
		"the server's seccomp filter is for x86_64, and this is aarch64":                               "kind of machine",
		"the supervisor did not start: OSError: [Errno 38] unshare: Function not implemented":          "kernel",
		"the supervisor did not start: the sandbox ended: EOF: the zygote ended or says b'', not b'R'": "raise MEMORY_LIMIT_MB, or set PRELOAD_MODULES=none",
		"something else": "docs/security.md",
		"permission denied while trying to connect to the Docker daemon socket: dial unix /x: connect: permission denied": "usermod -aG docker",
		"Cannot connect to the Docker daemon at unix:///nope. Is the docker daemon running?":                              "or set DOCKER_HOST",
		`error during connect: Head "http://x/_ping": dial tcp: lookup x: no such host`:                                   "or set DOCKER_HOST",
	} {
		if got := remedy(errors.New(cause)); !strings.Contains(got, want) {
			t.Errorf("%s: %s", cause, got)
		}
	}
}

// What the engine says of a runtime or a network that it does not have names
// the setting, and what it says of all else does not.
func TestNameSetting(t *testing.T) {
	const (
		badRuntime = `PYTHON_EXECUTOR_DOCKER_RUNTIME is "runsc": must be a runtime that the engine has (docker info lists them): `
		badGvisor  = `PYTHON_EXECUTOR_DOCKER_RUNTIME is "gvisor": must be a runtime that the engine has (docker info lists them): `
		badNetwork = `PYTHON_EXECUTOR_DOCKER_NETWORK is "zz": must be a network that the engine has (docker network ls lists them): `
	)
	for _, test := range []struct{ runtime, network, cause, want string }{
		{"runsc", "none", "create: Error response from daemon: Unknown runtime specified runsc", badRuntime},
		{"runsc", "none", "create: Error response from daemon: unknown or invalid runtime name: runsc", badRuntime},
		{"runsc", "none", `start: OCI runtime create failed: exec: "runsc": executable file not found in $PATH: unknown`, badRuntime},
		{"", "none", "start: OCI runtime create failed: no space left on device", ""},
		{"", "zz", "start: Error response from daemon: network zz not found", badNetwork},
		{"", "zz", "start: Error response from daemon: failed to set up container networking: network zz not found", badNetwork},
		{"runsc", "none", `start: OCI runtime create failed: exec: "/usr/bin/runsc": stat /usr/bin/runsc: no such file or directory: unknown`, badRuntime},
		{"runsc", "none", `start: OCI runtime create failed: exec: "python3": executable file not found in $PATH: unknown`, ""},
		{"gvisor", "none", `start: OCI runtime create failed: fork/exec /usr/local/bin/runsc: no such file or directory`, badGvisor},
		{"gvisor", "none", `start: runtime "io.containerd.runsc.v1" binary not installed "containerd-shim-runsc-v1": file does not exist`, badGvisor},
		{"runsc", "zz", "start: no space left on device", ""},
		{"runsc", "none", "start: OCI runtime create failed: creating container: waiting for sandbox to start: EOF: unknown", ""},
	} {
		c := defaults(t)
		c.Runtime, c.Network = test.runtime, test.network
		cause := errors.New(test.cause)
		if err := nameSetting(c, cause); err.Error() != test.want+test.cause || !errors.Is(err, cause) {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if err := nameSetting(defaults(t), nil); err != nil {
		t.Error(err)
	}
}

// The object store's library names neither what to set nor where.
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
