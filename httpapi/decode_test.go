package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// runRoutes are the routes that take the request of a run.
func runRoutes() []string {
	session := "/v1/sessions/" + knownSession
	return []string{"/v1/execute", "/v1/execute/stream", session + "/execute", session + "/execute/stream"}
}

// last_line_interactive accepts what Pydantic's lax mode accepts.
func TestLastLineInteractive(t *testing.T) {
	want := map[string]bool{"true": true, "false": false, "0": false, "1": true, "0.0": false, "1.0": true, "-0.0": false, "1e0": true}
	for word, value := range map[string]bool{
		"0": false, "off": false, "f": false, "false": false, "n": false, "no": false,
		"1": true, "on": true, "t": true, "true": true, "y": true, "yes": true,
	} {
		for _, text := range []string{word, strings.ToUpper(word), strings.ToUpper(word[:1]) + word[1:]} {
			want[quote(t, text)] = value
		}
	}
	for text, interactive := range want {
		var got bool
		h := handler(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
			got = req.Interactive
			return validates(ctx, req)
		})
		if a := send(h, `{"code": "", "last_line_interactive": `+text+`}`); a.status != http.StatusOK || got != interactive {
			t.Errorf("%s: %d %v %s", text, a.status, got, a.body)
		}
	}
}

// Another value of last_line_interactive has Pydantic's fault.
func TestLastLineInteractiveInvalid(t *testing.T) {
	const unparsed, wrong = "Input should be a valid boolean, unable to interpret input", "Input should be a valid boolean"
	for text, test := range map[string]struct{ kind, msg string }{
		`"maybe"`: {"bool_parsing", unparsed}, `""`: {"bool_parsing", unparsed}, `" true"`: {"bool_parsing", unparsed}, `"TRUE\n"`: {"bool_parsing", unparsed},
		`"2"`: {"bool_parsing", unparsed}, `"truex"`: {"bool_parsing", unparsed}, `"oN1"`: {"bool_parsing", unparsed},
		`2`: {"bool_parsing", unparsed}, `-1`: {"bool_parsing", unparsed}, `2.0`: {"bool_parsing", unparsed},
		`0.5`: {"bool_type", wrong}, `null`: {"bool_type", wrong}, `[]`: {"bool_type", wrong}, `[true]`: {"bool_type", wrong}, `{}`: {"bool_type", wrong},
	} {
		input := text
		if text == "2.0" {
			input = "2"
		}
		for _, path := range runRoutes() {
			serve(handler(validates), request(http.MethodPost, path, `{"code": "", "last_line_interactive": `+text+`}`)).
				want(t, http.StatusUnprocessableEntity, one(test.kind, `, "last_line_interactive"`, test.msg, input))
		}
	}
}

// The names of fields match exactly, and the last of two fields of one name counts.
func TestNamesMatchExactly(t *testing.T) {
	for body, want := range map[string]execution.Request{
		`{"code": "a", "CODE": "b", "Code": "c"}`:                                                                {Code: "a", Interactive: true},
		`{"code": "a", "code": "b"}`:                                                                             {Code: "b", Interactive: true},
		`{"code": "a", "Stdin": "b", "TIMEOUT_MS": "x", "\ufb01les": 5}`:                                         {Code: "a", Interactive: true},
		`{"code": "a", "last_line_interactive": 5, "stdin": "x", "stdin": null, "last_line_interactive": false}`: {Code: "a"},
		`{"code": "a", "files": [{"path": "x", "Path": 5, "content_base64": "", "FILE_ID": "y"}], "files": []}`:  {Code: "a", Interactive: true},
	} {
		var got execution.Request
		a := send(handler(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
			got = req
			return validates(ctx, req)
		}), body)
		if a.status != http.StatusOK || got.Code != want.Code || got.Interactive != want.Interactive || got.Stdin != "" || got.Timeout != 0 || len(got.Files) != 0 {
			t.Errorf("%s: %d %s %+v", body, a.status, a.body, got)
		}
	}
	for path, body := range map[string]string{
		"/v1/execute": `{"CODE": ""}`, "/v1/execute/stream": `{"Code": ""}`,
		"/v1/sessions/" + knownSession + "/execute": `{"cOde": ""}`, "/v1/sessions/" + knownSession + "/bash": `{"CMD": "ls"}`,
	} {
		if a := serve(handler(validates), request(http.MethodPost, path, body)); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"missing"`) {
			t.Errorf("%s %s: %d %s", path, body, a.status, a.body)
		}
	}
	a := send(handler(validates), `{"code": "", "files": [{"PATH": "a", "content_base64": ""}]}`)
	a.want(t, http.StatusUnprocessableEntity, one("missing", `, "files", 0, "path"`, "path is required", `{"PATH": "a", "content_base64": ""}`))
}

// unknownFields returns the unknown_fields of an answer, or of the result in a stream.
func unknownFields(t *testing.T, a answer) []string {
	t.Helper()
	text := a.body
	if _, data, streamed := strings.Cut(text, "event: result\ndata: "); streamed {
		text = data
	}
	var answer struct {
		UnknownFields []string `json:"unknown_fields"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || a.status >= 300 {
		t.Errorf("%d %s: %v", a.status, a.body, err)
	}
	if strings.Contains(text, "unknown_fields") != (len(answer.UnknownFields) > 0) {
		t.Errorf("an empty list is not left out: %s", text)
	}
	return answer.UnknownFields
}

// An unknown field is ignored, and the answer names it.
func TestUnknownFields(t *testing.T) {
	const files = `, "files": [{"path": "a", "content_base64": "", "mode": 5}, {"path": "b", "content_base64": "", "Path": {}}]}`
	inFiles := []string{"files[0].mode", "files[1].Path"}
	h := handler(validates)
	check := func(path, body string, want ...string) {
		t.Helper()
		if got := unknownFields(t, serve(h, request(http.MethodPost, path, body))); !slices.Equal(got, want) {
			t.Errorf("%s %s: %q", path, body, got)
		}
	}
	for _, path := range runRoutes() {
		check(path, `{"code": ""}`)
		check(path, `{"code": "", "timeout": 5, "CODE": null, "": 0}`, "", "CODE", "timeout")
		check(path, `{"code": "", "x": 1`+files, append([]string{"x"}, inFiles...)...)
	}
	check("/v1/sessions", `{}`)
	check("/v1/sessions", ``)
	check("/v1/sessions", `{"ttl": 5, "unknown_fields": ["a"]`+files, append([]string{"ttl", "unknown_fields"}, inFiles...)...)
	check("/v1/sessions/"+knownSession+"/bash", `{"cmd": "ls"}`)
	check("/v1/sessions/"+knownSession+"/bash", `{"cmd": "ls", "code": "x", "files": []}`, "code", "files")
}

// The names of unknown fields are bounded in number and in length.
func TestManyUnknownFields(t *testing.T) {
	var body strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&body, `, "%03d%s": 0`, i, strings.Repeat("#", 1000))
	}
	names := unknownFields(t, send(handler(validates), `{"code": ""`+body.String()+`}`))
	if len(names) != 20 || !strings.HasPrefix(names[0], "000#") || len(names[0]) > 200 {
		t.Errorf("%d names: %.300q", len(names), names)
	}
}
