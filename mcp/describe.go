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

// facts are what is known of the sandbox from inside it.
type facts struct {
	python   string // version
	packages []pythonPackage
}

type pythonPackage struct{ name, version string }

// inventory is the program that tells the facts. It prints Python's version,
// then a package a line.
const inventory = `import sys
from importlib import metadata
print(sys.version.split()[0])
for package in metadata.distributions():
    print(package.metadata["Name"], package.version)
`

// inventoryTime is more than the program takes; it runs once.
const inventoryTime = 20 * time.Second

// Prepared is called when sandboxes can be had, or with why not, as often as that
// is tried: it learns what the tools' descriptions say of the sandbox. With
// [Options.AwaitPrepared], the first list of tools waits a moment for it.
func (s *Server) Prepared(ctx context.Context, err error) {
	defer s.settle()
	if err != nil {
		return
	}
	learned, err := s.learn(ctx)
	if err != nil {
		s.opts.Log.WarnContext(ctx, "what Python packages there are could not be found out; models are not told", "error", err)
		return
	}
	s.facts.Store(learned)
	if s.listed.Swap(false) { // without them
		s.server.SendNotificationToAllClients("notifications/tools/list_changed", nil)
	}
}

func (s *Server) learn(ctx context.Context) (*facts, error) {
	result, err := s.opts.Executor.Execute(ctx, execution.Request{
		Code: inventory, Timeout: min(inventoryTime, s.opts.Limits.MaxTimeout),
	})
	if err != nil {
		return nil, err
	}
	return parseInventory(result)
}

// parseInventory reads what the inventory printed. It comes from a sandbox and
// goes to a model: nothing but names and versions passes.
func parseInventory(result *execution.Result) (*facts, error) {
	lines := strings.Split(strings.TrimSpace(result.Stdout), "\n")
	version := regexp.MustCompile(`^[\w.+~-]{1,32}$`)
	if result.Failed() || !version.MatchString(lines[0]) {
		return nil, fmt.Errorf("the inventory ended with %v: %.200q", result.End, result.Stdout+result.Stderr)
	}
	name := regexp.MustCompile(`^[A-Za-z0-9][\w.-]{0,63}$`)
	learned := &facts{python: lines[0]}
	for _, line := range lines[1:] {
		p, v, _ := strings.Cut(line, " ")
		if name.MatchString(p) && version.MatchString(v) {
			learned.packages = append(learned.packages, pythonPackage{p, v})
		}
	}
	slices.SortFunc(learned.packages, func(a, b pythonPackage) int {
		return cmp.Or(cmp.Compare(rank(a.name), rank(b.name)), cmp.Compare(strings.ToLower(a.name), strings.ToLower(b.name)))
	})
	learned.packages = slices.Compact(learned.packages)
	return learned, nil
}

// rank orders packages by how much it matters to a model that they are there.
// What stands in no list comes last: mostly what others need.
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

// packageBytes is how much of a description may be a list of packages.
const packageBytes = 450

// describePython is the sentence about Python and its packages.
func (f *facts) describe() string {
	if f == nil {
		return "Python 3 with its standard library; print(help('modules')) lists what else there is."
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

// describePython is the description of execute_python.
func (s *Server) describePython() string {
	limits, settings := s.opts.Limits, s.opts.Settings
	return strings.Join([]string{
		"Runs a Python program in " + s.describeSandbox() + " and returns what it prints. Print what you want to see; the value of the last line is shown too, as in a notebook.",
		fmt.Sprintf("Without session, every call starts afresh: variables, imports and files of earlier calls are gone. "+
			"With session=\"new\" they are kept for later calls that pass the session which the answer names, for %s.", render.Duration(s.opts.SessionTTL)),
		fmt.Sprintf("Files that the program writes to its working directory, /workspace, come back, at most %d of %d MB in all; what is elsewhere, such as in /tmp, does not. "+
			"Pictures are shown, as are figures that are shown or left open: plt.close() after savefig. "+
			"Others are linked, each with a file_id to pass in files of a later call. They are kept for %s.",
			limits.ResultFiles, limits.ResultBytes>>20, render.Duration(s.opts.FileTTL)),
		describeNetwork(settings.Network),
		fmt.Sprintf("Limits: timeout_ms at most %d (%d if not given), %d s of CPU time, %d MB of memory, %d MB of files, %s bytes of output shown.",
			limits.MaxTimeout.Milliseconds(), s.defaultTimeout().Milliseconds(), limits.CPUTime/time.Second,
			settings.MemoryBytes>>20, settings.WorkspaceBytes>>20, render.Grouped(int64(s.opts.OutputBytes))),
		s.facts.Load().describe(),
	}, "\n")
}

// describeSandbox says in a few words where programs run.
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

// describeBash is the description of run_bash.
func (s *Server) describeBash() string {
	return strings.Join([]string{
		"Runs a command with bash in a session's sandbox, in its working directory, /workspace. Files stay, and so does what it starts in the background; variables and the current folder do not.",
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
