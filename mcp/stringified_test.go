package mcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// echo is an executor that prints what it is to run.
func echo(ctx context.Context, req execution.Request) (*execution.Result, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "code %q stdin %q %v", req.Code, req.Stdin, req.Timeout)
	for _, file := range req.Files {
		content, err := file.Open(ctx)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(content)
		_ = content.Close()
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, " %s=%q", file.Path, data)
	}
	return printed(b.String()), nil
}

// quote returns a text as JSON.
func quote(text string) string {
	data, _ := json.Marshal(text)
	return string(data)
}

// accepted are arguments of execute_python, each with what echo prints.
func accepted() map[string]struct{ arguments, want string } {
	const defaults = `code "c" stdin "" 30s`
	file := `{"path": "a.txt", "content": "hi"}`
	deep := `{"path": "a.txt", "content": "[{\"b\": 1}]"}`
	all := `{"path": "a.txt", "content": "", "content_base64": "", "file_id": ""}`
	return map[string]struct{ arguments, want string }{
		"an integer":             {`{"code": "c", "timeout_ms": 5000}`, `code "c" stdin "" 5s`},
		"an integral float":      {`{"code": "c", "timeout_ms": 5000.0}`, `code "c" stdin "" 5s`},
		"an exponent":            {`{"code": "c", "timeout_ms": 5e3}`, `code "c" stdin "" 5s`},
		"a text":                 {`{"code": "c", "timeout_ms": "5000"}`, `code "c" stdin "" 5s`},
		"a text with a float":    {`{"code": "c", "timeout_ms": " 5000.0\n"}`, `code "c" stdin "" 5s`},
		"no text":                {`{"code": "c", "timeout_ms": "", "files": "", "session": "", "stdin": ""}`, defaults},
		"null":                   {`{"code": "c", "timeout_ms": null, "files": null, "session": null, "stdin": null}`, defaults},
		"null as text":           {`{"code": "c", "timeout_ms": "null", "files": " null "}`, defaults},
		"files as text":          {`{"code": "c", "files": ` + quote("["+file+"]") + `}`, defaults + ` a.txt="hi"`},
		"no files as text":       {`{"code": "c", "files": "[]"}`, defaults},
		"each file as text":      {`{"code": "c", "files": [` + quote(file) + `, ` + file + `, ` + quote(file) + `]}`, defaults + strings.Repeat(` a.txt="hi"`, 3)},
		"files as texts in text": {`{"code": "c", "files": ` + quote("["+quote(file)+"]") + `}`, defaults + ` a.txt="hi"`},
		"texts remain":           {`{"code": "5000", "stdin": "[1]", "files": [` + deep + `]}`, `code "5000" stdin "[1]" 30s a.txt="[{\"b\": 1}]"`},
		"texts in text remain":   {`{"code": "true", "stdin": "null", "files": ` + quote("["+deep+"]") + `}`, `code "true" stdin "null" 30s a.txt="[{\"b\": 1}]"`},
		"all arguments as text":  {quote(`{"code": "c", "timeout_ms": "5000", "files": ` + quote("["+file+"]") + `}`), `code "c" stdin "" 5s a.txt="hi"`},
		"long arguments as text": {quote(`{"code": "c", "stdin": "` + strings.Repeat("x", 2000) + `"}`), `code "c" stdin "` + strings.Repeat("x", 2000) + `" 30s`},
		"others empty":           {`{"code": "c", "files": [{"path": "a.txt", "content": "hi", "content_base64": "", "file_id": ""}]}`, defaults + ` a.txt="hi"`},
		"others null":            {`{"code": "c", "files": [{"path": "a.txt", "content": null, "content_base64": "aGk=", "file_id": null}]}`, defaults + ` a.txt="hi"`},
		"only base64":            {`{"code": "c", "files": [{"path": "a.txt", "content": "", "content_base64": "aGk=", "file_id": ""}]}`, defaults + ` a.txt="hi"`},
		"all three empty":        {`{"code": "c", "files": [` + all + `]}`, defaults + ` a.txt=""`},
		"all three empty, text":  {`{"code": "c", "files": ` + quote("["+quote(all)+"]") + `}`, defaults + ` a.txt=""`},
		"an empty file":          {`{"code": "c", "files": [{"path": "a.txt", "content": ""}]}`, defaults + ` a.txt=""`},
		"an empty file, base64":  {`{"code": "c", "files": [{"path": "a.txt", "content_base64": ""}]}`, defaults + ` a.txt=""`},
	}
}

