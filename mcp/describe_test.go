package mcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp"
)

// description returns the description of execute_python.
func (c *client) description() string {
	c.t.Helper()
	var list struct {
		Tools []struct{ Name, Description string }
	}
	if err := json.Unmarshal(c.request("tools/list", `{}`).Result, &list); err != nil {
		c.t.Fatal(err)
	}
	for _, tool := range list.Tools {
		if tool.Name == "execute_python" {
			return tool.Description
		}
	}
	c.t.Fatal("there is no such tool")
	return ""
}

const unknown = "Python 3 with its standard library; print(help('modules')) lists what else is available."

// The description names the packages, the most useful first, and stays within the limit of
// clients.
func TestDescriptionTellsPackages(t *testing.T) {
	listed := "3.13.5\nzlib-state 0.1\nnumpy 2.2.4\npandas 2.2.3+dfsg\nnumpy 2.2.4\nScikit_learn 1.4\nevil name 1\nbad <b>\nNone None None\n" +
		strings.Repeat("x", 100) + " 1\n"
	for name, test := range map[string]struct {
		printed string
		want    string
	}{
		"a few": {listed, "Python 3.13.5 with numpy 2.2.4, pandas 2.2.3+dfsg, Scikit_learn 1.4, zlib-state 0.1."},
		"none":  {"3.9.2\n", "Python 3.9.2."},
		"many":  {"3.13.5\nnumpy 2.2.4\n" + strings.Repeat(strings.Repeat("p", 60)+" 1.0\n", 1) + manyPackages(500), " more."},
		"lies":  {"<script>\nnumpy 1\n", unknown},
	} {
		t.Run(name, func(t *testing.T) {
			server := mcp.New(options(gives(printed(test.printed), nil)))
			server.Prepared(t.Context(), nil)
			got := connectTo(t, server).description()
			if !strings.HasSuffix(got, test.want) || len(got) > 2048 {
				t.Errorf("%d bytes: %s", len(got), got)
			}
		})
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
	if got := c.description(); !strings.HasSuffix(got, "Python 3.13.5 with numpy 2.") {
		t.Error(got)
	}
	server.Prepared(t.Context(), nil) // there is no second notification
	if got := c.description(); !strings.HasSuffix(got, "Python 3.13.5 with numpy 2.") {
		t.Error(got)
	}
}

// If the facts cannot be found, the description says less.
func TestPreparedInVain(t *testing.T) {
	server := mcp.New(options(func(context.Context, execution.Request) (*execution.Result, error) {
		return nil, errors.New("no")
	}))
	server.Prepared(t.Context(), nil)
	if got := connectTo(t, server).description(); !strings.HasSuffix(got, unknown) {
		t.Error(got)
	}
}
