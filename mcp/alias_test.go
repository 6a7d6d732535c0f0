package mcp_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Without the setting there is no tool python.
func TestNoPythonAlias(t *testing.T) {
	c := connect(t, options(echo))
	if list := string(c.request("tools/list", `{}`).Result); strings.Contains(list, `"name":"python"`) {
		t.Error(list)
	}
	if m := c.request("tools/call", `{"name": "python", "arguments": {"code": ""}}`); m.Error == nil || m.Error.Code != -32602 {
		t.Errorf("%s", m.Result)
	}
}

// With it, python differs from execute_python in nothing but its name: not in how it is listed, and
// not in what calls return.
func TestPythonAlias(t *testing.T) {
	opts := options(echo)
	opts.PythonAlias = true
	c := connect(t, opts)
	var list struct{ Tools []map[string]any }
	if err := json.Unmarshal(c.request("tools/list", `{}`).Result, &list); err != nil {
		t.Fatal(err)
	}
	tools := make(map[any]map[string]any)
	for _, tool := range list.Tools {
		tools[tool["name"]] = tool
		delete(tool, "name")
	}
	if diff := cmp.Diff(tools["execute_python"], tools["python"]); diff != "" || len(tools) != 7 || tools["python"] == nil {
		t.Errorf("(-execute_python +python):\n%s", diff)
	}
	for _, arguments := range []string{
		`{"code": "print(1)", "timeout_ms": "5000", "files": [{"path": "a", "content": "x"}]}`,
		`{"code": "", "session": "unknown"}`, `{"Code": ""}`, `{"code": "", "files": [{"path": "../a", "content": ""}]}`,
	} {
		if diff := cmp.Diff(c.tool("execute_python", arguments), c.tool("python", arguments)); diff != "" {
			t.Errorf("%s (-execute_python +python):\n%s", arguments, diff)
		}
	}
}

// The alias begins and calls sessions.
func TestPythonAliasInSessions(t *testing.T) {
	opts, known := options(nil), newSessions()
	known.python = func(req execution.Request) (*execution.Result, error) { return printed(req.Code + "\n"), nil }
	opts.Sessions, opts.PythonAlias = known, true
	c := connect(t, opts)
	if r := c.tool("python", `{"code": "a", "session": "new"}`); r.IsError || !strings.Contains(r.Content[0].Text, "session1") {
		t.Errorf("%+v", r)
	}
	if r := c.tool("python", `{"code": "b", "session": "session1"}`); r.IsError || r.Content[0].Text != "b\n" {
		t.Errorf("%+v", r)
	}
}

// A call of the alias sends progress, and can be cancelled.
func TestPythonAliasProgressAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRuns()
		opts := optionsOf(r)
		opts.PythonAlias = true
		c := connect(t, opts)
		c.send("tools/call", `{"name": "python", "arguments": {"code": "a"}, "_meta": {"progressToken": "p"}}`)
		<-r.begun
		time.Sleep(2500 * time.Millisecond)
		if m := c.read(); m.Method != "notifications/progress" {
			t.Errorf("%+v", m)
		}
		c.write(cancellation("2"))
		<-r.ended
		if m := c.request("ping", `{}`); m.Error != nil {
			t.Errorf("%+v", m)
		}
	})
}