// Where the schema of a tool has another type than a string, a string that contains JSON of that type
// is accepted, over each transport.
func TestStringifiedArguments(t *testing.T) {
	c := connect(t, options(echo))
	server, _ := newHTTP(t, options(echo))
	_, session, _ := post(t, server.Client(), server.URL+transport.StreamablePath, "", hello)
	stream, endpoint := openSSE(t, server)
	for name, test := range accepted() {
		t.Run(name, func(t *testing.T) {
			if text, isError := c.call(test.arguments); isError || text != test.want {
				t.Errorf("stdio: error %v: %s", isError, text)
			}
			body := `{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "execute_python", "arguments": ` + test.arguments + `}}`
			_, _, answer := post(t, server.Client(), server.URL+transport.StreamablePath, session, body)
			expectText(t, "streamable", answer, test.want)
			post(t, server.Client(), server.URL+endpoint, "", body)
			_, answer = stream.next(t)
			expectText(t, "SSE", answer, test.want)
		})
	}
}

func expectText(t *testing.T, where, answer, want string) {
	t.Helper()
	var m message
	if err := json.Unmarshal([]byte(answer), &m); err != nil {
		t.Fatalf("%s: %v in %s", where, err, answer)
	}
	if text, isError := textOf(t, m.Result); isError || text != want {
		t.Errorf("%s: error %v: %s", where, isError, text)
	}
}

