package httpapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// bad is a value that a field must not have. The answer has the field's location, or
// is the sentence where that is not empty.
type bad struct {
	value    any
	sentence string
}

// badValues are values of the right type that fields must not have: every parameter
// and every field of every route has an entry, which is empty where any value will do.
func badValues() map[string][]bad {
	const tooLong = "timeout_ms exceeds maximum of 60000 ms"
	timeouts := []bad{{value: 0}, {value: -1}, {value: nil}, {60_001, tooLong}}
	paths := []bad{{value: ""}, {value: "../a"}, {value: "/etc/passwd"}, {value: "a\x00"}}
	unknownSession := []bad{{"unknown", "Session 'unknown' not found"}}
	unknownFile := []bad{{"unknown", "File with ID 'unknown' not found"}}
	all := map[string][]bad{
		"POST /v1/sessions ttl_seconds": {{value: 0}, {value: 86_401}, {value: nil}},
		"POST /v1/files file":           {},

		"PATCH /v1/sessions/{session_id} session_id":  unknownSession,
		"PATCH /v1/sessions/{session_id} ttl_seconds": {{value: 0}, {value: 86_401}, {value: nil}},

		"GET /v1/files/{file_id} file_id":    unknownFile,
		"DELETE /v1/files/{file_id} file_id": unknownFile,

		"DELETE /v1/sessions/{session_id} session_id":           unknownSession,
		"GET /v1/sessions/{session_id}/files/{path} session_id": unknownSession,
		"GET /v1/sessions/{session_id}/files/{path} path":       paths[1:], // the empty one is the workspace
		"PUT /v1/sessions/{session_id}/files/{path} session_id": unknownSession,
		"PUT /v1/sessions/{session_id}/files/{path} path":       paths[1:],

		"GET /v1/sessions/{session_id}/files session_id":           unknownSession,
		"GET /v1/sessions/{session_id}/files path":                 paths[1:],
		"GET /v1/sessions/{session_id}/files format":               {{value: ""}, {value: "zip"}},
		"GET /v1/sessions/{session_id}/files/{path} format":        {{value: ""}, {value: "zip"}},
		"PUT /v1/sessions/{session_id}/files session_id":           {},
		"DELETE /v1/sessions/{session_id}/files/{path} session_id": unknownSession,
		"DELETE /v1/sessions/{session_id}/files/{path} path":       paths,

		"POST /v1/sessions/{session_id}/bash session_id": unknownSession,
		"POST /v1/sessions/{session_id}/bash cmd":        {{value: ""}, {value: "a\x00"}, {value: strings.Repeat("x", 128<<10)}},
		"POST /v1/sessions/{session_id}/bash timeout_ms": timeouts,
	}
	renaming := "PATCH /v1/sessions/{session_id}/files/{path} "
	all[renaming+"session_id"], all[renaming+"path"] = unknownSession, paths
	all[renaming+"body path"] = append(slices.Clone(paths), bad{value: nil}, bad{value: "__main__.py"})
	manyVariables := make(map[string]string)
	for i := range 65 {
		manyVariables[fmt.Sprint("V", i)] = ""
	}
	variables := []bad{{value: nil}, {value: manyVariables}, {value: map[string]string{"": ""}}}
	arguments := []bad{{value: nil}, {value: make([]string, 257)}, {value: []string{strings.Repeat("x", 64<<10)}}}
	all["POST /v1/sessions/{session_id}/bash env"] = variables
	all["POST /v1/sessions/{session_id}/bash args"] = arguments
	for _, route := range []string{"POST /v1/execute", "POST /v1/execute/stream"} {
		inSession := strings.Replace(route, "/v1", "/v1/sessions/{session_id}", 1)
		all[inSession+" session_id"] = unknownSession
		for _, route := range []string{route, inSession} {
			all[route+" code"] = []bad{}
			all[route+" stdin"] = []bad{}
			all[route+" env"] = variables
			all[route+" args"] = arguments
			all[route+" timeout_ms"] = timeouts
			all[route+" last_line_interactive"] = []bad{{value: nil}}
		}
	}
	for _, route := range []string{
		"POST /v1/execute", "POST /v1/execute/stream", "POST /v1/sessions",
		"POST /v1/sessions/{session_id}/execute", "POST /v1/sessions/{session_id}/execute/stream",
	} {
		all[route+" files"] = []bad{{value: nil}}
		all[route+" files[0].path"] = []bad{
			{value: ""},
			{value: "a\x00"},
			{value: "__main__.py"},
			{"../a", "File paths must not contain '..'."},
			{"/etc/passwd", "File paths must be relative."},
		}
		all[route+" files[0].file_id"] = []bad{{"unknown", "File with ID 'unknown' not found for path 'b'."}}
		all[route+" files[0].content_base64"] = []bad{{value: "%"}}
	}
	return all
}

// wrongType returns a value that no field of a schema may have.
func wrongType(schema *openapi3.Schema) any {
	if schema.Type.Includes(openapi3.TypeString) {
		return 5
	}
	return "text"
}

