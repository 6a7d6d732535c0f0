package httpapi_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// allRoutes returns a server that needs a key and has each kind of route, and its
// routes as its router has them.
func allRoutes(t *testing.T) (http.Handler, []httpapi.Route) {
	t.Helper()
	opts := options(validates)
	opts.Auth = known{"anna's key": "anna"}
	opts.Issuer = "https://issuer.example.com"
	answer := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	opts.Mount = map[string]http.Handler{"/mcp": answer, "/sse": answer, "/message": answer}
	routes := httpapi.Routes(opts)
	if len(routes) < 20 {
		t.Fatalf("there are %d routes only", len(routes))
	}
	return httpapi.NewHandler(opts), routes
}

// The policies are a snapshot: a route that is new, or whose policy changes, is seen.
func TestEveryRouteHasAPolicy(t *testing.T) {
	_, routes := allRoutes(t)
	var list bytes.Buffer
	for _, route := range routes {
		_, _ = fmt.Fprintf(&list, "%-55s %s\n", route.Pattern, route.Policy)
	}
	golden(t, "routes.txt", list.Bytes())
}

func TestRouteWithoutPolicyPanics(t *testing.T) {
	defer func() {
		if cause := recover(); cause != `the route "GET /new" has no policy` {
			t.Errorf("the panic is %v", cause)
		}
	}()
	httpapi.RegisterWithoutPolicy(options(validates))
}

// requestTo returns a request that a route serves.
func requestTo(route httpapi.Route) *http.Request {
	method, path, found := strings.Cut(route.Pattern, " ")
	if !found {
		method, path = "PROPFIND", route.Pattern
	}
	path = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(path, "x")
	r := httptest.NewRequest(method, path, http.NoBody)
	r.Host = "localhost"
	return r
}

func TestPoliciesHoldForEveryRoute(t *testing.T) {
	h, routes := allRoutes(t)
	for _, route := range routes {
		if a := serve(h, requestTo(route)); (a.status == http.StatusUnauthorized) == route.Public {
			t.Errorf("%s without a key: %d %s", route.Pattern, a.status, a.body)
		}
		r := requestTo(route)
		r.Header.Set("Authorization", "Bearer anna's key")
		r.Header.Set("Content-Type", "application/json")
		r.Body, r.ContentLength = http.NoBody, route.BodyLimit+1
		if a := serve(h, r); a.status != http.StatusRequestEntityTooLarge || !strings.Contains(a.body, route.Refusal) {
			t.Errorf("%s with a body of %d bytes: %d %s", route.Pattern, r.ContentLength, a.status, a.body)
		}
		r = requestTo(route)
		r.Header.Set("Authorization", "Bearer anna's key")
		r.ContentLength = 1
		isForm := strings.Contains(route.Policy, "file of")
		if a := serve(h, r); (a.status == http.StatusUnsupportedMediaType) != ((r.Method == http.MethodPost || r.Method == http.MethodPatch) && !isForm) {
			t.Errorf("%s with a body that is not declared as JSON: %d %s", route.Pattern, a.status, a.body)
		}
	}
}
