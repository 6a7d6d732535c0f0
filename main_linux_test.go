package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/local/inside"
)

// A process that is to become a sandbox does so before the server's libraries are
// initialized, which takes longer than all that it does itself.
func TestSandboxesDoNotInitializeTheServer(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	trace := func(name string) string {
		var stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), binary)
		cmd.Args = []string{name, "-test.run=^$"}
		cmd.Env = []string{"GODEBUG=inittrace=1"} // runtime: a line for each package
		cmd.Stderr = &stderr
		_ = cmd.Run() // without a plan no sandbox is made
		return stderr.String()
	}
	for _, library := range []string{"init github.com/santhosh-tekuri/jsonschema/", "init github.com/danielgtaylor/huma/v2 ", "init github.com/aws/aws-sdk-go-v2/service/s3"} {
		if !strings.Contains(trace("vivarium"), library) {
			t.Errorf("the server does not have %q: name another library", library)
		}
		if strings.Contains(trace(inside.Name), library) {
			t.Errorf("a sandbox has %q", library)
		}
	}
}
