package httpapi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/vivarium-sandbox/vivarium/httpapi"
)

func TestOpenAPI(t *testing.T) {
	served := servedOpenAPI(t)
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, served, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	golden(t, "openapi.json", pretty.Bytes())

	alone, err := httpapi.OpenAPI("1.2.3")
	if err != nil || canonical(t, string(alone)) != canonical(t, string(served)) {
		t.Errorf("what OpenAPI returns differs from what is served: %v", err)
	}
}

func servedOpenAPI(t *testing.T) []byte {
	t.Helper()
	a := serve(handler(validates), request(http.MethodGet, "/openapi.json", ""))
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return []byte(a.body)
}

// The description is valid: its form, its references and every example against its
// schema, also if unknown fields are errors.
func TestOpenAPIIsValid(t *testing.T) {
	open := servedOpenAPI(t)
	for name, text := range map[string][]byte{"as it is": open, "closed": closed(open)} {
		t.Run(name, func(t *testing.T) {
			if err := validate(t, text); err != nil {
				t.Error(err)
			}
		})
	}
}

// The test above can fail.
func TestOpenAPIValidatorFindsFaults(t *testing.T) {
	open := string(servedOpenAPI(t))
	for name, change := range map[string][2]string{
		"a mistyped field":  {`"timeout_ms":500`, `"timeout_ms":"500"`},
		"a missing field":   {`"value":{"code":`, `"value":{"kode":`},
		"an unknown field":  {`"value":{"code":`, `"value":{"cod":1,"code":`},
		"an unknown reason": {`"reason":"exited"`, `"reason":"bored"`},
		"a wrong error":     {`"value":{"detail":"`, `"value":{"detail":5,"x":"`},
		"a wrong reference": {`schemas/Usage"`, `schemas/Use"`},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.ReplaceAll(open, change[0], change[1])
			if changed == open {
				t.Fatalf("%s is not in the description", change[0])
			}
			if err := validate(t, closed([]byte(changed))); err == nil {
				t.Error("it is not found")
			}
		})
	}
}

// closed makes unknown fields errors.
func closed(spec []byte) []byte {
	return bytes.ReplaceAll(spec, []byte(`"additionalProperties":true`), []byte(`"additionalProperties":false`))
}

func validate(t *testing.T, text []byte) error {
	t.Helper()
	spec, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return err
	}
	faults := []error{spec.Validate(t.Context(), openapi3.DisableExamplesValidation(), openapi3.EnableMultiError())}
	schemas := newSchemas(t, text)
	walk(schemas.document, "", func(at string, node map[string]any) {
		faults = append(faults, schemas.checkExamples(at, node)...)
	})
	return errors.Join(faults...)
}

// schemas validates values against the schemas of a description. The OpenAPI library does
// not follow JSON Schema 2020-12 where there is a $ref.
type schemas struct {
	document any
	compiler *jsonschema.Compiler
}

func newSchemas(t *testing.T, text []byte) schemas {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("openapi.json", document); err != nil {
		t.Fatal(err)
	}
	return schemas{document, compiler}
}

