package httpapi_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// The executor receives what a body contains.
func TestExecuteRequest(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		want execution.Request
	}{
		"defaults": {
			`{"code": "print(1)"}`,
			execution.Request{Code: "print(1)", Timeout: 0, Interactive: true},
		},
		"everything": {
			`{"code": "c", "stdin": "s", "args": ["", "-v"], "env": {"A": "1", "b_": ""}, "timeout_ms": 1500, "last_line_interactive": false,
			  "files": [{"path": "a/b.bin", "content_base64": "AP8="}, {"path": "empty", "content_base64": ""}]}`,
			execution.Request{
				Code: "c", Stdin: "s", Args: []string{"", "-v"}, Env: map[string]string{"A": "1", "b_": ""}, Timeout: 1500 * time.Millisecond,
				Files: []execution.Input{execution.Inline("a/b.bin", []byte{0, 255}), execution.Inline("empty", []byte{})},
			},
		},
		"empty code":        {`{"code": ""}`, execution.Request{Timeout: 0, Interactive: true}},
		"no stdin":          {`{"code": "c", "stdin": null}`, execution.Request{Code: "c", Timeout: 0, Interactive: true}},
		"no files":          {`{"code": "c", "files": []}`, execution.Request{Code: "c", Timeout: 0, Interactive: true}},
		"interactive":       {`{"code": "c", "last_line_interactive": true}`, execution.Request{Code: "c", Timeout: 0, Interactive: true}},
		"unknown fields":    {`{"code": "c", "session": {"id": 5}}`, execution.Request{Code: "c", Timeout: 0, Interactive: true}},
		"the shortest time": {`{"code": "c", "timeout_ms": 1}`, execution.Request{Code: "c", Timeout: time.Millisecond, Interactive: true}},
		"Unicode":           {`{"code": "'\u00e9\ud83d\ude00é'"}`, execution.Request{Code: "'é😀é'", Timeout: 0, Interactive: true}},
		"a null in the code": {
			`{"code": "null", "stdin": "null"}`,
			execution.Request{Code: "null", Stdin: "null", Timeout: 0, Interactive: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got execution.Request
			a := send(handler(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
				got = req
				return validates(ctx, req)
			}), test.body)
			if a.status != http.StatusOK {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreFields(execution.Request{}, "Keep")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A timeout that overflows is refused as too long.
func TestExecuteHugeTimeout(t *testing.T) {
	send(handler(validates), `{"code": "c", "timeout_ms": 9223372036854775807}`).
		want(t, http.StatusUnprocessableEntity, `{"detail": "timeout_ms exceeds maximum of 60000 ms"}`)
}

// The client receives what a result contains.
func TestExecuteResponse(t *testing.T) {
	three := 3
	for name, test := range map[string]struct {
		result execution.Result
		want   string
	}{
		"nothing": {
			execution.Result{ExitCode: new(int), End: execution.End{Reason: execution.Exited}},
			`{"stdout": "", "stderr": "", "exit_code": 0, "timed_out": false, "duration_ms": 0, "files": [],
			  "end": {"reason": "exited"}, "usage": {"cpu_ms": 0, "peak_memory_bytes": 0}, "queue_ms": 0, "skipped_files": [], "results": []}`,
		},
		"everything": {
			execution.Result{
				Stdout: "out", Stderr: "<err>", ExitCode: &three,
				End:      execution.End{Reason: execution.MemoryLimit, Signal: "SIGKILL", Message: "too much"},
				Duration: 1234567 * time.Microsecond, Queue: 42 * time.Millisecond,
				Usage:   execution.Usage{CPU: 7 * time.Millisecond, PeakMemoryBytes: 1 << 20},
				Files:   []execution.File{{Path: "a/b", Size: 2, ID: "X"}, {Path: "empty", ID: "Y"}},
				Skipped: []execution.SkippedFile{{Path: "big", Reason: "it is big"}},
				Displayed: [][]execution.Representation{
					{{Type: "text/plain", Data: []byte("a\xff")}, {Type: "image/svg+xml", Data: []byte("<svg/>")}},
					{{Type: "image/png", Data: []byte("a\xff")}, {Type: "application/json", Data: []byte(`{"a":1}`)}},
					{{Type: "application/vnd.plotly.v1+json", Data: []byte("{")}},
				},
			},
			`{"stdout": "out", "stderr": "<err>", "exit_code": 3, "timed_out": false, "duration_ms": 1234,
			  "files": [{"path": "a/b", "kind": "file", "file_id": "X", "size_bytes": 2},
			            {"path": "empty", "kind": "file", "file_id": "Y", "size_bytes": 0}],
			  "end": {"reason": "memory_limit", "signal": "SIGKILL", "message": "too much"},
			  "usage": {"cpu_ms": 7, "peak_memory_bytes": 1048576}, "queue_ms": 42,
			  "skipped_files": [{"path": "big", "reason": "it is big"}], "results": [
			    {"text/plain": "a\ufffd", "image/svg+xml": "<svg/>"}, {"image/png": "Yf8=", "application/json": {"a": 1}},
			    {"application/vnd.plotly.v1+json": "{"}]}`,
		},
		"timeout": {
			execution.Result{Stdout: "so far", End: execution.End{Reason: execution.Timeout, Message: "stopped after 2000 ms"}},
			`{"stdout": "so far", "stderr": "", "exit_code": null, "timed_out": true, "duration_ms": 0, "files": [],
			  "end": {"reason": "timeout", "message": "stopped after 2000 ms"},
			  "usage": {"cpu_ms": 0, "peak_memory_bytes": 0}, "queue_ms": 0, "skipped_files": [], "results": []}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := send(handler(func(context.Context, execution.Request) (*execution.Result, error) { return &test.result, nil }), `{"code": ""}`)
			a.want(t, http.StatusOK, test.want)
		})
	}
}

// invalidBody is a body with a fault, and the whole answer to it.
type invalidBody struct{ body, want string }

// one returns the answer to a body with one fault.
func one(kind, loc, msg, input string) string {
	return fmt.Sprintf(`{"detail": [{"type": %q, "loc": ["body"%s], "msg": %q, "input": %s}]}`, kind, loc, msg, input)
}

func TestExecuteInvalid(t *testing.T) {
	testInvalid(t, map[string]invalidBody{
		"no body":          {"", one("missing", "", "the body is required", "null")},
		"half a body":      {`{`, one("json_invalid", "", "the body is not valid JSON: unexpected end of JSON input", `"{"`)},
		"no JSON":          {`print(1)`, one("json_invalid", "", "the body is not valid JSON: invalid character 'p' looking for beginning of value", `"print(1)"`)},
		"more than JSON":   {`{"code": ""} x`, one("json_invalid", "", "the body is not valid JSON: invalid character 'x' after top-level value", `"{\"code\": \"\"} x"`)},
		"null":             {`null`, one("dict_type", "", "expected object", "null")},
		"a list":           {`[]`, one("dict_type", "", "expected object", "[]")},
		"a string":         {`"code"`, one("dict_type", "", "expected object", `"code"`)},
		"no code":          {`{"stdin": "x"}`, one("missing", `, "code"`, "code is required", `{"stdin": "x"}`)},
		"code null":        {`{"code": null}`, one("string_type", `, "code"`, "expected string", "null")},
		"code number":      {`{"code": 5}`, one("string_type", `, "code"`, "expected string", "5")},
		"timeout string":   {`{"code": "", "timeout_ms": "5"}`, one("int_type", `, "timeout_ms"`, "expected integer", `"5"`)},
		"timeout fraction": {`{"code": "", "timeout_ms": 5.5}`, one("int_type", `, "timeout_ms"`, "expected integer", "5.5")},
		"timeout integral": {`{"code": "", "timeout_ms": 5.0}`, one("int_type", `, "timeout_ms"`, "expected integer", "5.0")},
		"timeout bool":     {`{"code": "", "timeout_ms": true}`, one("int_type", `, "timeout_ms"`, "expected integer", "true")},
		"timeout null":     {`{"code": "", "timeout_ms": null}`, one("int_type", `, "timeout_ms"`, "timeout_ms must be of type integer, not null", "null")},
		"timeout huge":     {`{"code": "", "timeout_ms": 99999999999999999999}`, one("int_type", `, "timeout_ms"`, "expected integer", "99999999999999999999")},
		"timeout zero":     {`{"code": "", "timeout_ms": 0}`, one("greater_than_equal", `, "timeout_ms"`, "expected number >= 1", "0")},
		"timeout below":    {`{"code": "", "timeout_ms": -1}`, one("greater_than_equal", `, "timeout_ms"`, "expected number >= 1", "-1")},
		"timeout too long": {`{"code": "", "timeout_ms": 60001}`, `{"detail": "timeout_ms exceeds maximum of 60000 ms"}`},
		"stdin number":     {`{"code": "", "stdin": 5}`, one("string_type", `, "stdin"`, "expected string", "5")},
		"all at once": {
			`{"code": 1, "timeout_ms": "x", "files": 5}`,
			`{"detail": [{"type": "string_type", "loc": ["body", "code"], "msg": "expected string", "input": 1},
			             {"type": "list_type", "loc": ["body", "files"], "msg": "expected array", "input": 5},
			             {"type": "int_type", "loc": ["body", "timeout_ms"], "msg": "expected integer", "input": "x"}]}`,
		},
	})
}

func TestExecuteInvalidFiles(t *testing.T) {
	testInvalid(t, map[string]invalidBody{
		"files object":      {`{"code": "", "files": {}}`, one("list_type", `, "files"`, "expected array", "{}")},
		"files null":        {`{"code": "", "files": null}`, one("list_type", `, "files"`, "files must be of type array, not null", "null")},
		"file number":       {`{"code": "", "files": [5]}`, one("dict_type", `, "files", 0`, "expected object", "5")},
		"file without path": {`{"code": "", "files": [{"content_base64": ""}]}`, one("missing", `, "files", 0, "path"`, "path is required", `{"content_base64": ""}`)},
		"path number":       {`{"code": "", "files": [{"path": 5, "content_base64": ""}]}`, one("string_type", `, "files", 0, "path"`, "expected string", "5")},
		"file without content": {
			`{"code": "", "files": [{"path": "a"}]}`,
			one("missing", `, "files", 0, "file_id"`, "file_id is required, or content_base64 instead", "null"),
		},
		"file with both contents": {
			`{"code": "", "files": [{"path": "a", "file_id": "X", "content_base64": "AA=="}]}`,
			one("value_error", `, "files", 0, "content_base64"`, "content_base64 must not be given beside file_id", `"..."`),
		},
		"no base64": {
			`{"code": "", "files": [{"path": "a", "content_base64": "A%A="}]}`,
			one("value_error", `, "files", 0, "content_base64"`, "content_base64 must be standard base64: illegal base64 data at input byte 1", `"A%A="`),
		},
		"the second file": {
			`{"code": "", "files": [{"path": "a", "content_base64": ""}, {"path": "../b", "content_base64": ""}]}`,
			`{"detail": "File paths must not contain '..'."}`,
		},
		"empty path":     {filesAt(""), one("value_error", `, "files", 0, "path"`, "path must not be empty", `""`)},
		"absolute path":  {filesAt("/a"), `{"detail": "File paths must be relative."}`},
		"path with NUL":  {filesAt(`a\u0000b`), one("value_error", `, "files", 0, "path"`, "path must not contain NUL", `"a\u0000b"`)},
		"reserved path":  {filesAt("__main__.py"), one("value_error", `, "files", 0, "path"`, "path is reserved for the program itself", `"__main__.py"`)},
		"duplicate path": {`{"code": "", "files": [{"path": "a", "content_base64": ""}, {"path": "a", "content_base64": ""}]}`, one("value_error", `, "files", 1, "path"`, "path is given twice", `"a"`)},
	})
}

// A path that could lead out of the workspace is answered with the contract's sentence,
// whichever other faults of files and paths the request has. Faults of types come first.
func TestExecuteIllegalPaths(t *testing.T) {
	const absolute, parent = `{"detail": "File paths must be relative."}`, `{"detail": "File paths must not contain '..'."}`
	tests := map[string]invalidBody{
		"an absolute one with ..": {filesAt("/../a"), absolute},
		"two slashes":             {filesAt("//a"), absolute},
		"a root":                  {filesAt("/"), absolute},
		"an absolute reserved":    {filesAt("/__main__.py"), absolute},
		"only ..":                 {filesAt(".."), parent},
		"at the end":              {filesAt("a/.."), parent},
		"within":                  {filesAt("a/../b"), parent},
		"beside a dot":            {filesAt("./../b"), parent},
		"beside an empty part":    {filesAt("a//../b"), parent},
		"beside NUL":              {filesAt(`a\u0000/../b`), parent},
		"a long one":              {filesAt("../" + strings.Repeat("a", 2000)), parent},
		"before another fault":    {`{"code": "", "files": [{"path": "..", "content_base64": ""}, {"path": "", "content_base64": ""}]}`, parent},
		"behind another fault":    {`{"code": "", "files": [{"path": "", "content_base64": ""}, {"path": "/a", "content_base64": ""}]}`, absolute},
		"the first of two":        {`{"code": "", "files": [{"path": "..", "content_base64": ""}, {"path": "/a", "content_base64": ""}]}`, parent},
		"an unknown file":         {`{"code": "", "files": [{"path": "/a", "file_id": "unknown"}]}`, absolute},
		"dots that are no part":   {filesAt("a../...//b"), one("value_error", `, "files", 0, "path"`, `path must not contain empty or "." parts`, `"a../...//b"`)},
		"a wrong type": {
			`{"code": 5, "files": [{"path": "/a", "content_base64": ""}]}`, one("string_type", `, "code"`, "expected string", "5"),
		},
		"a null": {
			`{"code": "", "files": [{"path": "/a", "content_base64": ""}], "timeout_ms": null}`,
			one("int_type", `, "timeout_ms"`, "timeout_ms must be of type integer, not null", "null"),
		},
		"no content": {
			`{"code": "", "files": [{"path": "/a"}]}`,
			one("missing", `, "files", 0, "file_id"`, "file_id is required, or content_base64 instead", "null"),
		},
		"a long timeout": {
			`{"code": "", "files": [{"path": "/a", "content_base64": ""}], "timeout_ms": 60001}`,
			`{"detail": "timeout_ms exceeds maximum of 60000 ms"}`,
		},
	}
	testInvalid(t, tests)
	for _, path := range []string{"/v1/execute/stream", "/v1/sessions", "/v1/sessions/" + knownSession + "/execute"} {
		for at, want := range map[string]string{"/a": absolute, "b/../a": parent} {
			serve(handler(validates), request(http.MethodPost, path, filesAt(at))).want(t, http.StatusUnprocessableEntity, want)
		}
	}
}

func testInvalid(t *testing.T, tests map[string]invalidBody) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			send(handler(validates), test.body).want(t, http.StatusUnprocessableEntity, test.want)
		})
	}
}

func filesAt(path string) string {
	return fmt.Sprintf(`{"code": "", "files": [{"path": "%s", "content_base64": ""}]}`, path)
}

// An error does not repeat a long value.
func TestExecuteInvalidIsBrief(t *testing.T) {
	long := strings.Repeat("5", 100_000)
	for name, body := range map[string]string{
		"a string":  `{"code": "", "timeout_ms": "` + long + `"}`,
		"a list":    `{"code": ["` + long + `"]}`,
		"base64":    `{"code": "", "files": [{"path": "a", "content_base64": "*` + long + `"}]}`,
		"no JSON":   `{"code": "` + long,
		"an object": `{"stdin": "` + long + `"}`,
		"é":         `{"code": "", "timeout_ms": "` + strings.Repeat("é", 50_000) + `"}`,
	} {
		a := send(handler(validates), body)
		if a.status != http.StatusUnprocessableEntity || len(a.body) > 1000 || !json.Valid([]byte(a.body)) {
			t.Errorf("%s: %d and %d bytes: %.300s", name, a.status, len(a.body), a.body)
		}
	}
}

func TestExecuteUnknownFile(t *testing.T) {
	send(handler(validates), `{"code": "", "files": [{"path": "a.txt", "file_id": "X'Y"}]}`).
		want(t, http.StatusNotFound, `{"detail": "File with ID 'X'Y' not found for path 'a.txt'."}`)
}

func TestExecuteFilesTooLarge(t *testing.T) {
	content := base64.StdEncoding.EncodeToString(make([]byte, 1<<20+1))
	send(handler(validates), `{"code": "", "files": [{"path": "a", "content_base64": "`+content+`"}]}`).
		want(t, http.StatusRequestEntityTooLarge, `{"detail": "files take 1052672 bytes, more than the workspace of 1 MB holds"}`)
}

func TestExecuteContentType(t *testing.T) {
	for kind, status := range map[string]int{
		"application/json":                  200,
		"application/json; charset=utf-8":   200,
		"":                                  415,
		"text/plain":                        415,
		"application/x-www-form-urlencoded": 415,
		"multipart/form-data; boundary=x":   415,
		"application/octet-stream":          415,
		"application/jsonp":                 415,
	} {
		r := request(http.MethodPost, "/v1/execute", `{"code": ""}`)
		r.Header.Del("Content-Type")
		if kind != "" {
			r.Header.Set("Content-Type", kind)
		}
		a := serve(handler(validates), r)
		if a.status != status {
			t.Errorf("%q: %d %s", kind, a.status, a.body)
		}
		if status == http.StatusUnsupportedMediaType {
			a.want(t, status, `{"detail": "Unsupported Media Type: Content-Type must be application/json"}`)
		}
	}
}

// Each code of the domain's errors has its status, and its cause is not returned.
func TestExecuteErrors(t *testing.T) {
	secret := errors.New("dial unix /var/run/secret.sock")
	domain := func(code execution.Code) *execution.Error {
		return &execution.Error{Code: code, Message: "a sentence", Err: secret}
	}
	for name, test := range map[string]struct {
		err        error
		status     int
		retryAfter string
		log        bool
	}{
		"invalid":     {domain(execution.Invalid), 422, "", true},
		"not found":   {domain(execution.NotFound), 404, "", true},
		"too large":   {domain(execution.TooLarge), 413, "", true},
		"busy":        {domain(execution.Busy), 429, "1", true},
		"unavailable": {domain(execution.Unavailable), 503, "1", true},
		"cancelled":   {domain(execution.Cancelled), 499, "", false},
		"wrapped":     {fmt.Errorf("somewhere: %w", domain(execution.Busy)), 429, "1", true},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(fails(test.err))
			log, text := newLog()
			opts.Log = log
			a := send(httpapi.NewHandler(opts), `{"code": ""}`)
			a.want(t, test.status, `{"detail": "a sentence"}`)
			if got := a.header.Get("Retry-After"); got != test.retryAfter {
				t.Errorf("Retry-After is %q", got)
			}
			if strings.Contains(text.String(), "secret.sock") != test.log {
				t.Errorf("the log is %s", text)
			}
		})
	}
}

// The answer of an internal error has only the id of the request.
func TestExecuteInternalError(t *testing.T) {
	for name, err := range map[string]error{
		"a foreign error": errors.New("password is hunter2"),
		"one of ours":     &execution.Error{Code: execution.Internal, Message: "hunter2", Err: errors.New("password is hunter2")},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(fails(err))
			log, text := newLog()
			opts.Log = log
			a := send(httpapi.NewHandler(opts), `{"code": ""}`)
			id := a.header.Get("X-Request-Id")
			a.want(t, http.StatusInternalServerError, `{"detail": "internal error; the log of the server has more under request `+id+`"}`)
			if len(id) < 10 || !strings.Contains(text.String(), id) || !strings.Contains(text.String(), "hunter2") {
				t.Errorf("the request is %q, the log %s", id, text)
			}
		})
	}
}

// A client that leaves ends its run.
func TestExecuteCallerLeaves(t *testing.T) {
	running, ended := make(chan struct{}), make(chan error, 1)
	server := httptest.NewServer(handler(func(ctx context.Context, _ execution.Request) (*execution.Result, error) {
		close(running)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, &execution.Error{Code: execution.Cancelled, Message: "the caller left"}
	}))
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/execute", strings.NewReader(`{"code": ""}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	go func() { <-running; leave() }()
	if resp, err := server.Client().Do(r); err == nil {
		_ = resp.Body.Close()
		t.Error("an answer came")
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the run ended with %v", err)
	}
}
