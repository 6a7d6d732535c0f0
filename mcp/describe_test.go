package mcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp"
)

// description returns the description of execute_python.
func (c *client) description() string {
	c.t.Helper()
	return c.descriptions()["execute_python"]
}

// descriptions returns the descriptions of the tools, by their names.
func (c *client) descriptions() map[string]string {
	c.t.Helper()
	var list struct {
		Tools []struct{ Name, Description string }
	}
	if err := json.Unmarshal(c.request("tools/list", `{}`).Result, &list); err != nil {
		c.t.Fatal(err)
	}
	descriptions := make(map[string]string)
	for _, tool := range list.Tools {
		descriptions[tool.Name] = tool.Description
	}
	return descriptions
}

const unknown = "Python 3 with its standard library; print(help('modules')) lists what else is available."

// The description names the packages, the most useful first. Those that another requires come last.
func TestDescriptionTellsPackages(t *testing.T) {
	listed := "3.13.5\nattrs 25.1.0 needed\nzlib-state 0.1\nnumpy 2.2.4 needed\npandas 2.2.3+dfsg\nnumpy 2.2.4 needed\nScikit_learn 1.4\nevil name 1\nbad <b>\nNone None None\n" +
		strings.Repeat("x", 100) + " 1\nabc 1.0\nautocommand 2.2.2 needed\n"
	for name, test := range map[string]struct {
		printed string
		want    string
	}{
		"a few": {listed, "\nPython 3.13.5 with numpy, pandas, Scikit_learn, abc, zlib-state, attrs, autocommand.\n"},
		"none":  {"3.9.2\n", "\nPython 3.9.2.\n"},
		"many":  {"3.13.5\n" + manyPackages(300) + "tqdm 1\nnumpy 2.2.4\n", "\nPython 3.13.5 with numpy, tqdm, package"},
		"lies":  {"<script>\nnumpy 1\n", "\n" + unknown + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			server := mcp.New(options(gives(printed(test.printed), nil)))
			server.Prepared(t.Context(), nil)
			if got := connectTo(t, server).description(); !strings.Contains(got, test.want) {
				t.Error(got)
			}
		})
	}
}

// dataImage is a part of what our image has, as the inventory prints it: dependencies stand between
// what programs import.
const dataImage = `3.13.5
attrs 25.3.0 needed
autocommand 2.2.2 needed
beautifulsoup4 4.13.4
Brotli 1.1.0 needed
certifi 2025.1.31 needed
contourpy 1.3.1 needed
lxml 5.4.0
matplotlib 3.10.1
networkx 3.4.2
numpy 2.2.4 needed
opencv 4.10.0
openpyxl 3.1.5
pandas 2.2.3+dfsg
pillow 11.1.0 needed
plotly 5.20.0
pypdf 5.4.0
python-docx 1.1.2
reportlab 4.3.1
requests 2.32.3
scikit-learn 1.4.2
scipy 1.15.3
seaborn 0.13.2
statsmodels 0.14.4
sympy 1.13.3
tabulate 0.9.0
tqdm 4.67.1
`

// What a program needs most fits into the description, before what others require.
func TestDescriptionOfDataImage(t *testing.T) {
	server := mcp.New(longest(gives(printed(dataImage+manyPackages(300)), nil)))
	server.Prepared(t.Context(), nil)
	got := connectTo(t, server).description()
	const want = "with numpy, pandas, matplotlib, scipy, scikit-learn, statsmodels, seaborn, plotly, openpyxl, pillow, requests, sympy, networkx, lxml, " +
		"beautifulsoup4, python-docx, pypdf, reportlab, "
	if !strings.Contains(got, want) || strings.Contains(got, "attrs") || !strings.Contains(got, " more.\n") {
		t.Error(got)
	}
}

// longest returns options with which the descriptions are as long as they can be.
func longest(executor execute) mcp.Options {
	opts := options(executor)
	opts.Backend = func() string { return "local" }
	opts.Limits = execution.Limits{
		MaxTimeout: 86_399_999 * time.Millisecond, CPUTime: 86_399 * time.Second, WorkspaceBytes: 1_048_575 << 20, OutputBytes: 1 << 30,
		ResultFiles: 10_000, ResultBytes: 1024 << 20,
	}
	opts.Settings = execution.Settings{Network: "none", MemoryBytes: 1_048_575 << 20, WorkspaceBytes: 1_048_575 << 20}
	opts.SessionTTL, opts.FileTTL, opts.OutputBytes = 86_399*time.Second, 31_535_999*time.Second, 10_000_000
	opts.PythonAlias = true
	return opts
}

