package mcp_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// hostileRequests are requests with a long value somewhere, and the part of it that
// their refusals name. Their ids, where they are short, are "q".
func hostileRequests() map[string]struct{ message, names string } {
	const size = 1 << 16
	long, digits := `"`+strings.Repeat("#", size)+`"`, strings.Repeat("1", 1000)
	request := func(id, method, params string) string {
		return fmt.Sprintf(`{"jsonrpc": "2.0", "id": %s, "method": %s, "params": %s}`, id, method, params)
	}
	call := func(arguments string) string {
		return request(`"q"`, `"tools/call"`, `{"name": "execute_python", "arguments": `+arguments+`}`)
	}
	return map[string]struct{ message, names string }{
		"id":                   {request(long, `"ping"`, `{}`), "id has 65538 bytes: must have at most 1000"},
		"number for id":        {request(digits, `"ping"`, `{}`), ""},
		"method":               {request(`"q"`, long, `{}`), "method has 65536 bytes"},
		"progress token":       {request(`"q"`, `"tools/call"`, `{"name": "execute_python", "arguments": {"code": ""}, "_meta": {"progressToken": `+long+`}}`), "params._meta"},
		"short token":          {request(`"q"`, `"tools/call"`, `{"name": "execute_python", "_meta": {"progressToken": "`+strings.Repeat("#", 1001)+`"}}`), "params._meta.progressToken has 1003 bytes"},
		"number for token":     {request(`"q"`, `"tools/call"`, `{"name": "x", "_meta": {"progressToken": `+digits+`}}`), ""},
		"object for token":     {request(`"q"`, `"tools/call"`, `{"name": "x", "_meta": {"progressToken": {"a": "`+strings.Repeat("#", 2000)+`"}}}`), "params._meta.progressToken"},
		"token in disguise":    {request(`"q"`, `"tools/call"`, `{"name": "x", "_META": {"PROGRESSTOKEN": 1, "progressToken": "`+strings.Repeat("#", 2000)+`"}}`), "progressToken"},
		"tool":                 {request(`"q"`, `"tools/call"`, `{"name": `+long+`}`), "params.name has 65538 bytes"},
		"URI":                  {request(`"q"`, `"resources/read"`, `{"uri": `+long+`}`), "params.uri"},
		"our URI":              {request(`"q"`, `"resources/read"`, `{"uri": "vivarium://files/`+strings.Repeat("#", 900)+`"}`), ""},
		"level":                {request(`"q"`, `"logging/setLevel"`, `{"level": `+long+`}`), "params.level"},
		"cursor":               {request(`"q"`, `"tools/list"`, `{"cursor": `+long+`}`), "params.cursor"},
		"prompt":               {request(`"q"`, `"prompts/get"`, `{"name": `+long+`}`), "params.name"},
		"version":              {request(`"q"`, `"initialize"`, `{"protocolVersion": `+long+`, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}`), "params.protocolVersion"},
		"params":               {request(`"q"`, `"ping"`, long), ""},
		"argument":             {call(`{` + long + `: 1}`), ""},
		"arguments":            {call(long), "arguments is"},
		"arguments of another": {request(`"q"`, `"prompts/get"`, `{"name": "x", "arguments": `+long+`}`), "params.arguments has 65538 bytes"},
		"text for files":       {call(`{"code": "", "files": "[\"` + strings.Repeat("#", size) + `\""}`), "files is"},
		"text with a number":   {call(`{"code": "", "timeout_ms": "` + digits + `"}`), "timeout_ms is"},
		"list for code":        {call(`{"code": [` + strings.Repeat(`"#", `, 5000) + `"#"]}`), "code is"},
		"object for code":      {call(`{"code": {` + long + `: ` + long + `}}`), "code is"},
		"kind of argument":     {call(`{"code": [` + long + `]}`), ""},
		"field of a file":      {call(`{"code": "", "files": [{` + long + `: 1}]}`), ""},
		"path of a file":       {call(`{"code": "", "files": [{"path": "/` + strings.Repeat("#", size) + `", "content": ""}]}`), ""},
		"id of a file":         {call(`{"code": "", "files": [{"path": "x", "file_id": ` + long + `}]}`), ""},
		"base64":               {call(`{"code": "", "files": [{"path": "x", "content_base64": ` + long + `}]}`), ""},
		"many paths":           {call(`{"code": "", "files": [` + strings.Repeat(`{"path": "/##########", "content": ""},`, 1000) + `{"path": "x", "content": ""}]}`), ""},
		"timeout":              {call(`{"code": "", "timeout_ms": ` + long + `}`), ""},
		"number for timeout":   {call(`{"code": "", "timeout_ms": 1` + strings.Repeat("0", 250) + `}`), ""},
		"session":              {call(`{"code": "", "session": ` + long + `}`), ""},
		"encoding":             {request(`"q"`, `"tools/call"`, `{"name": "read_file", "arguments": {"session": "x", "path": "x", "encoding": `+long+`}}`), ""},
		"session that ended":   {request(`"q"`, `"tools/call"`, `{"name": "end_session", "arguments": {"session": `+long+`}}`), ""},
		"path in a session":    {request(`"q"`, `"tools/call"`, `{"name": "read_file", "arguments": {"session": "x", "path": `+long+`}}`), ""},
		"too many characters":  {call(`{"code": ` + strings.Repeat("1", 5000) + `}`), ""},
	}
}

