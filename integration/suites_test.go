package integration

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// nodeModules has what scripts/node.sh installs.
const nodeModules = "clients/node_modules"

// node prepares a run of a script, with the Node.js that scripts/node.sh
// brings where there is one.
func node(ctx context.Context, script string, arguments ...string) *exec.Cmd {
	architecture := strings.ReplaceAll(runtime.GOARCH, "amd64", "x64")
	binary, err := exec.LookPath(filepath.Join(nodeModules, "node-"+runtime.GOOS+"-"+architecture, "bin", "node"))
	if err != nil {
		binary = "node"
	}
	return exec.CommandContext(ctx, binary, append([]string{script}, arguments...)...)
}

// The official conformance suites, of both eras of the protocol, run against
// `vivarium serve` with the fixtures that they call for. What is not expected
// to pass is in a list, with reasons.
func TestConformanceSuites(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "vivarium")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-race", "-tags", "conformance", "-o", binary, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := startServerBinary(t, binary, "POOL_SIZE=1")
	const expected = "--expected-failures=clients/expected-failures.yml"
	for name, suite := range map[string]struct {
		version string
		flags   []string
	}{
		"0.1":            {"0.1", []string{"--suite=all"}},
		"0.2 all":        {"0.2", []string{"--suite=all", expected}},
		"0.2 2025-11-25": {"0.2", []string{"--requirements=2025-11-25", expected}},
		"0.2 2026-07-28": {"0.2", []string{"--requirements=2026-07-28", expected}},
	} {
		t.Run(name, func(t *testing.T) {
			script := filepath.Join(nodeModules, "conformance-"+suite.version, "dist", "index.js")
			out, err := node(t.Context(), script, append([]string{"server", "--url", s.url + "/mcp"}, suite.flags...)...).CombinedOutput()
			total := regexp.MustCompile(`Total: [1-9]\d* passed, \d+ failed`).Find(out)
			if err != nil || total == nil {
				t.Fatalf("%v (go tool task setup-node)\n%s", err, out)
			}
			t.Logf("%s", total)
		})
	}
}
