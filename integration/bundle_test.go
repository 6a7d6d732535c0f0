package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The bundle is packed and unpacked with the official tool, and started as that
// would start it: it is the server, with the tools that its manifest lists.
func TestBundle(t *testing.T) {
	packed, unpacked := t.TempDir(), t.TempDir()
	output(t, exec.CommandContext(t.Context(), "../scripts/mcpb.sh", buildStatic(t, ".."), packed))
	bundle := filepath.Join(packed, "vivarium.mcpb")
	output(t, node(t.Context(), filepath.Join(nodeModules, "@anthropic-ai/mcpb/dist/cli/cli.js"), "unpack", bundle, unpacked))

	var server documented
	started := output(t, node(t.Context(), "clients/bundle.mjs", unpacked))
	if err := json.Unmarshal(started, &server); err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(unpacked, "server/vivarium"); server.Command != want {
		t.Errorf("it starts %s, not %s", server.Command, want)
	}
	c := startBare(t, server.Command, server.Args, server.Env)
	useServer(t, c)

	var manifest struct{ Tools []struct{ Name string } }
	if err := json.Unmarshal([]byte(readText(t, filepath.Join(unpacked, "manifest.json"))), &manifest); err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, tool := range manifest.Tools {
		listed = append(listed, tool.Name)
	}
	if diff := cmp.Diff(listed, toolNames(t, c)); diff != "" {
		t.Errorf("the tools differ (-manifest +server):\n%s", diff)
	}
	checkPublishable(t, filepath.Join(packed, "server.json"), bundle)
}

// checkPublishable asserts that an entry for the registry has a bundle's hash,
// and is valid with it.
func checkPublishable(t *testing.T, path, bundle string) {
	t.Helper()
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	hashes := 0
	for _, pkg := range readRegistryEntry(t, path).Packages {
		if pkg.RegistryType == "mcpb" && pkg.FileSHA256 == hex.EncodeToString(sum[:]) {
			hashes++
		}
	}
	if hashes != 1 {
		t.Errorf("the bundle's hash is there %d times", hashes)
	}
	schema, err := jsonschema.NewCompiler().Compile("../mcp/testdata/registry/server.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var entry any
	if err := json.Unmarshal([]byte(readText(t, path)), &entry); err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(entry); err != nil {
		t.Error(err)
	}
}

// output runs a command that must succeed, and gives what it printed.
func output(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if failed, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output returns it unwrapped
			stderr = string(failed.Stderr)
		}
		t.Fatalf("%v: %v\n%s\n%s (go tool task setup-node)", cmd.Args, err, out, stderr)
	}
	return out
}
