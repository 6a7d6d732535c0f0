package integration

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"
)

// The doctor needs no rights but a server's, and finds out which ones the account has.
func TestKubernetesDoctor(t *testing.T) {
	f := newFaultyCluster(t)
	for name, test := range map[string]struct {
		env  []string
		code int
		says []string
	}{
		"a server": {[]string{f.as(release() + "-vivarium")}, 0, []string{
			"ok       Kubernetes v1.", "ok       this account has the rights that a server needs in the namespace \"" + sandboxNamespace() + "\", and no others there",
			"ok       the template of Deployment", "of 3 blank pods are ready", "ok       node vivarium (Linux ", "open     sandboxes share users with their node",
			"ok       a sandbox can serve many runs",
		}},
		"an administrator": {nil, 0, []string{"open     this account may do more in the namespace \"" + sandboxNamespace() + "\" than a server needs: everything"}},
		"a stranger": {[]string{f.as("stranger")}, 1, []string{
			"missing  this account may not create leases.coordination.k8s.io, ", "patch pods, ", "give it the Role of Vivarium's chart",
			"missing  Kubernetes does not allow this server to get deployments",
		}},
		"no cluster":   {[]string{f.elsewhere()}, 1, []string{"missing  Kubernetes does not answer at https://127.0.0.1:1"}},
		"other limits": {[]string{"CPU_LIMIT=2"}, 1, []string{"missing  the template of Deployment", "limits.cpu of container \"sandbox\" is 1: must be 2 (CPU_LIMIT)"}},
	} {
		t.Run(name, func(t *testing.T) {
			doctor := exec.CommandContext(t.Context(), shared.binary, "doctor")
			doctor.Env = slices.Concat(os.Environ(), with(slimImage), smallLimits(), test.env)
			out, err := doctor.Output()
			code := 0
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != test.code {
				t.Errorf("exit code %d", code)
			}
			wantSentence(t, string(out), test.says)
		})
	}
}
