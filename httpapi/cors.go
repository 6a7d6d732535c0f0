package httpapi

// CORS is our own. rs/cors (v1.11.1) leaves the headers in place that a door sets
// itself, so that a page of any origin could read its answers, and repeats any number
// of header names. Our tests fail with it.

import (
	"maps"
	"net/http"
	"strings"
)

const (
	// preflightAge is how long a browser may cache the answer to a preflight request,
	// in seconds.
	preflightAge = "600"
	corsMethods  = "GET, POST, PUT, PATCH, DELETE"
	corsPrefix   = "Access-Control-"
	// maxAskedBytes bounds the names of headers that an answer repeats.
	maxAskedBytes = 1000
)

// exposedHeaders returns the headers of answers that pages of allowed origins may read,
// besides those that any page may.
func exposedHeaders() string {
	return strings.Join([]string{
		"Content-Disposition", "Mcp-Protocol-Version", "Mcp-Session-Id", "Retry-After", "Server-Timing", "WWW-Authenticate", "X-Request-Id",
	}, ", ")
}

// serveForeign serves a page of an allowed origin. It answers the browser's preflight
// request (https://fetch.spec.whatwg.org/#http-cors-protocol). It does not allow
// credentials such as cookies: a page must have a key or token.
func serveForeign(w http.ResponseWriter, r *http.Request, next http.Handler) {
	allowed := map[string]string{
		"Access-Control-Allow-Origin":   r.Header.Get("Origin"),
		"Access-Control-Expose-Headers": exposedHeaders(),
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		next.ServeHTTP(allowing(w, allowed), r)
		return
	}
	allowed["Access-Control-Allow-Methods"] = corsMethods
	allowed["Access-Control-Max-Age"] = preflightAge
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" && len(asked) <= maxAskedBytes {
		allowed["Access-Control-Allow-Headers"] = asked // a "*" would not cover Authorization
		w.Header().Add("Vary", "Access-Control-Request-Headers")
	}
	allowing(w, allowed).WriteHeader(http.StatusNoContent)
}

// allowing returns a writer whose answers allow other origins what is given and
// nothing else. A door may set headers of its own, as the protocol library's SSE
// handler does, which allows all origins (v1.2.1).
func allowing(w http.ResponseWriter, allowed map[string]string) http.ResponseWriter {
	return beforeAnswer(w, func(int) {
		header := w.Header()
		maps.DeleteFunc(header, func(name string, _ []string) bool { return strings.HasPrefix(name, corsPrefix) })
		for name, value := range allowed {
			header.Set(name, value)
		}
	})
}
