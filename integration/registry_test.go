package integration

import (
	"encoding/json"
	"strings"
	"testing"
)

// registryEntry is what the tests need of server.json.
type registryEntry struct {
	Name     string
	Packages []struct {
		RegistryType, Identifier string
		FileSHA256               string `json:"fileSha256"`
		RuntimeArguments         []registryArgument
		PackageArguments         []registryArgument
		EnvironmentVariables     []struct{ Name, Default string }
	}
}

type registryArgument struct {
	Name, Value string
	Variables   map[string]struct{ Default string }
}

// fill gives the argument with its variables' values, or their defaults.
func (a registryArgument) fill(values map[string]string) string {
	text := a.Value
	for name, variable := range a.Variables {
		value := variable.Default
		if given, ok := values[name]; ok {
			value = given
		}
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	if a.Name != "" {
		return a.Name + "=" + text
	}
	return text
}

func readRegistryEntry(t *testing.T, path string) (entry registryEntry) {
	t.Helper()
	if err := json.Unmarshal([]byte(readText(t, path)), &entry); err != nil {
		t.Fatal(err)
	}
	return entry
}

// A client that knows the server from the registry alone can start its image,
// which says itself that it is the entry's.
func TestDockerRegistryEntryStarts(t *testing.T) {
	entry := readRegistryEntry(t, "../server.json")
	pkg := entry.Packages[0]
	args := []string{"run", "-i", "--rm"}
	for _, argument := range pkg.RuntimeArguments {
		args = append(args, argument.fill(map[string]string{"group": "GROUP"}))
	}
	for _, variable := range pkg.EnvironmentVariables {
		value := variable.Default
		if variable.Name == "PYTHON_EXECUTOR_DOCKER_IMAGE" {
			value = slimImage
		}
		args = append(args, "-e", variable.Name+"="+value)
	}
	args = append(args, "vivarium/server")
	for _, argument := range pkg.PackageArguments {
		args = append(args, argument.fill(nil))
	}
	tryContainer(t, args)

	image, err := shared.engine.ImageInspect(t.Context(), serverImage(t))
	if err != nil {
		t.Fatal(err)
	}
	if label := image.Config.Labels["io.modelcontextprotocol.server.name"]; pkg.RegistryType != "oci" || label != entry.Name {
		t.Errorf("the image says that it is of %q, the entry of %s: %s", label, pkg.RegistryType, entry.Name)
	}
}