// refusedArguments are arguments with the errors that they get. The tool is execute_python if
// the arguments do not begin with another's name.
func refusedArguments() map[string]string {
	return map[string]string{
		`{"code": "", "timeout_ms": "soon"}`:                                               `timeout_ms is "soon": must be an integer`,
		`{"code": "", "timeout_ms": "5 s"}`:                                                `timeout_ms is "5 s": must be an integer`,
		`{"code": "", "timeout_ms": "5000.5"}`:                                             `timeout_ms is 5000.5: must be an integer`,
		`{"code": "", "timeout_ms": 0.5}`:                                                  `timeout_ms is 0.5: must be an integer`,
		`{"code": "", "timeout_ms": "1e400"}`:                                              `timeout_ms is "1e400": must be an integer`,
		`{"code": "", "timeout_ms": "0"}`:                                                  `timeout_ms is 0: must be at least 1`,
		`{"code": "", "timeout_ms": true}`:                                                 `timeout_ms is true: must be an integer`,
		`{"code": "", "timeout_ms": [5000, null]}`:                                         `timeout_ms is [5000, null]: must be an integer`,
		`{"code": "", "timeout_ms": "[5000]"}`:                                             `timeout_ms is "[5000]": must be an integer`,
		`{"code": "", "files": "a.txt"}`:                                                   `files is "a.txt": must be an array`,
		`{"code": "", "files": "[{\"path\": \"a\" }"}`:                                     `files is "[{\"path\": \"a\" }", which is not valid JSON: must be an array; unexpected end of JSON input`,
		`{"code": "", "files": {"path": "a", "content": "x"}}`:                             `files is {"content": "x", "path": "a"}: must be an array`,
		`{"code": "", "files": "\"[]\""}`:                                                  `files is "\"[]\"": must be an array`,
		`{"code": "", "files": ["a.txt"]}`:                                                 `files[0] is "a.txt": must be an object`,
		`{"code": "", "files": ["{\"path\": 1}"]}`:                                         `files[0].path is 1: must be a string`,
		`{"code": "", "files": [{"path": "a", "content": {}}]}`:                            `files[0].content is {}: must be a string`,
		`{"code": "", "files": [{"path": "a"}]}`:                                           `files[0] needs one of content, content_base64 and file_id`,
		`{"code": "", "files": [{"path": "a", "file_id": ""}]}`:                            `files[0] needs one of content, content_base64 and file_id`,
		`{"code": "", "files": [{"content": "x"}]}`:                                        `files[0].path is required: the file's path, as a string`,
		`{"code": "", "files": [{"Path": "a", "content": "x"}]}`:                           `files[0].path is required: the file's path, as a string; "Path" differs from it in case`,
		`{"code": "", "files": [{"path": "a", "Content": "x"}]}`:                           `unknown field of files[0] "Content": it differs from content in case`,
		`{"code": "", "files": [{"path": "a", "content": "x", "content_base64": "eA=="}]}`: `files[0] needs one of content, content_base64 and file_id: it has content and content_base64`,
		`{"CODE": "print(1)"}`:                                                             `the argument code is required: Python source text, as a string; "CODE" differs from it in case`,
		`{"a": 1, "cODE": "print(1)"}`:                                                     `the argument code is required: Python source text, as a string; "cODE" differs from it in case`,
		`{"cod": "print(1)"}`:                                                              `the argument code is required: Python source text, as a string; unknown argument "cod": the known ones are code, session, files, timeout_ms, stdin, args`,
		`{"code": "", "Timeout_MS": 1}`:                                                    `unknown argument "Timeout_MS": it differs from timeout_ms in case`,
		`{"code": "", "lang": "py"}`:                                                       `unknown argument "lang": the known ones are code, session, files, timeout_ms, stdin, args`,
		`{"code": null}`:                                                                   `the argument code is required: Python source text, as a string`,
		`{"code": ["print(1)"]}`:                                                           `code is ["print(1)"]: must be a string`,
		`{"code": {"b": [true], "a": 1.5}}`:                                                `code is {"a": 1.5, "b": [true]}: must be a string`,
		`"print(1)"`:                                                                       `arguments is "print(1)": must be an object`,
		`"{"`:                                                                              `arguments is "{", which is not valid JSON: must be an object; unexpected end of JSON input`,
		`[1]`:                                                                              `arguments is [1]: must be an object`,
		`""`:                                                                               `the argument code is required: Python source text, as a string`,
		`run_bash {"session": "s", "command": "x", "timeout_ms": "soon"}`:                  `timeout_ms is "soon": must be an integer`,
		`run_bash {"session": "", "command": "x"}`:                                         `the argument session is required: one that an earlier call has named, or "new", as a string`,
		`run_bash {"session": "s", "Command": "x"}`:                                        `the argument command is required: what bash runs, as a string; "Command" differs from it in case`,
		`read_file {"session": "s", "path": "a", "encoding": "hex"}`:                       `encoding is "hex": must be text or base64`,
		`read_file {"session": "s", "path": "a", "encoding": 64}`:                          `encoding is 64: must be a string`,
		`write_file {"session": "s", "path": "a"}`:                                         `write_file needs one of content and content_base64`,
		`write_file {"session": "s", "path": "a", "content": "x", "content_base64": "eA=="}`: `write_file needs one of content and content_base64: it has content and content_base64`,
		`write_file {"session": "s", "path": "a", "content": 1, "content_base64": ""}`:       `content is 1: must be a string`,
		`end_session {"Session": "s"}`: `the argument session is required: one that an earlier call has named, as a string; "Session" differs from it in case`,
	}
}

// What is wrong gets an error with the field, the value and what is allowed. Names match in their case.
func TestRefusedArguments(t *testing.T) {
	c := connect(t, boundedOptions())
	for given, want := range refusedArguments() {
		tool, arguments, isNamed := strings.Cut(given, " ")
		if !isNamed || strings.ContainsAny(tool, `{["`) {
			tool, arguments = "execute_python", given
		}
		if r := c.tool(tool, arguments); !r.IsError || r.Content[0].Text != want {
			t.Errorf("%s: error %v: %s", given, r.IsError, r.Content[0].Text)
		}
	}
}

