package mcp_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/vivarium-sandbox/vivarium/mcp"
)

// Conversations in each revision of the protocol, to the letter:
// testdata/conversations/*.txtar. What a tool is like is in tools.json alone.
func TestConversations(t *testing.T) {
	paths, err := filepath.Glob("testdata/conversations/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%q, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) != 2 || archive.Files[0].Name != "client" || archive.Files[1].Name != "server" {
				t.Fatal("a conversation has what the client says and what the server says")
			}
			got := start(t, mcp.New(options(gives(printed("42\n"), nil)))).converse(archive.Files[0].Data)
			if *update {
				archive.Files[1].Data = got
				if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), string(got)); diff != "" {
				t.Errorf("if that is meant, run go test ./mcp -update (-want +got):\n%s", diff)
			}
		})
	}
}

// converse sends one line after the other, and returns what the server sends: an answer to each
// line that is not a notification.
func (c *client) converse(lines []byte) []byte {
	c.t.Helper()
	var said bytes.Buffer
	for line := range bytes.Lines(lines) {
		if _, err := c.in.Write(line); err != nil {
			c.t.Fatal(err)
		}
		var request struct{ ID any }
		if json.Unmarshal(line, &request) == nil && request.ID == nil {
			continue
		}
		for answered := false; !answered; {
			if !c.out.Scan() {
				c.t.Fatalf("the server said nothing more: %v", c.out.Err())
			}
			var m map[string]any
			if err := json.Unmarshal(c.out.Bytes(), &m); err != nil {
				c.t.Fatalf("no message of the protocol: %s (%v)", c.out.Bytes(), err)
			}
			answered = m["method"] == nil
			said.Write(pretty(c.t, m))
		}
	}
	return said.Bytes()
}

// pretty writes a message without the details of tools.
func pretty(t *testing.T, m map[string]any) []byte {
	t.Helper()
	result, _ := m["result"].(map[string]any)
	tools, _ := result["tools"].([]any)
	for i := range tools {
		tool, _ := tools[i].(map[string]any)
		tools[i] = map[string]any{"name": tool["name"]}
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}
