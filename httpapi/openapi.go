package httpapi

import (
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// The parts of the API's description that are not types: groups, examples, and the
// errors that mean the same on every route.
//
// A route is described where it is registered. Its operation has an identifier, a
// summary, a description and one of the tags below. Its Metadata is the result of
// [illustrate], and its Errors are the statuses of its errors. describe adds the rest,
// and tests check that nothing is missing.

// The groups of operations.
const (
	tagRun      = "Run"
	tagFiles    = "Files"
	tagSessions = "Sessions"
	tagService  = "Service"
)

const aboutAPI = "Runs untrusted Python in a sandbox, in milliseconds.\n\n" +
	`An error is {"detail": "a sentence"}, or {"detail": [...]} with one entry for each fault of a request. ` +
	"A program that fails is a result and not an error. Unknown fields of requests are ignored; unknown_fields of the answer names them.\n\n" +
	"Every answer has an X-Request-Id, which identifies the request in the server's log. A wrong method returns 405 with " +
	"Allow. A request from a page of another site, or to a Host that could be a name in the public DNS, returns 403."

func tags() []*huma.Tag {
	return []*huma.Tag{
		{Name: tagRun, Description: "Run a program in a fresh sandbox."},
		{Name: tagSessions, Description: "Keep a sandbox between calls."},
		{Name: tagFiles, Description: "Files for programs, and those that programs have created. They expire."},
		{Name: tagService, Description: "The state of the server."},
	}
}

// OpenAPI returns the API's description as JSON.
func OpenAPI(version string) ([]byte, error) {
	return newAPI(Options{Version: version, Log: slog.New(slog.DiscardHandler)}).huma.OpenAPI().MarshalJSON()
}

// sample is one example.
type sample struct {
	// name identifies an example of a message. An answer with the name of a request is
	// the answer to it.
	name    string
	summary string
	// value has the type that the route decodes or encodes, so that it cannot have
	// unknown fields. It is text if the message is not JSON.
	value any
}

// answer describes the answers of one status.
type answer struct {
	about   string // what the status means; empty keeps the present description
	samples []sample
}

// illustration is what the types of an operation do not express.
type illustration struct {
	requests []sample
	answers  map[int]answer
}

const illustrationKey = "illustration"

// illustrate returns the Metadata of an operation.
func illustrate(i illustration) map[string]any { return map[string]any{illustrationKey: i} }

// describe completes the description when all routes are registered.
func describe(api huma.API) {
	spec := api.OpenAPI()
	used := map[string]bool{}
	for operation := range operations(spec) {
		own, _ := operation.Metadata[illustrationKey].(illustration)
		own.apply(operation)
		illustration{answers: refusals()}.apply(operation)
		describeRetryAfter(operation)
		describeParameters(operation)
		for _, tag := range operation.Tags {
			used[tag] = true
		}
	}
	spec.Tags = slices.DeleteFunc(tags(), func(tag *huma.Tag) bool { return !used[tag.Name] })
}

// operations iterates over the operations of a description, in no order.
func operations(spec *huma.OpenAPI) iter.Seq[*huma.Operation] {
	return func(yield func(*huma.Operation) bool) {
		for _, item := range spec.Paths {
			for _, operation := range []*huma.Operation{item.Get, item.Put, item.Post, item.Patch, item.Delete} {
				if operation != nil && !yield(operation) {
					return
				}
			}
		}
	}
}

// apply adds to an operation the descriptions and examples that it lacks.
func (i illustration) apply(operation *huma.Operation) {
	if operation.RequestBody != nil {
		addExamples(operation.RequestBody.Content, i.requests)
	}
	for status, answer := range i.answers {
		response := operation.Responses[strconv.Itoa(status)]
		if response == nil {
			continue
		}
		if bare := response.Description == "" || response.Description == http.StatusText(status); bare && answer.about != "" {
			response.Description = answer.about
		}
		addExamples(response.Content, answer.samples)
	}
}

// addExamples adds examples to messages that have none.
func addExamples(content map[string]*huma.MediaType, samples []sample) {
	for _, media := range content {
		if len(media.Examples) > 0 || len(samples) == 0 {
			continue
		}
		media.Examples = make(map[string]*huma.Example, len(samples))
		for _, s := range samples {
			media.Examples[s.name] = &huma.Example{Summary: s.summary, Value: s.value}
		}
	}
}

// refusals returns the errors that mean the same on every route.
func refusals() map[int]answer {
	return map[int]answer{
		http.StatusBadRequest: {"The body ends before its Content-Length, or a chunk of it is not valid", []sample{
			refusal("cut", "A body that is cut short", errBroken.Error()),
		}},
		http.StatusUnauthorized: {"The request has no valid key or token; WWW-Authenticate describes how to send one", []sample{
			refusal("none", "No key", notAuthenticated),
		}},
		http.StatusUnsupportedMediaType: {"The body is not declared as JSON", []sample{
			refusal("declared", "Another media type", "Unsupported Media Type: Content-Type must be application/json"),
		}},
		http.StatusTooManyRequests: {"Too many requests run or wait, or the requests of the key use all of its share of the memory; try again after Retry-After", []sample{
			refusal("busy", "The server is busy", "your requests under way hold your share of the server's memory (MAX_IN_FLIGHT_MB); try again later"),
		}},
		http.StatusServiceUnavailable: {"No sandbox is available, the memory for requests is in use, or the server is shutting down", []sample{
			refusal("closing", "The server is shutting down", "the server is shutting down"),
			refusal("no-sandbox", "No sandbox starts", "no sandbox could be started"),
		}},
		http.StatusInternalServerError: {"An internal error; the server's log has the details", []sample{
			refusal("internal", "An internal error", "internal error; the log of the server has more under request LIVSD6U6Q52Y"),
		}},
	}
}

// refusal returns an example of an error. Its detail is a sentence or []fault.
func refusal(name, summary string, detail any) sample {
	return sample{name, summary, apiError{Detail: detail}}
}

// describeRetryAfter describes the header of errors that are temporary.
func describeRetryAfter(operation *huma.Operation) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		if response := operation.Responses[strconv.Itoa(status)]; response != nil {
			response.Headers = map[string]*huma.Param{"Retry-After": {
				Description: "the time after which to try again, in seconds", Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{retryAfter}},
			}}
		}
	}
}

// describeParameters copies the examples of parameters from their schemas, where the
// library puts them.
func describeParameters(operation *huma.Operation) {
	for _, parameter := range operation.Parameters {
		if schema := parameter.Schema; parameter.Example == nil && schema != nil && len(schema.Examples) > 0 {
			parameter.Example = schema.Examples[0]
		}
	}
}
