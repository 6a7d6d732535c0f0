package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// .golangci.yml says of each package which others it may import. main and cli
// connect everything, and need no rule.
func TestEveryPackageHasAnImportRule(t *testing.T) {
	linter, err := os.ReadFile(".golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	packages := make(map[string]bool)
	err = filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && (name[0] == '.' || slices.Contains([]string{"tools", "testdata", "integration", "node_modules"}, name)):
			return filepath.SkipDir
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			packages[filepath.ToSlash(filepath.Dir(path))] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(packages, ".")
	delete(packages, "cli")
	if len(packages) < 15 {
		t.Errorf("only %d packages were found", len(packages))
	}
	for folder := range packages {
		if !strings.Contains(string(linter), `files: ["**/`+folder+`/*.go"`) && !strings.Contains(string(linter), `, "**/`+folder+`/*.go"`) {
			t.Errorf("no rule of depguard is for %s", folder)
		}
	}
}
