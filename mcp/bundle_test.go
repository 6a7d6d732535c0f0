package mcp_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// manifest is what the tests need of the bundle's manifest.
type manifest struct {
	Version, Description string
	Server               struct {
		Config struct{ Env map[string]string } `json:"mcp_config"`
	}
	UserConfig map[string]struct{ Default any } `json:"user_config"`
	Tools      []struct{ Name string }
}

func readManifest(t *testing.T) (m manifest) {
	t.Helper()
	readJSON(t, "../mcpb/manifest.json", &m)
	return m
}

// The manifest is of the version that the registry is told, and lists the tools.
func TestManifestAgrees(t *testing.T) {
	m := readManifest(t)
	var entry registered
	readJSON(t, registryEntry, &entry)
	if m.Version != entry.Version || m.Description != entry.Description {
		t.Errorf("the bundle is %s, %q; the entry %s, %q", m.Version, m.Description, entry.Version, entry.Description)
	}
	var names []string
	for _, tool := range m.Tools {
		names = append(names, tool.Name)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(listed(t))), names); diff != "" {
		t.Errorf("the manifest's tools differ (-server +manifest):\n%s", diff)
	}
}

// The settings that a bundle's host asks for are ours, with our defaults. All
// have one: else the host might leave the reference as it is.
func TestManifestSettings(t *testing.T) {
	m := readManifest(t)
	reference := regexp.MustCompile(`^\$\{user_config\.(\w+)\}$`)
	for name, value := range m.Server.Config.Env {
		key := reference.FindStringSubmatch(value)
		if key == nil {
			t.Fatalf("%s is %q", name, value)
		}
		checkDefault(t, name, fmt.Sprint(m.UserConfig[key[1]].Default))
	}
}
