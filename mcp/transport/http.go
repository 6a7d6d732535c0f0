package transport

import (
	"context"
	"net/http"
	"time"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

// Paths of the HTTP transports.
const (
	StreamablePath = "/mcp"
	SSEPath        = "/sse"
	MessagePath    = "/message"
)

const (
	// sessionIdle is how long the library keeps a protocol session that is not used. The
	// client can initialize again.
	sessionIdle = time.Hour
	// closeTime bounds the closing of protocol sessions.
	closeTime = 5 * time.Second
	// readTime is how long a client may take to read a message.
	readTime = 2 * time.Minute
)

// Handlers returns the HTTP transports by their paths, and a function that ends their open
// streams. A server's graceful shutdown would wait for the streams.
func (t *Transports) Handlers() (handlers map[string]http.Handler, endStreams func()) {
	known := newSessions(t.opts.Instance)
	streamable := mcpserver.NewStreamableHTTPServer(t.opts.Server,
		mcpserver.WithEndpointPath(StreamablePath),
		mcpserver.WithSessionIdleTTL(sessionIdle),
		mcpserver.WithSessionIdManagerResolver(known),
		mcpserver.WithStreamableHTTPLogger(t.opts.Log),
		mcpserver.WithDisableLocalhostProtection(true), // httpapi checks hosts for all routes
	)
	legacy := &sse{transports: t}
	serving, cancel := context.WithCancel(context.Background())
	endStreams = func() {
		cancel()
		ctx, done := context.WithTimeout(context.Background(), closeTime)
		defer done()
		if err := streamable.Shutdown(ctx); err != nil {
			t.opts.Log.Warn("closing MCP sessions failed", "error", err)
		}
	}
	return map[string]http.Handler{
		StreamablePath: requireOwnSession(t.withBaseURL(endWith(serving, writeDeadlines(known.checked(withStream(known.keeping(streamable))))))),
		SSEPath:        t.withBaseURL(endWith(serving, writeDeadlines(http.HandlerFunc(legacy.serveStream)))),
		MessagePath:    requireOwnSession(http.HandlerFunc(legacy.serveMessage)),
	}, endStreams
}

// writeDeadlines ends the connections of clients that do not read.
func writeDeadlines(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(deadlineWriter{w}, r) })
}

// deadlineWriter extends the connection's deadline with each write.
type deadlineWriter struct{ http.ResponseWriter }

func (w deadlineWriter) extend() {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(readTime)) // test recorders have none
}

func (w deadlineWriter) Write(data []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(data)
}

// FlushError serves [http.ResponseController].
func (w deadlineWriter) FlushError() error {
	w.extend()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush serves handlers that ask for a [http.Flusher] by its type.
func (w deadlineWriter) Flush() { _ = w.FlushError() }

// Unwrap serves [http.ResponseController].
func (w deadlineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// endWith ends a handler's requests when ctx ends. The library's Shutdown (v1.2.1) ends the
// streams of GET requests, but not those of subscriptions/listen.
func endWith(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		both, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		next.ServeHTTP(w, r.WithContext(both))
	})
}

type baseURLKey struct{}

// withBaseURL notes the URL of the HTTP API in the context of requests.
func (t *Transports) withBaseURL(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		url := t.opts.PublicURL
		if url == "" {
			scheme := "http"
			if r.TLS != nil {
				scheme = "https"
			}
			url = scheme + "://" + r.Host
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), baseURLKey{}, url)))
	})
}

// BaseURL returns the URL of the HTTP API for a request that came over HTTP, else "".
func BaseURL(ctx context.Context) string {
	url, _ := ctx.Value(baseURLKey{}).(string)
	return url
}
