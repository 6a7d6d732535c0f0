package httpapi

import (
	"net/http"
	"strings"
)

const (
	// preflightAge is how long a browser may remember an answer to its question,
	// in seconds.
	preflightAge = "600"
	corsMethods  = "GET, POST, PUT, DELETE"
	corsPrefix   = "Access-Control-"
	// maxAskedBytes bounds the names of headers that an answer repeats.
	maxAskedBytes = 1000
)

// exposedHeaders are those of answers that pages of allowed origins may read
// besides the few that every page may.
func exposedHeaders() string {
	return strings.Join([]string{
		"Content-Disposition", "Mcp-Protocol-Version", "Mcp-Session-Id", "Retry-After", "Server-Timing", "WWW-Authenticate", "X-Request-Id",
	}, ", ")
}

// serveForeign serves a page of an allowed origin, whose browser asks first
// whether it may (https://fetch.spec.whatwg.org/#http-cors-protocol). It sends no
// credentials of its own, such as cookies: a page must have a key or token.
func serveForeign(w *corsWriter, r *http.Request, next http.Handler) {
	w.allow = map[string]string{
		"Access-Control-Allow-Origin":   r.Header.Get("Origin"),
		"Access-Control-Expose-Headers": exposedHeaders(),
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		next.ServeHTTP(w, r)
		return
	}
	w.allow["Access-Control-Allow-Methods"] = corsMethods
	w.allow["Access-Control-Max-Age"] = preflightAge
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" && len(asked) <= maxAskedBytes {
		w.allow["Access-Control-Allow-Headers"] = asked // a "*" would not cover Authorization
		w.Header().Add("Vary", "Access-Control-Request-Headers")
	}
	w.WriteHeader(http.StatusNoContent)
}

// corsWriter sees to it that an answer allows other origins what the guard has
// said and nothing else: a door may have its own mind, as the protocol library's
// SSE handler, which allows all (v1.2.1).
type corsWriter struct {
	http.ResponseWriter
	allow map[string]string // headers; nil allows nothing
	begun bool
}

func (w *corsWriter) begin() {
	if w.begun {
		return
	}
	w.begun = true
	header := w.Header()
	for name := range header {
		if strings.HasPrefix(name, corsPrefix) {
			header.Del(name)
		}
	}
	for name, value := range w.allow {
		header.Set(name, value)
	}
}

func (w *corsWriter) WriteHeader(status int) {
	w.begin()
	w.ResponseWriter.WriteHeader(status)
}

func (w *corsWriter) Write(data []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(data)
}

// Flush serves handlers that ask for a [http.Flusher] by its type.
func (w *corsWriter) Flush() { _ = w.FlushError() }

// FlushError serves [http.ResponseController].
func (w *corsWriter) FlushError() error {
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap serves [http.ResponseController].
func (w *corsWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