// The tools of sessions take the same.
func TestStringifiedArgumentsInSessions(t *testing.T) {
	opts, known := options(nil), newSessions()
	known.alive["s"] = true
	opts.Sessions = known
	var said string
	known.bash = func(cmd execution.Command) (*execution.Result, error) {
		return printed(fmt.Sprintf("%s %v", cmd.Command, cmd.Timeout)), nil
	}
	known.write = func(req execution.WriteRequest) error {
		content, err := req.Files[0].Open(t.Context())
		if err != nil {
			return err
		}
		data, err := io.ReadAll(content)
		said = fmt.Sprintf("%s=%q", req.Files[0].Path, data)
		return err
	}
	c := connect(t, opts)
	for _, test := range []struct{ tool, arguments, want, said string }{
		{"run_bash", `{"session": "s", "command": "[1]", "timeout_ms": "7000"}`, "[1] 7s", ""},
		{"run_bash", `{"session": "s", "command": "x", "timeout_ms": ""}`, "x 30s", ""},
		{"write_file", `{"session": "s", "path": "a", "content": "[1]", "content_base64": ""}`, "Wrote a, 3 bytes.", `a="[1]"`},
		{"write_file", `{"session": "s", "path": "a", "content": "", "content_base64": "aGk="}`, "Wrote a, 2 bytes.", `a="hi"`},
		{"write_file", `{"session": "s", "path": "a", "content": "", "content_base64": ""}`, "Wrote a, 0 bytes.", `a=""`},
		{"read_file", `{"session": "s", "path": "a", "encoding": ""}`, "", ""},
		{"execute_python", `{"code": "", "session": "s", "timeout_ms": "7000"}`, "", ""},
	} {
		said = ""
		r := c.tool(test.tool, test.arguments)
		if r.IsError || test.want != "" && r.Content[0].Text != test.want || said != test.said {
			t.Errorf("%s %s: error %v: %s, written %s", test.tool, test.arguments, r.IsError, r.Content[0].Text, said)
		}
	}
}

// The limits on JSON apply to what strings contain, all strings of a call together.
func TestStringifiedValuesAreLimited(t *testing.T) {
	const tooMany = "too many JSON values: at most 20000 opening brackets and commas are allowed outside of strings"
	c := connect(t, options(echo))
	file := `{"path": "a", "content": "x"}` // two values
	for name, test := range map[string]struct{ files, want string }{
		"in one string":   {quote("[" + strings.Repeat(file+",", wire.MaxValues/3) + file + "]"), tooMany},
		"nested":          {quote(strings.Repeat("[", wire.MaxValues+1)), tooMany},
		"in many strings": {"[" + strings.Repeat(quote(file)+",", wire.MaxValues/2) + quote(file) + "]", tooMany},
		"a long number":   {quote("[" + strings.Repeat("1", 1001) + "]"), "a JSON number is too long"},
		"too deep":        {quote(strings.Repeat("[", 15_000) + strings.Repeat("]", 15_000)), "exceeded max depth"},
	} {
		if text, isError := c.call(`{"code": "", "files": ` + test.files + `}`); !isError || !strings.Contains(text, test.want) {
			t.Errorf("%s: error %v: %.300s", name, isError, text)
		}
	}
	few := quote("[" + strings.Repeat(file+",", 1000) + file + "]")
	if text, isError := c.call(`{"code": "", "files": ` + few + `}`); isError {
		t.Error(text)
	}
}

// What strings contain is charged to the request's account.
func TestStringifiedValuesAreCharged(t *testing.T) {
	opts := options(echo)
	opts.OutputBytes = 1
	budget := execution.NewBudget(2 << 20)
	server, _ := newHTTP(t, opts, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			account := budget.Open("")
			defer account.Close()
			next.ServeHTTP(w, r.WithContext(execution.WithAccount(r.Context(), account)))
		})
	})
	url := server.URL + transport.StreamablePath
	_, session, _ := post(t, server.Client(), url, "", hello)
	call := func(files int) string {
		list := "[" + strings.Repeat(`{"path": "a", "content": "x"},`, files-1) + `{"path": "a", "content": "x"}]`
		body := strings.Replace(callCode, `"code": "c"`, `"code": "c", "files": `+quote(list), 1)
		_, _, text := post(t, server.Client(), url, session, body)
		return text
	}
	if text := call(1000); strings.Contains(text, "isError") {
		t.Errorf("%.300s", text)
	}
	if text := call(4000); !strings.Contains(text, "MAX_IN_FLIGHT_MB") {
		t.Errorf("%.300s", text)
	}
	if err := budget.Open("").Take(2<<20 - 1); err != nil {
		t.Errorf("after the requests: %v", err)
	}
}
