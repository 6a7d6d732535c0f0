package mcp

import (
	"cmp"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// facts describe the sandbox as seen from inside.
type facts struct {
	python   string          // version
	packages []pythonPackage // by their value for a model
}

type pythonPackage struct{ name, version string }

// inventory is the program that finds the facts. It prints Python's version, then one package
// on each line, with "needed" if another package requires it. importlib.metadata would
// parse all of each package's metadata at each access: 420 ms with the data image instead of 120.
const inventory = `import re, sys
from importlib import metadata

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def header(package):
    text = package.read_text("METADATA")
    if not text: # the package has an older form
        fields = [("Requires-Dist", text) for text in package.requires or ()]
        return [("Name", package.metadata["Name"]), ("Version", package.version), *fields]
    return re.findall(r"^(Name|Version|Requires-Dist): *(\S.*)", text.partition("\n\n")[0], re.MULTILINE)

print(sys.version.split()[0])
found = [header(package) for package in metadata.distributions()]
required = [text for fields in found for name, text in fields if name == "Requires-Dist" and "extra ==" not in text]
needed = {plain(re.match(r"[\w.-]*", text)[0]) for text in required}
for fields in map(dict, found):
    if name := fields.get("Name"):
        print(name, fields.get("Version"), *["needed"] * (plain(name) in needed))
`

// inventoryTime bounds the program, which runs once.
const inventoryTime = 20 * time.Second

// knownPackages are names of packages on lines, the most useful for a model first.
//
//go:embed packages.txt
var knownPackages string

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
	rank, ranks := ranking(), make(map[pythonPackage]int)
	for _, line := range lines[1:] {
		line, needed := strings.CutSuffix(line, " needed")
		p := pythonPackage{}
		p.name, p.version, _ = strings.Cut(strings.TrimSpace(line), " ")
		if name.MatchString(p.name) && version.MatchString(p.version) {
			found.packages = append(found.packages, p)
			ranks[p] = rank(p.name, needed)
		}
	}
	slices.SortFunc(found.packages, func(a, b pythonPackage) int {
		return cmp.Or(cmp.Compare(ranks[a], ranks[b]), cmp.Compare(strings.ToLower(a.name), strings.ToLower(b.name)))
	})
	found.packages = slices.Compact(found.packages)
	return found, nil
}

// ranking returns a function that orders packages by their value for a model: the known ones, then
// others, then those that are only there because another requires them.
func ranking() func(name string, needed bool) int {
	known := strings.Fields(knownPackages)
	ranks := make(map[string]int)
	for i, name := range known {
		ranks[name] = i
	}
	separators := regexp.MustCompile("[-_.]+")
	return func(name string, needed bool) int {
		rank, isKnown := ranks[strings.ToLower(separators.ReplaceAllString(name, "-"))]
		switch {
		case isKnown:
			return rank
		case needed:
			return len(known) + 1
		default:
			return len(known)
		}
	}
}

// unknownPackages describes Python while the facts are unknown.
const unknownPackages = "Python 3 with its standard library; print(help('modules')) lists what else is available."

// describe returns the sentence about Python and its packages, in at most a number of bytes if it lists
// any.
func (f *facts) describe(most int) string {
	if f == nil {
		return unknownPackages
	}
	text, before, listed := "Python "+f.python, " with ", 0
	for _, p := range f.packages {
		longer := text + before + p.name
		if len(longer)+len(more(len(f.packages)))+len(".") > most {
			break
		}
		text, before, listed = longer, ", ", listed+1
	}
	return text + more(len(f.packages)-listed) + "."
}

// more returns the end of a list of packages.
func more(packages int) string {
	if packages == 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", packages)
}

// list returns all packages with their versions, on lines.
func (f *facts) list() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Python %s\n", f.python)
	for _, p := range f.packages {
		fmt.Fprintf(&b, "%s %s\n", p.name, p.version)
	}
	return b.String()
}
