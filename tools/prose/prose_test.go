package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each construction is found, across lines too, and plain English is not.
func TestRules(t *testing.T) {
	for text, want := range map[string]int{
		"It has sessions of others be unknown.":      1,
		"It has to be set.":                          0,
		"It is no image reference.":                  1,
		"There is no image, and it is no longer set": 0,
		"the image is not to be had":                 1,
		"all but\nfor one":                           1,
		"for want of cgroups":                        1,
		"as many sessions as there may be":           1,
		"as much memory as the limit":                0,
		"takes the zygote for one":                   1,
		"it takes time for a reply":                  0,
		"nobody may write":                           1,
		"whoever has the key":                        1,
		"a supervisor that hears nothing":            1,
		"it says whether it runs":                    1,
		"clients are told":                           1,
		"the program's own word":                     1,
		"reports whether the sandbox is available":   0,
	} {
		if found := (passage{text: text, line: 1}).findings(); len(found) != want {
			t.Errorf("%q: %q", text, found)
		}
	}
}

func TestDocRules(t *testing.T) {
	for text, want := range map[string]int{"Size gives the size.": 1, "Size says nothing.": 1, "Size returns what it gives.": 0} {
		if found := (passage{text: text, line: 1, isDoc: true}).findings(); len(found) != want {
			t.Errorf("%q: %q", text, found)
		}
	}
}

// Findings have the line of the match. Code is not read.
func TestLines(t *testing.T) {
	for name, test := range map[string]struct {
		file, source string
		want         []string
	}{
		"Go":           {"a.go", "package a\n\n// A is.\n// One but\n// for two.\nvar nobody = 1 // whoever\n\nvar s = \"to be had\"\n", []string{"4", "6", "8"}},
		"Python":       {"a.py", "# one but\n# for two\nnobody = 1\ns = 'x \\' is no y' # and\n\"\"\"A\nwhoever \"\"\"\n", []string{"1", "4", "6"}},
		"Markdown":     {"a.md", "# Nobody\n\ntext but\nfor\n\n    whoever\n\n```\nnobody\n```\n\n- whoever\n", []string{"1", "3", "12"}},
		"a test":       {"a_test.go", "package a\n\n// nobody\n", nil},
		"another file": {"a.json", "nobody", nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), test.file)
			if err := os.WriteFile(path, []byte(test.source), 0o600); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range checkFile(path) {
				number, _, _ := strings.Cut(line, ":")
				got = append(got, number)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, not %v: %q", got, test.want, checkFile(path))
			}
		})
	}
}

func TestAverageWords(t *testing.T) {
	text := "# A heading of no matter\n\nOne two `three four` five. Six seven!\n\n- Eight nine ten\n\n| a | table |\n"
	if average := averageWords(paragraphs(text)); fmt.Sprintf("%.2f", average) != "3.00" {
		t.Errorf("%.2f words", average)
	}
}
