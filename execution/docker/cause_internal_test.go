package docker

import (
	"errors"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// The engine's texts about a runtime or a network that it does not have give a
// cause, and its other texts give none.
func TestStartCause(t *testing.T) {
	for _, test := range []struct {
		runtime, network, cause string
		want                    execution.Cause
	}{
		{"runsc", "none", "create: Error response from daemon: Unknown runtime specified runsc", execution.RuntimeMissing},
		{"runsc", "none", "create: Error response from daemon: unknown or invalid runtime name: runsc", execution.RuntimeMissing},
		{"runsc", "none", `start: OCI runtime create failed: exec: "runsc": executable file not found in $PATH: unknown`, execution.RuntimeMissing},
		{"", "none", "start: OCI runtime create failed: no space left on device", ""},
		{"", "zz", "start: Error response from daemon: network zz not found", execution.NetworkMissing},
		{"", "zz", "start: Error response from daemon: failed to set up container networking: network zz not found", execution.NetworkMissing},
		{"runsc", "none", `start: OCI runtime create failed: exec: "/usr/bin/runsc": stat /usr/bin/runsc: no such file or directory: unknown`, execution.RuntimeMissing},
		{"runsc", "none", `start: OCI runtime create failed: exec: "python3": executable file not found in $PATH: unknown`, ""},
		{"gvisor", "none", `start: OCI runtime create failed: fork/exec /usr/local/bin/runsc: no such file or directory`, execution.RuntimeMissing},
		{"gvisor", "none", `start: runtime "io.containerd.runsc.v1" binary not installed "containerd-shim-runsc-v1": file does not exist`, execution.RuntimeMissing},
		{"runsc", "zz", "start: no space left on device", ""},
		{"runsc", "none", "start: OCI runtime create failed: creating container: waiting for sandbox to start: EOF: unknown", ""},
	} {
		spec := execution.Spec{Settings: execution.Settings{Runtime: test.runtime, Network: test.network}}
		if got := startCause(spec, errors.New(test.cause)); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}