// check validates a value against the schema at a JSON pointer.
func (s schemas) check(pointer string, value any) error {
	schema, err := s.compiler.Compile("openapi.json#" + pointer)
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// checkExamples checks the examples of a message, a parameter or a schema.
func (s schemas) checkExamples(at string, node map[string]any) []error {
	var faults []error
	switch examples := node["examples"].(type) {
	case map[string]any:
		for name, example := range examples {
			if err := s.check(at+"/schema", example.(map[string]any)["value"]); err != nil {
				faults = append(faults, fmt.Errorf("%s, the example %s: %w", at, name, err))
			}
		}
	case []any:
		for _, example := range examples {
			faults = append(faults, s.check(at, example))
		}
	}
	if example, ok := node["example"]; ok {
		faults = append(faults, s.check(at+"/schema", example))
	}
	return faults
}

// walk visits every object except those within examples.
func walk(node any, at string, visit func(at string, node map[string]any)) {
	switch node := node.(type) {
	case map[string]any:
		visit(at, node)
		for key, child := range node {
			if key != "examples" && key != "example" {
				walk(child, at+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(key), visit)
			}
		}
	case []any:
		for i, child := range node {
			walk(child, at+"/"+strconv.Itoa(i), visit)
		}
	}
}

func loadOpenAPI(t *testing.T, text []byte) *openapi3.T {
	t.Helper()
	spec, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// operations lists the operations of the description by method and path.
func operations(t *testing.T) map[string]*openapi3.Operation {
	t.Helper()
	found := map[string]*openapi3.Operation{}
	for path, item := range loadOpenAPI(t, servedOpenAPI(t)).Paths.Map() {
		for method, operation := range item.Operations() {
			found[method+" "+path] = operation
		}
	}
	return found
}

// Every operation has a description and one group.
func TestOperationsAreDescribed(t *testing.T) {
	groups := loadOpenAPI(t, servedOpenAPI(t)).Tags
	for route, operation := range operations(t) {
		t.Run(route, func(t *testing.T) {
			if !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(operation.OperationID) {
				t.Errorf("the identifier is %q", operation.OperationID)
			}
			if operation.Summary == "" || operation.Description == "" {
				t.Errorf("summary %q, description %q", operation.Summary, operation.Description)
			}
			if len(operation.Tags) != 1 || groups.Get(operation.Tags[0]) == nil {
				t.Errorf("the groups are %q", operation.Tags)
			}
			for _, parameter := range operation.Parameters {
				if parameter.Value.Description == "" || parameter.Value.Example == nil {
					t.Errorf("the parameter %s has no description or no example", parameter.Value.Name)
				}
			}
		})
	}
}

// Every request and every answer has an example.
func TestOperationsHaveExamples(t *testing.T) {
	for route, operation := range operations(t) {
		t.Run(route, func(t *testing.T) {
			if operation.RequestBody != nil {
				wantExamples(t, "the request", operation.RequestBody.Value.Content)
			}
			if operation.Responses.Default() != nil {
				t.Error("an answer is described without its status")
			}
			for status, answer := range operation.Responses.Map() {
				code, err := strconv.Atoi(status)
				if err != nil || *answer.Value.Description == "" || *answer.Value.Description == http.StatusText(code) {
					t.Errorf("%s is described as %q", status, *answer.Value.Description)
				}
				if len(answer.Value.Content) == 0 && code != http.StatusNoContent {
					t.Errorf("%s has no content", status)
				}
				wantExamples(t, status, answer.Value.Content)
			}
		})
	}
}

func wantExamples(t *testing.T, what string, content openapi3.Content) {
	t.Helper()
	for kind, media := range content {
		if len(media.Examples) == 0 {
			t.Errorf("%s has no example as %s", what, kind)
		}
		for name, example := range media.Examples {
			if example.Value.Summary == "" || example.Value.Value == nil {
				t.Errorf("the example %s of %s has no summary or no value", name, what)
			}
		}
	}
}

// The examples of streams have the form that the server sends, and their events match
// their schemas.
func TestStreamExamples(t *testing.T) {
	schemas := newSchemas(t, closed(servedOpenAPI(t)))
	seen := map[string]bool{}
	walk(schemas.document, "", func(at string, node map[string]any) {
		if node["x-events"] == nil {
			return
		}
		for _, example := range node["examples"].(map[string]any) {
			for _, event := range events(t, example.(map[string]any)["value"].(string)) {
				seen[event.name] = true
				data, err := jsonschema.UnmarshalJSON(strings.NewReader(event.data))
				if err := errors.Join(err, schemas.check(at+"/x-events/"+event.name, data)); err != nil {
					t.Errorf("%s %s: %v", event.name, event.data, err)
				}
			}
		}
	})
	if names := slices.Sorted(maps.Keys(seen)); !slices.Equal(names, []string{"error", "output", "result"}) {
		t.Errorf("the events are %q", names)
	}
}

// exampleEvent is an event as the server writes it.
type exampleEvent struct{ name, data string }

// events splits a stream into its events. Every byte must belong to an event.
func events(t *testing.T, stream string) []exampleEvent {
	t.Helper()
	form := regexp.MustCompile(`event: (.+)\ndata: (.+)\n\n`)
	var found []exampleEvent
	for _, match := range form.FindAllStringSubmatch(stream, -1) {
		found = append(found, exampleEvent{match[1], match[2]})
	}
	if rest := form.ReplaceAllString(stream, ""); rest != "" {
		t.Errorf("%q is not an event", rest)
	}
	return found
}

// The server accepts every example of a request.
func TestRequestExamplesAreAccepted(t *testing.T) {
	files, _ := filesHandler(t)
	id := upload(t, files, "scores.csv", "name,score\n")
	for route, operation := range operations(t) {
		t.Run(route, func(t *testing.T) {
			method, path, _ := strings.Cut(route, " ")
			if operation.RequestBody == nil || operation.RequestBody.Value.Content.Get("application/json") == nil {
				return
			}
			for name, example := range operation.RequestBody.Value.Content.Get("application/json").Examples {
				body, err := json.Marshal(example.Value.Value)
				if err != nil {
					t.Fatal(err)
				}
				sent := strings.ReplaceAll(string(body), httpapi.ExampleFileID, id)
				if a := serve(files, request(method, strings.ReplaceAll(path, "{session_id}", knownSession), sent)); a.status >= http.StatusBadRequest {
					t.Errorf("%s: %d %s", name, a.status, a.body)
				}
			}
		})
	}
}

var exampleIDs = strings.NewReplacer("{file_id}", httpapi.ExampleFileID, "{session_id}", httpapi.ExampleSessionID)

// The examples of errors are what the server returns.
func TestErrorExamplesAreReturned(t *testing.T) {
	h, _ := filesHandler(t)
	spec := loadOpenAPI(t, servedOpenAPI(t))
	for _, test := range []struct{ method, path, kind, body, status, example string }{
		{"POST", "/v1/execute", "application/json", `{"stdin": "Ada"}`, "422", "missing"},
		{"POST", "/v1/execute", "application/json", `{"code": "", "timeout_ms": 5.5}`, "422", "number"},
		{"POST", "/v1/execute", "application/json", `{"code": "", "timeout_ms": 60001}`, "422", "timeout"},
		{"POST", "/v1/execute", "application/json", `{"code": "", "files": [{"path": "../x", "content_base64": ""}]}`, "422", "path"},
		{"POST", "/v1/execute", "application/json", `{"code": "", "files": [{"path": "data/scores.csv", "file_id": "` + httpapi.ExampleFileID + `"}]}`, "404", "unknown-file"},
		{"POST", "/v1/execute", "text/plain", `{"code": ""}`, "415", "declared"},
		{"POST", "/v1/sessions", "application/json", `{"ttl_seconds": 90000}`, "422", "ttl"},
		{"DELETE", "/v1/sessions/{session_id}", "", "", "404", "unknown"},
		{"POST", "/v1/sessions/{session_id}/bash", "application/json", "{}", "422", "missing"},
		{"POST", "/v1/sessions/{session_id}/bash", "application/json", `{"cmd": "ls"}`, "404", "unknown"},
		{"POST", "/v1/sessions/{session_id}/execute", "application/json", `{"code": "1"}`, "404", "unknown"},
		{"POST", "/v1/sessions/{session_id}/execute/stream", "application/json", `{"code": "1"}`, "404", "unknown"},
		{"POST", "/v1/files", "multipart/form-data; boundary=x", "--x--\r\n", "422", "missing"},
		{"GET", "/v1/files/{file_id}", "", "", "404", "unknown"},
		{"DELETE", "/v1/files/{file_id}", "", "", "404", "unknown"},
	} {
		t.Run(test.method+" "+test.path+" "+test.status+" "+test.example, func(t *testing.T) {
			r := request(test.method, exampleIDs.Replace(test.path), test.body)
			r.Header.Set("Content-Type", test.kind)
			a := serve(h, r)
			answer := spec.Paths.Find(test.path).GetOperation(test.method).Responses.Value(test.status)
			want, err := json.Marshal(answer.Value.Content.Get("application/json").Examples[test.example].Value.Value)
			if err != nil || strconv.Itoa(a.status) != test.status || canonical(t, a.body) != canonical(t, string(want)) {
				t.Errorf("%d %s\nis not\n%s %s (%v)", a.status, a.body, test.status, want, err)
			}
		})
	}
}