// No description is longer than clients pass on, whatever the settings and the packages are.
func TestDescriptionsAreShort(t *testing.T) {
	const most = 1000
	for name, opts := range map[string]mcp.Options{
		"longest": longest(gives(printed("3.13.5\n"+manyPackages(300)), nil)), "unprepared": longest(nil), "usual": options(gives(printed(dataImage), nil)),
	} {
		for _, network := range []string{"none", "bridge"} {
			for _, backend := range []string{"local", "docker", "kubernetes", ""} {
				opts.Settings.Network, opts.Backend = network, func() string { return backend }
				server := mcp.New(opts)
				if name != "unprepared" {
					server.Prepared(t.Context(), nil)
				}
				c := connectTo(t, server)
				for tool, text := range c.descriptions() {
					if len(text) == 0 || len(text) > most {
						t.Errorf("%s, %s has %d bytes: %s", name, tool, len(text), text)
					}
				}
			}
		}
	}
}

func manyPackages(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("package" + strings.Repeat("x", i%20) + string(rune('a'+i%26)) + " 1." + strings.Repeat("1", i/26%8) + "\n")
	}
	return b.String()
}

// A list of tools waits a moment for the facts about the sandbox. If they come later, clients are
// notified.
func TestListAwaitsPrepared(t *testing.T) {
	opts := options(gives(printed("3.13.5\nnumpy 2\n"), nil))
	opts.AwaitPrepared = true
	server := mcp.New(opts)
	c := connectTo(t, server)
	id := c.send("tools/list", `{}`)
	server.Prepared(t.Context(), errors.New("no engine yet"))
	if m := c.read(); m.ID == nil || *m.ID != id || !strings.Contains(string(m.Result), "help('modules')") {
		t.Errorf("%+v", m)
	}
	server.Prepared(t.Context(), nil)
	if m := c.read(); m.Method != "notifications/tools/list_changed" {
		t.Errorf("%+v", m)
	}
	if got := c.description(); !strings.Contains(got, "\nPython 3.13.5 with numpy.\n") {
		t.Error(got)
	}
	server.Prepared(t.Context(), nil) // there is no second notification
	if got := c.description(); !strings.Contains(got, "\nPython 3.13.5 with numpy.\n") {
		t.Error(got)
	}
}

// If the facts cannot be found, the description says less.
func TestPreparedInVain(t *testing.T) {
	server := mcp.New(options(func(context.Context, execution.Request) (*execution.Result, error) {
		return nil, errors.New("no")
	}))
	server.Prepared(t.Context(), nil)
	if got := connectTo(t, server).description(); !strings.Contains(got, unknown) {
		t.Error(got)
	}
}

// The resource lists all packages with their versions.
func TestPackagesResource(t *testing.T) {
	for name, prepare := range map[string]bool{"prepared": true, "not yet": false} {
		server := mcp.New(options(gives(printed("3.13.5\nattrs 25.1.0 needed\nzlib-state 0.1\nnumpy 2.2.4\n"), nil)))
		if prepare {
			server.Prepared(t.Context(), nil)
		}
		c := connectTo(t, server)
		if list := string(c.request("resources/list", `{}`).Result); !strings.Contains(list, `"uri":"vivarium://packages"`) {
			t.Errorf("%s: %s", name, list)
		}
		const want = `{"contents":[{"uri":"vivarium://packages","mimeType":"text/plain","text":"Python 3.13.5\nnumpy 2.2.4\nzlib-state 0.1\nattrs 25.1.0\n"}]}`
		if m := c.request("resources/read", `{"uri": "vivarium://packages"}`); string(m.Result) != want {
			t.Errorf("%s: %s %+v", name, m.Result, m.Error)
		}
	}
}

// If the packages cannot be found, reading their list is an error.
func TestPackagesResourceInVain(t *testing.T) {
	c := connect(t, options(gives(nil, &execution.Error{Code: execution.Busy, Message: "the queue is full"})))
	if m := c.request("resources/read", `{"uri": "vivarium://packages"}`); m.Error == nil || !strings.Contains(m.Error.Message, "the queue is full") {
		t.Errorf("%s %+v", m.Result, m.Error)
	}
}
