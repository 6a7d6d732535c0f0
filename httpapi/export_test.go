package httpapi

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// ExampleFileID and ExampleSessionID are the identifiers in the examples.
const (
	ExampleFileID    = exampleFileID
	ExampleSessionID = exampleSessionID
)

// Route is a route as the router has it.
type Route struct {
	Pattern, Policy, Refusal string
	Public                   bool
	BodyLimit                int64
}

// Routes returns all routes of an API, by their patterns.
func Routes(opts Options) []Route {
	a := newAPI(opts)
	var routes []Route
	for _, pattern := range slices.Sorted(maps.Keys(a.policies)) {
		p := a.policies[pattern]
		routes = append(routes, Route{pattern, p.String(), p.body.refusal, p.public, p.body.limit})
	}
	return routes
}

// RegisterWithoutPolicy adds a route as the library does, but without a policy.
func RegisterWithoutPolicy(opts Options) { newAPI(opts).HandleFunc("GET /new", http.NotFound) }

func (p policy) String() string {
	kind := "JSON"
	if p.body.isFile {
		kind = "file"
	}
	text := []string{fmt.Sprintf("%s of %d bytes in %v", kind, p.body.limit, p.body.within)}
	for name, set := range map[string]bool{
		"public": p.public, "resource " + p.resource: p.resource != "", "long answer": p.longAnswer,
		"own deadlines": p.ownDeadlines, "ignored": p.ignoresBody, "streams": p.isStream != nil,
	} {
		if set {
			text = append(text, name)
		}
	}
	slices.Sort(text)
	return strings.Join(text, ", ")
}
