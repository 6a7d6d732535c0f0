// Command prose checks the English of this repository. It reports constructions that
// a newcomer reads slowly, with file, line and reason, and documents whose sentences
// are too long. It reads comments and string literals of Go and Python, and Markdown.
//
//	prose [folder]
package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxAverage is how many words the sentences of a document may have on average.
const maxAverage = 22

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	found, err := check(root, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "prose:", err)
		os.Exit(2)
	}
	if found > 0 {
		fmt.Fprintf(os.Stderr, "prose: %d findings\n", found)
		os.Exit(1)
	}
}

// check checks all files below a folder, prints the findings and counts them.
func check(root string, out io.Writer) (findings int, err error) {
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error { //nolint:gosec // G703: the user names the folder
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if entry.IsDir() {
			if isSkipped(filepath.ToSlash(name)) {
				return filepath.SkipDir
			}
			return nil
		}
		for _, line := range checkFile(path) {
			findings++
			if _, err := fmt.Fprintf(out, "%s:%s\n", filepath.ToSlash(name), line); err != nil {
				return err
			}
		}
		return nil
	})
	return findings, err
}

// isSkipped reports whether a folder holds no prose of the product.
func isSkipped(folder string) bool {
	if folder != "." && strings.HasPrefix(filepath.Base(folder), ".") {
		return true
	}
	return slices.Contains([]string{"bin", "integration", "node_modules", "testdata", "tests", "tools"}, filepath.Base(folder))
}

// checkFile returns the findings in one file, each as "LINE: text".
func checkFile(path string) []string {
	name := filepath.Base(path)
	var read func(string) []passage
	switch {
	case strings.HasSuffix(name, "_test.go"), strings.HasPrefix(name, "test_"):
		return nil
	case strings.HasSuffix(name, ".go"):
		read = goPassages
	case strings.HasSuffix(name, ".py"):
		read = pythonPassages
	case strings.HasSuffix(name, ".md"), name == "settings.txt":
		read = paragraphs
	default:
		return nil
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return []string{"1: " + err.Error()}
	}
	var lines []string
	passages := read(string(source))
	for _, p := range passages {
		lines = append(lines, p.findings()...)
	}
	if strings.HasSuffix(name, ".md") {
		if average := averageWords(passages); average > maxAverage {
			lines = append(lines, fmt.Sprintf("1: sentences have %.1f words on average: at most %d", average, maxAverage))
		}
	}
	return lines
}
