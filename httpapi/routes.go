package httpapi

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// policy defines what the middleware requires of the requests of a route and what it
// allows them. It is given where the route is registered, so that no middleware compares
// paths.
//
// The zero policy is that of most routes: a request needs a key or token, its body is
// JSON of at most MaxBodyBytes, and its client must read the answer within writeTime.
type policy struct {
	// public routes need no key or token: they describe the server and return no data of
	// an owner.
	public bool
	// resource is the route's entry in protectedResources, which a client that lacks a
	// token is referred to.
	resource string
	// body bounds the request's body. Zero is JSON of at most MaxBodyBytes.
	body bodyPolicy
	// ignoresBody routes refuse all requests, whatever their bodies are.
	ignoresBody bool
	// longAnswer charges a request that only reads like one that runs or creates
	// something: its answer may take as much memory.
	longAnswer bool
	// ownDeadlines leaves the time for the answer to the handler.
	ownDeadlines bool
	// isStream reports whether a request opens a stream that lasts as long as its
	// client. Nil is none.
	isStream func(r *http.Request) bool
}

// bodyPolicy bounds the body of a request.
type bodyPolicy struct {
	limit   int64
	refusal string // the detail of the answer to a larger body
	within  time.Duration
	// isFile marks a body that is forwarded while it arrives. It need not be JSON, and
	// takes the memory of the transfer only, whatever its size.
	isFile bool
}

func (p policy) opensStream(r *http.Request) bool { return p.isStream != nil && p.isStream(r) }

// needsJSON reports whether the body of a request must be JSON.
func (p policy) needsJSON(r *http.Request) bool {
	return (r.Method == http.MethodPost || r.Method == http.MethodPatch) && r.ContentLength != 0 && !p.body.isFile && !p.ignoresBody
}

// api is the HTTP API: its routes, and what they need.
type api struct {
	opts     Options
	memory   memory
	mux      *http.ServeMux
	policies map[string]policy // by the pattern of the route in mux
	huma     huma.API
}

// newAPI returns an API with all its routes.
func newAPI(opts Options) *api {
	a := &api{opts: opts, memory: newMemory(opts), mux: http.NewServeMux(), policies: make(map[string]policy)}
	a.huma = a.newHuma()
	a.registerExecute()
	a.registerStream()
	a.registerSessions()
	a.registerFiles()
	a.registerHealth()
	if opts.Auth != nil {
		a.describeAuthentication()
	}
	describe(a.huma)
	a.registerDocs()
	a.registerResources()
	a.registerMounted()
	a.refuseOtherMethods()
	a.handle("/", policy{ignoresBody: true}, notFound)
	return a
}

// newHuma returns the library's part of the API, which serves the description.
func (a *api) newHuma() huma.API {
	config := huma.DefaultConfig("Vivarium", a.opts.Version)
	config.Info.Description = aboutAPI
	config.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	config.AllowAdditionalPropertiesByDefault = true // unknown fields are ignored
	config.CreateHooks = nil                         // no $schema field in answers
	config.DocsPath = ""                             // ours loads nothing from other hosts
	config.SchemasPath = ""
	json := huma.Format{Marshal: writeAnswer, Unmarshal: unmarshal}
	config.Formats = map[string]huma.Format{"application/json": json, "json": json}

	a.policies["GET /openapi.json"] = policy{public: true}
	for _, variant := range []string{"-3.0.json", ".yaml", "-3.0.yaml"} {
		a.policies["GET /openapi"+variant] = policy{}
	}
	return humago.New(a, config)
}

// handle adds a route.
func (a *api) handle(pattern string, p policy, handler http.HandlerFunc) {
	if p.body == (bodyPolicy{}) {
		p.body = a.jsonBody()
	}
	a.policies[pattern] = p
	a.mux.Handle(pattern, a.behind(p, handler))
}

// jsonBody bounds a body in JSON.
func (a *api) jsonBody() bodyPolicy {
	return bodyPolicy{limit: a.opts.MaxBodyBytes, refusal: bodyTooLarge(a.opts.MaxBodyBytes), within: readBodyTime}
}

// HandleFunc implements [humago.Mux]: the library adds its routes by it. It panics for
// a route that has no policy.
func (a *api) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	p, ok := a.policies[pattern]
	if !ok {
		panic(fmt.Sprintf("the route %q has no policy", pattern))
	}
	a.handle(pattern, p, handler)
}

// ServeHTTP implements [humago.Mux].
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// register adds a route that the library decodes and describes.
func register[In, Out any](a *api, p policy, op huma.Operation, handler func(ctx context.Context, in *In) (*Out, error)) {
	op.MaxBodyBytes = -1 // the middleware bounds it
	// The library would lift the middleware's deadline if this were not set.
	op.BodyReadTimeout = readBodyTime
	a.policies[op.Method+" "+op.Path] = p
	huma.Register(a.huma, op, handler)
}

// registerRaw adds a route that reads and writes its messages itself: the library
// would hold a whole file in memory.
func (a *api) registerRaw(p policy, op huma.Operation, handler func(w http.ResponseWriter, r *http.Request) error) {
	describeErrors(a.huma, &op)
	a.huma.OpenAPI().AddOperation(&op)
	a.handle(op.Method+" "+wildcard(op.Path), p, func(w http.ResponseWriter, r *http.Request) {
		if err := handler(w, r); err != nil {
			a.writeError(w, r, err)
		}
	})
}

// wildcard returns the mux's pattern for a path of the description: a file's path
// contains slashes, which OpenAPI cannot express.
func wildcard(path string) string { return strings.Replace(path, "{path}", "{path...}", 1) }

// registerMounted adds the routes of other doors.
func (a *api) registerMounted() {
	for pattern, handler := range a.opts.Mount {
		p := policy{ownDeadlines: true}
		switch pattern {
		case mcpPath:
			p.resource, p.isStream = mcpPath, listensToMCP
		case ssePath:
			p.isStream = isGet
		}
		if methods, known := mountedMethods()[pattern]; known {
			for _, method := range methods {
				a.handle(method+" "+pattern, p, handler.ServeHTTP)
			}
			continue
		}
		a.handle(pattern, p, handler.ServeHTTP)
	}
}

// mountedMethods returns the methods of other doors, by their patterns.
func mountedMethods() map[string][]string {
	return map[string][]string{
		mcpPath:     {http.MethodDelete, http.MethodGet, http.MethodPost},
		ssePath:     {http.MethodGet},
		messagePath: {http.MethodPost},
	}
}

// refuseOtherMethods answers 405 for the other methods of each path, in the API's shape,
// also without a key. The description names the methods to everyone.
func (a *api) refuseOtherMethods() {
	methods := make(map[string][]string) // by path
	for pattern := range a.policies {
		if method, path, found := strings.Cut(pattern, " "); found {
			methods[path] = append(methods[path], method)
		}
	}
	for path := range maps.Keys(methods) {
		allowed := slices.Sorted(slices.Values(methods[path]))
		a.handle(path, policy{public: true, ignoresBody: true}, methodNotAllowed(strings.Join(allowed, ", ")))
	}
}

func methodNotAllowed(allowed string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", allowed)
		writeDetail(w, http.StatusMethodNotAllowed, "Method Not Allowed")
	}
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeDetail(w, http.StatusNotFound, "Not Found")
}
