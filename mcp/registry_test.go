package mcp_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/vivarium-sandbox/vivarium/config"
)

const (
	registryEntry  = "../server.json" // for the MCP registry
	registrySchema = "testdata/registry/server.schema.json"
)

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// schema compiles the registry's schema.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	compiled, err := compiler.Compile(registrySchema)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// The registry's entry is what its schema asks for, of the version that it names.
func TestRegistryEntryIsValid(t *testing.T) {
	var entry map[string]any
	readJSON(t, registryEntry, &entry)
	if err := schema(t).Validate(entry); err != nil {
		t.Error(err)
	}
	var published struct {
		ID string `json:"$id"`
	}
	readJSON(t, registrySchema, &published)
	if entry["$schema"] != published.ID {
		t.Errorf("it is for %v, the schema is %s", entry["$schema"], published.ID)
	}
}

// What is wrong is found, or the test above shows nothing.
func TestRegistrySchemaFindsFaults(t *testing.T) {
	for name, spoil := range map[string]func(entry map[string]any){
		"no name":            func(entry map[string]any) { delete(entry, "name") },
		"a name without /":   func(entry map[string]any) { entry["name"] = "vivarium" },
		"a long description": func(entry map[string]any) { entry["description"] = strings.Repeat("x", 101) },
		"a package without transport": func(entry map[string]any) {
			delete(entry["packages"].([]any)[0].(map[string]any), "transport")
		},
		"a hash that is none": func(entry map[string]any) {
			entry["packages"].([]any)[1].(map[string]any)["fileSha256"] = "abc"
		},
		"an address that is none": func(entry map[string]any) {
			entry["repository"].(map[string]any)["url"] = "not a URL"
		},
	} {
		t.Run(name, func(t *testing.T) {
			var entry map[string]any
			readJSON(t, registryEntry, &entry)
			spoil(entry)
			if err := schema(t).Validate(entry); err == nil {
				t.Error("nothing is found")
			}
		})
	}
}

// registered is what the tests need of the entry.
type registered struct {
	Name, Version, Description string
	Packages                   []struct {
		RegistryType, Identifier, Version string
		EnvironmentVariables              []struct{ Name, Default string }
	}
}

// The entry's packages are of its version, and the image says whose it is.
func TestRegistryEntryAgrees(t *testing.T) {
	var entry registered
	readJSON(t, registryEntry, &entry)
	for _, pkg := range entry.Packages {
		if !strings.Contains(pkg.Identifier, entry.Version) || pkg.Version != "" && pkg.Version != entry.Version {
			t.Errorf("%s: %s %s is not of version %s", pkg.RegistryType, pkg.Identifier, pkg.Version, entry.Version)
		}
		for _, variable := range pkg.EnvironmentVariables {
			checkDefault(t, variable.Name, variable.Default)
		}
	}
	dockerfile, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if label := fmt.Sprintf("LABEL io.modelcontextprotocol.server.name=%q\n", entry.Name); !strings.Contains(string(dockerfile), label) {
		t.Errorf("the image does not say that it is the entry's: %s", label)
	}
}

// checkDefault holds a setting's default against what is published of it.
func checkDefault(t *testing.T, name, published string) {
	t.Helper()
	for _, setting := range config.Settings() {
		if setting.Name == name {
			if setting.Default != published {
				t.Errorf("%s is %q by default, not %q", name, setting.Default, published)
			}
			return
		}
	}
	t.Errorf("there is no setting %s", name)
}