// validating is an executor that checks requests as the real one does.
func validating(ctx context.Context, req execution.Request) (*execution.Result, error) {
	if _, err := req.Validate(ctx, options(nil).Limits); err != nil {
		return nil, err
	}
	return exited(0), nil
}

// short says what is wrong with an answer to one of them.
func short(answer, names string) string {
	run := 0
	for n := 1001; n > 0 && run == 0; n /= 2 {
		for _, char := range []string{"#", "1"} {
			if strings.Contains(answer, strings.Repeat(char, n)) {
				run = n
			}
		}
	}
	switch {
	case len(answer) > 10_000, run > 1000:
		return fmt.Sprintf("%d bytes, %d the same", len(answer), run)
	case names != "" && !strings.Contains(answer, names):
		return "it does not name what is too long"
	}
	return ""
}

// boundedOptions refuse sessions as the manager does.
func boundedOptions() mcp.Options {
	opts := options(validating)
	opts.Sessions = refusing{newSessions()}
	return opts
}

type refusing struct{ *sessions }

func (refusing) RunPython(ctx context.Context, id string, req execution.Request) (*execution.Result, error) {
	_, err := req.Validate(ctx, options(nil).Limits)
	return nil, cmp.Or(err, notFound(execution.Clip(id)))
}

func (refusing) RunBash(_ context.Context, id string, cmd execution.Command) (*execution.Result, error) {
	_, err := cmd.Validate(options(nil).Limits)
	return nil, cmp.Or(err, notFound(execution.Clip(id)))
}

func (refusing) ReadFile(_ context.Context, id string, req execution.ReadRequest) error {
	return cmp.Or(req.Validate(), notFound(execution.Clip(id)))
}

func (refusing) WriteFiles(ctx context.Context, id string, req execution.WriteRequest) error {
	_, err := req.Validate(ctx, options(nil).Limits)
	return cmp.Or(err, notFound(execution.Clip(id)))
}

func (refusing) Delete(_ context.Context, id string) error { return notFound(execution.Clip(id)) }

// No answer repeats more than a kilobyte of what a client sends, and it names what is
// too long: over each transport.
func TestNothingLongIsRepeated(t *testing.T) {
	server, _ := newHTTP(t, boundedOptions(), func(next http.Handler) http.Handler { // as in front of all doors
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = wire.Body(r.Body, nil)
			next.ServeHTTP(w, r)
		})
	})
	_, session, _ := post(t, server.Client(), server.URL+transport.StreamablePath, "", hello)
	stream, endpoint := openSSE(t, server)
	c := connect(t, boundedOptions())
	for name, test := range hostileRequests() {
		t.Run(name, func(t *testing.T) {
			_, _, answered := post(t, server.Client(), server.URL+transport.StreamablePath, session, test.message)
			if fault := short(answered, test.names); fault != "" {
				t.Errorf("streamable: %s: %.300s", fault, answered)
			}
			status, _, answer := post(t, server.Client(), server.URL+endpoint, "", test.message)
			if status == http.StatusAccepted {
				_, answer = stream.next(t)
			}
			if short(answer, test.names) != "" {
				t.Errorf("SSE: %s: %.300s", short(answer, test.names), answer)
			}
			c.write(test.message)
			if !c.out.Scan() {
				t.Fatal(c.out.Err())
			}
			if answer = c.out.Text(); short(answer, test.names) != "" {
				t.Errorf("stdio: %s: %.300s", short(answer, test.names), answer)
			}
		})
	}
}

// Long headers of the protocol's are refused: errors repeat them.
func TestLongHeaders(t *testing.T) {
	server, _ := newHTTP(t, options(nil))
	for _, name := range []string{"Mcp-Method", "Mcp-Name", "Mcp-Protocol-Version", "Mcp-Session-Id", "Mcp-Param-X"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+transport.StreamablePath, strings.NewReader(hello))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(name, strings.Repeat("#", 10_000))
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if name != "Mcp-Session-Id" && resp.StatusCode != http.StatusBadRequest || resp.StatusCode < 400 {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
}
