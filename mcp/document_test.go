package mcp_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// listed are the server's tools and their arguments.
func listed(t *testing.T) map[string][]string {
	t.Helper()
	var list struct {
		Tools []struct {
			Name        string
			InputSchema struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(connect(t, options(nil)).request("tools/list", `{}`).Result, &list); err != nil {
		t.Fatal(err)
	}
	tools := make(map[string][]string)
	for _, tool := range list.Tools {
		tools[tool.Name] = slices.Sorted(maps.Keys(tool.InputSchema.Properties))
	}
	return tools
}

// The document's table has every tool with every argument, and no other.
func TestDocumentListsTools(t *testing.T) {
	text, err := os.ReadFile("../docs/mcp.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## Tools\n")
	table, _, _ = strings.Cut(table, "\n## ")
	documented := make(map[string][]string)
	argument := regexp.MustCompile("`(\\w+)`")
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]*) \\|").FindAllStringSubmatch(table, -1) {
		for _, name := range argument.FindAllStringSubmatch(row[2], -1) {
			documented[row[1]] = append(documented[row[1]], name[1])
		}
		slices.Sort(documented[row[1]])
	}
	if diff := cmp.Diff(listed(t), documented); diff != "" {
		t.Errorf("the table of tools differs (-server +document):\n%s", diff)
	}
}
