package supervisor_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// mayImport lists, for each group of modules, the groups that it may import. This is the
// boundary between the processes of a sandbox: what PID 1 has read must not be in the memory
// of a program, nor in that of the zygote, of which all programs are copies.
var mayImport = map[string][]string{
	"shared":  {"shared"},
	"program": {"shared", "program"},
	"zygote":  {"shared", "program", "zygote"},
	"pid1":    {"shared", "program", "zygote", "pid1"},
	"session": {"shared", "program", "pid1", "session"},
}

var importLine = regexp.MustCompile(`(?m)^\s*(?:from (\w+) import|import (\w+))`)

func TestBoundary(t *testing.T) {
	groupOf := make(map[string]string)
	files, err := filepath.Glob("*/*.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		group, name := filepath.Split(strings.TrimSuffix(file, ".py"))
		groupOf[name] = strings.TrimSuffix(group, "/")
	}
	found := make(map[string]bool)
	for _, file := range files {
		group := filepath.Dir(file)
		if group == "tests" {
			continue
		}
		allowed, known := mayImport[group]
		if !known {
			t.Errorf("%s is in a group that mayImport does not list", file)
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range importLine.FindAllStringSubmatch(string(source), -1) {
			imported := match[1] + match[2]
			from, ours := groupOf[imported]
			found[group] = found[group] || ours
			if ours && !slices.Contains(allowed, from) {
				t.Errorf("%s imports %s, a module of %s; it may import modules of %q", file, imported, from, allowed)
			}
		}
	}
	for group := range mayImport {
		if group != "shared" && !found[group] {
			t.Errorf("no module of %s imports any of our modules: does the pattern still match?", group)
		}
	}
}

// No module is so long that a reader loses the thread.
func TestLengths(t *testing.T) {
	const most = 400
	files, err := filepath.Glob("*/*.py")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(source), "\n"); lines > most {
			t.Errorf("%s has %d lines; at most %d", file, lines, most)
		}
	}
}

// A module that is loaded at the start imports those that are loaded later as a whole: to
// import a name of one loads it.
func TestLaterModules(t *testing.T) {
	command, err := supervisor.NewCommand()
	if err != nil {
		t.Fatal(err)
	}
	line := command.Line(execution.Spec{Settings: execution.Settings{Isolation: execution.IsolationSession}})
	later := strings.Fields(unpacked(t, line)[0])
	files, err := filepath.Glob("*/*.py")
	if err != nil {
		t.Fatal(err)
	}
	named, whole := regexp.MustCompile(`(?m)^from (\w+) import`), regexp.MustCompile(`(?m)^import (\w+)$`)
	imported := make(map[string]bool)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(later, strings.TrimSuffix(filepath.Base(file), ".py")) || filepath.Dir(file) == "tests" {
			continue
		}
		for _, match := range named.FindAllStringSubmatch(string(source), -1) {
			if slices.Contains(later, match[1]) {
				t.Errorf("%s is loaded at the start, and so is %s, because it imports a name of it", file, match[1])
			}
		}
		for _, match := range whole.FindAllStringSubmatch(string(source), -1) {
			imported[match[1]] = true
		}
	}
	for _, name := range later {
		if !imported[name] && name != "timing" && name != "capture" { // shell, which is loaded later itself, imports them
			t.Errorf("nothing imports %s as a whole", name)
		}
	}
}