// Every error about a field tells where the request has that field, as the
// description names it.
func TestErrorsLocateTheField(t *testing.T) {
	left := badValues()
	h, _ := filesHandlerFor(t, validates)
	for route, operation := range operations(t) {
		method, path, _ := strings.Cut(route, " ")
		for _, parameter := range operation.Parameters {
			name := parameter.Value.Name
			for _, value := range take(t, left, route, name) {
				filled := strings.Replace(path, "{"+name+"}", url.PathEscape(fmt.Sprint(value.value)), 1)
				if parameter.Value.In == "query" {
					filled = path + "?" + name + "=" + url.QueryEscape(fmt.Sprint(value.value))
				}
				wantFault(t, h, method, filled, sample(path), value, parameter.Value.In, name)
			}
		}
		if operation.RequestBody == nil {
			continue
		}
		for kind, media := range operation.RequestBody.Value.Content {
			switch kind {
			case "application/json":
				testFields(t, h, left, route, media.Schema.Value)
			case "multipart/form-data":
				for name := range media.Schema.Value.Properties {
					take(t, left, route, name)
				}
				r := request(method, path, "--x--\r\n")
				r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
				checkFault(t, h, r, bad{}, "body", "file")
			}
		}
	}
	for field := range left {
		t.Errorf("no route has %q", field)
	}
}

// testFields sends bad values of each field of a body in JSON.
func testFields(t *testing.T, h http.Handler, left map[string][]bad, route string, schema *openapi3.Schema) {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	for name, property := range schema.Properties {
		entry := name
		if strings.Contains(path, "{"+name+"}") { // a parameter has the same name
			entry = "body " + name
		}
		for _, value := range append(take(t, left, route, entry), bad{value: wrongType(property.Value)}) {
			body := sample(path)
			body[name] = value.value
			wantFault(t, h, method, path, body, value, "body", name)
		}
		if property.Value.Items == nil {
			continue
		}
		for field, item := range property.Value.Items.Value.Properties {
			for _, value := range append(take(t, left, route, name+"[0]."+field), bad{value: wrongType(item.Value)}) {
				file := map[string]any{"path": "b", field: value.value}
				if field == "path" {
					file["content_base64"] = ""
				}
				body := sample(path)
				body[name] = []any{file}
				wantFault(t, h, method, path, body, value, "body", name, 0, field)
			}
		}
	}
}

// take returns the bad values of a field and removes them from those that are left.
func take(t *testing.T, left map[string][]bad, route, name string) []bad {
	t.Helper()
	values, listed := left[route+" "+name]
	if !listed {
		t.Errorf("%s has a new field: add bad values of %q to badValues", route, name)
	}
	delete(left, route+" "+name)
	return slices.Clone(values)
}

// sample returns a valid body of a route that takes JSON.
func sample(path string) map[string]any {
	switch {
	case strings.HasSuffix(path, "/bash"):
		return map[string]any{"cmd": "true"}
	case strings.Contains(path, "/execute"):
		return map[string]any{"code": ""}
	}
	return map[string]any{"ttl_seconds": 60, "path": "b"}
}

// wantFault checks the answer to a request with a body in JSON.
func wantFault(t *testing.T, h http.Handler, method, path string, body map[string]any, value bad, loc ...any) {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodGet || method == http.MethodDelete {
		encoded = nil
	}
	path = strings.NewReplacer("{session_id}", knownSession, "{path}", "a", "{file_id}", "x").Replace(path)
	checkFault(t, h, request(method, path, string(encoded)), value, loc...)
}

// checkFault checks that the answer to a request has one fault, at loc.
func checkFault(t *testing.T, h http.Handler, r *http.Request, value bad, loc ...any) {
	t.Helper()
	a := serve(h, r)
	if value.sentence != "" {
		if want := `{"detail":"` + value.sentence; !strings.HasPrefix(a.body, want) {
			t.Errorf("%s %s, %s = %.50v: %d %.200s", r.Method, r.URL.Path, fmt.Sprint(loc...), value.value, a.status, a.body)
		}
		return
	}
	var answer struct{ Detail []struct{ Loc []any } }
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil || a.status != http.StatusUnprocessableEntity ||
		len(answer.Detail) != 1 || fmt.Sprint(answer.Detail[0].Loc...) != fmt.Sprint(loc...) {
		t.Errorf("%s %s, %s = %.50v: %d %.200s", r.Method, r.URL.Path, fmt.Sprint(loc...), value.value, a.status, a.body)
	}
}

// The samples are valid, or the errors above may be about something else.
func TestSamplesAreValid(t *testing.T) {
	h := httpapi.NewHandler(options(validates))
	for route, operation := range operations(t) {
		method, path, _ := strings.Cut(route, " ")
		if operation.RequestBody == nil || operation.RequestBody.Value.Content["application/json"] == nil {
			continue
		}
		encoded, err := json.Marshal(maps.Clone(sample(path)))
		if err != nil {
			t.Fatal(err)
		}
		a := serve(h, request(method, strings.Replace(path, "{session_id}", knownSession, 1), string(encoded)))
		if a.status/100 != 2 {
			t.Errorf("%s with %s: %d %s", route, encoded, a.status, a.body)
		}
	}
}
