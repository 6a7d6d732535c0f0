package mcp

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp/render"
)

// facts describe the sandbox as seen from inside.
type facts struct {
	python   string // version
	packages []pythonPackage
}

type pythonPackage struct{ name, version string }

// inventory is the program that finds the facts. It prints Python's version, then one package
// on each line.
const inventory = `import sys
from importlib import metadata
print(sys.version.split()[0])
for package in metadata.distributions():
    print(package.metadata["Name"], package.version)
`

// inventoryTime bounds the program, which runs once.
const inventoryTime = 20 * time.Second

// Prepared must be called when sandboxes are available, or with the reason why they are not
// yet, as often as that changes. It collects the facts for the tools' descriptions. With
// [Options.AwaitPrepared], the first list of tools waits a moment for it.
func (s *Server) Prepared(ctx context.Context, err error) {
	defer s.settle()
	if err != nil {
		return
	}
	found, err := s.findFacts(ctx)
	if err != nil {
		s.opts.Log.WarnContext(ctx, "listing the sandbox's Python packages failed; the tools are described without them", "error", err)
		return
	}
	s.facts.Store(found)
	if s.listed.Swap(false) { // without the facts
		s.server.SendNotificationToAllClients("notifications/tools/list_changed", nil)
	}
}

func (s *Server) findFacts(ctx context.Context) (*facts, error) {
	result, err := s.opts.Executor.Execute(ctx, execution.Request{
		Code: inventory, Timeout: min(inventoryTime, s.opts.Limits.MaxTimeout),
	})
	if err != nil {
		return nil, err
	}
	return parseInventory(result)
}

// parseInventory parses the output of the inventory. It comes from a sandbox and goes to a
// model, so only names and versions are accepted.
func parseInventory(result *execution.Result) (*facts, error) {
	lines := strings.Split(strings.TrimSpace(result.Stdout), "\n")
	version := regexp.MustCompile(`^[\w.+~-]{1,32}$`)
	if result.Failed() || !version.MatchString(lines[0]) {
		return nil, fmt.Errorf("the inventory ended with %v: %.200q", result.End, result.Stdout+result.Stderr)
	}
	name := regexp.MustCompile(`^[A-Za-z0-9][\w.-]{0,63}$`)
	found := &facts{python: lines[0]}
	for _, line := range lines[1:] {
		p, v, _ := strings.Cut(line, " ")
		if name.MatchString(p) && version.MatchString(v) {
			found.packages = append(found.packages, pythonPackage{p, v})
		}
	}
	slices.SortFunc(found.packages, func(a, b pythonPackage) int {
		return cmp.Or(cmp.Compare(rank(a.name), rank(b.name)), cmp.Compare(strings.ToLower(a.name), strings.ToLower(b.name)))
	})
	found.packages = slices.Compact(found.packages)
	return found, nil
}

// rank orders packages by how useful they are for a model. Those that are not listed come
// last: most are only dependencies of others.
func rank(name string) int {
	known := []string{
		"numpy", "pandas", "scipy", "matplotlib", "seaborn", "scikit-learn", "statsmodels", "sympy", "networkx", "pillow",
		"openpyxl", "xlsxwriter", "python-docx", "pypdf", "fpdf2", "lxml", "beautifulsoup4", "pyyaml", "requests", "pyarrow", "polars",
		"plotly", "torch", "tensorflow",
	}
	if i := slices.Index(known, strings.ToLower(strings.ReplaceAll(name, "_", "-"))); i >= 0 {
		return i
	}
	return len(known)
}

// packageBytes bounds the list of packages in a description.
const packageBytes = 450

// describe returns the sentence about Python and its packages.
func (f *facts) describe() string {
	if f == nil {
		return "Python 3 with its standard library; print(help('modules')) lists what else is available."
	}
	var listed []string
	size := 0
	for _, p := range f.packages {
		text := p.name + " " + p.version
		if size += len(text) + 2; size > packageBytes {
			break
		}
		listed = append(listed, text)
	}
	text := "Python " + f.python
	if len(listed) > 0 {
		text += " with " + strings.Join(listed, ", ")
	}
	if more := len(f.packages) - len(listed); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + "."
}

// describePython returns the description of execute_python.
func (s *Server) describePython() string {
	limits, settings := s.opts.Limits, s.opts.Settings
	return strings.Join([]string{
		"Runs a Python program in " + s.describeSandbox() + " and returns what it prints. Print what you want to see; the value of the last line is shown too, as in a notebook.",
		fmt.Sprintf("Without session, every call starts in a fresh sandbox: variables, imports and files of earlier calls are gone. "+
			"With session=\"new\" they are kept for %s, for calls that pass the session's name, which the answer contains.", render.Duration(s.opts.SessionTTL)),
		fmt.Sprintf("Files that the program writes to its working directory, /workspace, are returned, at most %d of %d MB in all; files elsewhere, such as in /tmp, are not. "+
			"Pictures are shown, and so are figures that are shown or left open: call plt.close() after savefig. "+
			"Other files are linked, each with a file_id that a later call can pass in files. They are kept for %s.",
			limits.ResultFiles, limits.ResultBytes>>20, render.Duration(s.opts.FileTTL)),
		describeNetwork(settings.Network),
		fmt.Sprintf("Limits: timeout_ms at most %d (%d if not given),%s %d MB of memory, %d MB of files, %s bytes of output shown.",
			limits.MaxTimeout.Milliseconds(), s.defaultTimeout().Milliseconds(), describeCPUTime(limits.CPUTime),
			settings.MemoryBytes>>20, settings.WorkspaceBytes>>20, render.Grouped(int64(s.opts.OutputBytes))),
		s.facts.Load().describe(),
	}, "\n")
}

// describeCPUTime returns the limit on a program's CPU time, or "" if it follows timeout_ms.
func describeCPUTime(limit time.Duration) string {
	if limit == 0 {
		return ""
	}
	return fmt.Sprintf(" %d s of CPU time,", limit/time.Second)
}

// describeSandbox returns where programs run, in a few words.
func (s *Server) describeSandbox() string {
	backend := ""
	if s.opts.Backend != nil {
		backend = s.opts.Backend()
	}
	switch backend {
	case "docker":
		return "an isolated sandbox, a container,"
	case "local":
		return "an isolated sandbox on the server's own machine, with that machine's Python,"
	}
	return "an isolated sandbox"
}

// describeBash returns the description of run_bash.
func (s *Server) describeBash() string {
	return strings.Join([]string{
		"Runs a command with bash in a session's sandbox, in its working directory, /workspace. Files and background processes persist between calls; shell variables and the current folder do not.",
		describeNetwork(s.opts.Settings.Network),
		fmt.Sprintf("Limits: timeout_ms at most %d (%d if not given); CPU time of each process, memory and files as for execute_python.",
			s.opts.Limits.MaxTimeout.Milliseconds(), s.defaultTimeout().Milliseconds()),
	}, "\n")
}

func describeNetwork(network string) string {
	if network == "none" {
		return "There is no network: nothing can be downloaded or installed."
	}
	return "There is a network."
}
