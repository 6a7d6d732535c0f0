package mcp_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// argumentSchema is what these tests need of an argument's schema.
type argumentSchema struct {
	Type       string                    `json:"type"`
	About      string                    `json:"description"`
	Required   []string                  `json:"required"`
	Properties map[string]argumentSchema `json:"properties"`
	Items      *argumentSchema           `json:"items"`
}

// abouts returns the length of the descriptions of a schema's fields together.
func (s argumentSchema) abouts() int {
	n := len(s.About)
	for _, property := range s.Properties {
		n += property.abouts()
	}
	if s.Items != nil {
		n += s.Items.abouts()
	}
	return n
}

// The descriptions of a tool's arguments are short too.
func TestArgumentsAreDescribedInShort(t *testing.T) {
	for tool, schema := range inputSchemas(t, connect(t, longest(nil))) {
		if n := schema.abouts(); n == 0 || n > 1000 {
			t.Errorf("%s: %d bytes", tool, n)
		}
	}
}

// inputSchemas returns the schemas of the arguments of all tools.
func inputSchemas(t *testing.T, c *client) map[string]argumentSchema {
	t.Helper()
	var list struct {
		Tools []struct {
			Name        string         `json:"name"`
			InputSchema argumentSchema `json:"inputSchema"`
		} `json:"tools"`
	}
	if err := json.Unmarshal(c.request("tools/list", `{}`).Result, &list); err != nil {
		t.Fatal(err)
	}
	schemas := make(map[string]argumentSchema)
	for _, tool := range list.Tools {
		schemas[tool.Name] = tool.InputSchema
	}
	return schemas
}

// bad is a value that an argument must not have. The error begins with names, or
// with the argument's name where that is empty.
type bad struct {
	value any
	names string
}

// badValues are values of the right type that arguments must not have: every
// argument of every tool has an entry, which is empty where any value will do.
func badValues() map[string][]bad {
	longCommand := strings.Repeat("x", 128<<10)
	timeouts := []bad{{value: 0}, {value: -1}, {value: 60_001}}
	paths := []bad{{value: ""}, {value: "../a"}, {value: "/etc/passwd"}, {value: "a\x00"}, {value: "__main__.py/"}}
	unknown := []bad{{"unknown", "Session 'unknown' not found"}}
	file := func(more map[string]any) []any {
		one := map[string]any{"path": "b"}
		maps.Copy(one, more)
		return []any{one}
	}
	return map[string][]bad{
		"execute_python code":    {},
		"execute_python stdin":   {},
		"execute_python session": unknown,
		"execute_python files": {{
			[]any{map[string]any{"path": "a", "content": ""}, map[string]any{"path": "a", "content": ""}}, "files[1].path ",
		}, {file(nil), "files[0] needs one of content, content_base64 and file_id"}},
		"execute_python files[0].path":           paths,
		"execute_python files[0].content":        {},
		"execute_python files[0].content_base64": {{value: "%"}},
		"execute_python files[0].file_id":        {{"nope", "File with ID 'nope' not found for path 'b'"}},
		"execute_python timeout_ms":              timeouts,
		"execute_python args": {
			{value: []any{"a", 5}, names: "args[1] is 5"},
			{value: []any{nil}, names: "args[0] is null"},
			{value: []any{"\x00"}, names: "args[0] must not contain NUL"},
			{value: slices.Repeat([]any{""}, 257), names: "args must have at most 256 arguments"},
		},

		"run_bash session":    unknown,
		"run_bash command":    {{value: ""}, {value: "a\x00"}, {value: longCommand}},
		"run_bash timeout_ms": timeouts,

		"read_file session":  unknown,
		"read_file path":     paths,
		"read_file encoding": {{value: "utf-16"}},

		"write_file session":        unknown,
		"write_file path":           append(paths, bad{value: "__main__.py"}),
		"write_file content":        {},
		"write_file content_base64": {{value: "%"}},

		"list_files session": unknown,
		"list_files path":    {{value: "../a"}, {value: "/etc/passwd"}, {value: "a\x00"}},

		"end_session session": {{"unknown", "the session unknown "}},
	}
}

// wrongType returns a value that no argument of a type may have.
func wrongType(kind string) any {
	if kind == "string" {
		return 5
	}
	return "text"
}

