package httpapi

import (
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// What the API's description says beside types: groups, examples, and the
// refusals that mean the same on every route.
//
// A route describes itself where it is registered. Its operation has an
// identifier, a summary, a description and one of the tags below; its Metadata
// is what [illustrate] makes of its examples, and its Errors are the statuses
// that it may refuse with. describe does the rest, and tests hold that nothing
// is left out.

// The groups of operations.
const (
	tagRun      = "Run"
	tagFiles    = "Files"
	tagSessions = "Sessions"
	tagService  = "Service"
)

const aboutAPI = "Runs Python that nobody has read, in a sandbox, in milliseconds.\n\n" +
	`An error is {"detail": "a sentence"}, or {"detail": [...]} with one entry for each fault of a request. ` +
	"A program that fails is no error. Unknown fields of requests are ignored.\n\n" +
	"Every answer has an X-Request-Id, under which the server's log knows it. A wrong method is 405, with Allow; a " +
	"request from another site's page, or to a Host that somebody can own in the public DNS, is 403."

func tags() []*huma.Tag {
	return []*huma.Tag{
		{Name: tagRun, Description: "Run a program in a fresh sandbox."},
		{Name: tagSessions, Description: "Keep a sandbox between calls."},
		{Name: tagFiles, Description: "Files for programs, and those that programs have made. They expire."},
		{Name: tagService, Description: "How the server is."},
	}
}

// OpenAPI gives the API's description as JSON.
func OpenAPI(version string) ([]byte, error) {
	return newAPI(Options{Version: version, Log: slog.New(slog.DiscardHandler)}).huma.OpenAPI().MarshalJSON()
}

// sample is one example.
type sample struct {
	// name tells a message's examples apart. An answer that has the name of a
	// request is the answer to it.
	name    string
	summary string
	// value is of the type that the route takes or gives, so that it cannot
	// have fields that there are none of; text where the message is no JSON.
	value any
}

// answer describes the answers of one status.
type answer struct {
	about   string // what the status means here; empty leaves what is there
	samples []sample
}

// illustration is what the types of an operation do not say.
type illustration struct {
	requests []sample
	answers  map[int]answer
}

const illustrationKey = "illustration"

// illustrate makes an operation's Metadata.
func illustrate(i illustration) map[string]any { return map[string]any{illustrationKey: i} }

// describe completes the description when all routes are registered.
func describe(api huma.API) {
	spec := api.OpenAPI()
	used := map[string]bool{}
	for operation := range operations(spec) {
		own, _ := operation.Metadata[illustrationKey].(illustration)
		own.apply(operation)
		illustration{answers: refusals()}.apply(operation)
		tellRetryAfter(operation)
		tellParameters(operation)
		for _, tag := range operation.Tags {
			used[tag] = true
		}
	}
	spec.Tags = slices.DeleteFunc(tags(), func(tag *huma.Tag) bool { return !used[tag.Name] })
}

// operations lists the operations of a description, in no order.
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

// apply adds to an operation what it does not have yet.
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

// refusals are the answers that mean the same on every route.
func refusals() map[int]answer {
	return map[int]answer{
		http.StatusUnauthorized: {"The request has no valid key or token; WWW-Authenticate says how to send one", []sample{
			refusal("none", "No key", notAuthenticated),
		}},
		http.StatusUnsupportedMediaType: {"The body is declared as something other than JSON", []sample{
			refusal("declared", "Another media type", "Unsupported Media Type: Content-Type must be application/json"),
		}},
		http.StatusTooManyRequests: {"As much runs and waits as may, or the key's share of the memory is held; Retry-After says when to try again", []sample{
			refusal("busy", "The server is busy", "your requests under way hold your share of the server's memory (MAX_IN_FLIGHT_MB); try again later"),
		}},
		http.StatusServiceUnavailable: {"No sandbox is available, the memory for requests is held, or the server is shutting down", []sample{
			refusal("closing", "The server is shutting down", "the server is shutting down"),
			refusal("no-sandbox", "No sandbox starts", "no sandbox could be started"),
		}},
		http.StatusInternalServerError: {"The server's own fault; its log has more", []sample{
			refusal("internal", "A fault of the server's", "internal error; the log of the server has more under request LIVSD6U6Q52Y"),
		}},
	}
}

// refusal is an example of an error. Its detail is a sentence or []fault.
func refusal(name, summary string, detail any) sample {
	return sample{name, summary, apiError{Detail: detail}}
}

// tellRetryAfter describes the header of answers that ask for patience.
func tellRetryAfter(operation *huma.Operation) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		if response := operation.Responses[strconv.Itoa(status)]; response != nil {
			response.Headers = map[string]*huma.Param{"Retry-After": {
				Description: "seconds after which to try again", Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{retryAfter}},
			}}
		}
	}
}

// tellParameters gives parameters the examples that the library puts in their
// schemas alone.
func tellParameters(operation *huma.Operation) {
	for _, parameter := range operation.Parameters {
		if schema := parameter.Schema; parameter.Example == nil && schema != nil && len(schema.Examples) > 0 {
			parameter.Example = schema.Examples[0]
		}
	}
}
