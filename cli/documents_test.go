package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/hardening"
)

// The server's image has a user of its own, so that the server and sandboxes share no
// per-user limit of the kernel.
func TestServerImageUser(t *testing.T) {
	recipe, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	user := regexp.MustCompile(`(?m)^USER (\d+):(\d+)$`).FindStringSubmatch(string(recipe))
	if user == nil || user[1] != user[2] || user[1] == "0" || user[1] == strconv.Itoa(hardening.User) {
		t.Fatalf("the user is %q", user)
	}
	if owner := regexp.MustCompile(`(?m)^COPY --chown=(\S+) \S+ /files/$`).FindStringSubmatch(string(recipe)); owner == nil || owner[1] != user[1]+":"+user[1] {
		t.Errorf("/files belongs to %q, and the server is %q", owner, user)
	}
}

// No document puts a secret into the arguments of a container, where all users of a
// machine can see it.
func TestDocumentsKeepSecretsOutOfArguments(t *testing.T) {
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil || len(documents) == 0 {
		t.Fatalf("the documents are %q (%v)", documents, err)
	}
	secret := regexp.MustCompile(`(?:-e|--env)[ =",]+(?:API_KEYS|\w*(?:SECRET|TOKEN|PASSWORD)\w*)=\S*`)
	for _, document := range append(documents, "../README.md", "../server.json", "../mcpb/manifest.json") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range secret.FindAllString(string(text), -1) {
			t.Errorf("%s: %s", document, found)
		}
	}
}