// sample returns valid arguments of a tool.
func sample(tool string) map[string]any {
	return map[string]map[string]any{
		"execute_python": {"code": "", "session": "s"},
		"run_bash":       {"command": "true", "session": "s"},
		"read_file":      {"path": "a", "session": "s"},
		"write_file":     {"path": "a", "content": "", "session": "s"},
		"list_files":     {"path": "a", "session": "s"},
		"end_session":    {"session": "s"},
	}[tool]
}

// Every error about an argument begins with the name of that argument, which the
// schema has: a model that reads it knows what to change.
func TestErrorsNameTheArgument(t *testing.T) {
	opts := options(validating)
	opts.Sessions = newSessions()
	schemas := inputSchemas(t, connect(t, opts))
	unused := badValues()
	for tool, arguments := range schemas {
		for _, name := range slices.Sorted(maps.Keys(arguments.Properties)) {
			argument := arguments.Properties[name]
			testArgument(t, unused, tool, name, argument.Type, func(value any) map[string]any { return map[string]any{name: value} })
			if argument.Items == nil {
				continue
			}
			for _, field := range slices.Sorted(maps.Keys(argument.Items.Properties)) {
				testArgument(t, unused, tool, name+"[0]."+field, argument.Items.Properties[field].Type, func(value any) map[string]any {
					item := map[string]any{"path": "b", field: value}
					if field == "path" {
						item["content"] = ""
					}
					return map[string]any{name: []any{item}}
				})
			}
		}
	}
	for argument := range unused {
		t.Errorf("no tool has %q", argument)
	}
}

// testArgument calls a tool with bad values of one argument, which place puts where
// it belongs, and removes them from those that are left.
func testArgument(t *testing.T, left map[string][]bad, tool, name, kind string, place func(value any) map[string]any) {
	t.Helper()
	values, listed := left[tool+" "+name]
	if !listed {
		t.Errorf("%s has a new argument: add bad values of %q to badValues", tool, name)
	}
	delete(left, tool+" "+name)
	for _, value := range append(slices.Clone(values), bad{value: wrongType(kind), names: name + " is "}) {
		if value.names == "" {
			value.names = name + " "
		}
		arguments := sample(tool)
		maps.Copy(arguments, place(value.value))
		if name == "content_base64" {
			delete(arguments, "content")
		}
		sessions := map[string][]any{"execute_python": {nil, "s", "new"}, "run_bash": {"s", "new"}}[tool]
		if name == "session" || sessions == nil {
			sessions = []any{arguments["session"]}
		}
		t.Run(tool+" "+name, func(t *testing.T) {
			for _, session := range sessions {
				arguments["session"] = session
				if text := failed(t, tool, arguments); !strings.HasPrefix(text, value.names) {
					t.Errorf("in the session %v, %s = %.50v: %q does not begin with %q", session, name, value.value, text, value.names)
				}
			}
		})
	}
}

// failed returns the error of a call.
func failed(t *testing.T, tool string, arguments map[string]any) string {
	t.Helper()
	opts, known := options(validating), newSessions()
	known.alive["s"] = true
	opts.Sessions = known
	encoded, err := json.Marshal(arguments)
	if err != nil {
		t.Fatal(err)
	}
	r := connect(t, opts).tool(tool, string(encoded))
	if !r.IsError {
		t.Errorf("%s accepts %.100s", tool, encoded)
	}
	return r.Content[0].Text
}

// The samples are valid, or the errors above may be about something else.
func TestSamplesAreValid(t *testing.T) {
	opts, known := options(validating), newSessions()
	known.alive["s"] = true
	opts.Sessions = known
	c := connect(t, opts)
	for _, tool := range slices.Sorted(maps.Keys(inputSchemas(t, c))) {
		if tool == "end_session" {
			continue // last, below
		}
		encoded, err := json.Marshal(sample(tool))
		if err != nil {
			t.Fatal(err)
		}
		if r := c.tool(tool, string(encoded)); r.IsError {
			t.Errorf("%s refuses %s: %s", tool, encoded, r.Content[0].Text)
		}
	}
	if r := c.tool("end_session", `{"session": "s"}`); r.IsError {
		t.Error(r.Content[0].Text)
	}
}
