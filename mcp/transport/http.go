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
	// sessionIdle is when a client of the streamable transport that sends
	// nothing any more is forgotten. It can initialize again.
	sessionIdle = time.Hour
	// closeTime bounds the closing of sessions.
	closeTime = 5 * time.Second
)

// Handlers gives the HTTP transports by their paths, and a function that ends
// their open streams, which a server's graceful shutdown would wait for.
func (t *Transports) Handlers() (handlers map[string]http.Handler, endStreams func()) {
	known := newSessions()
	streamable := mcpserver.NewStreamableHTTPServer(t.opts.Server,
		mcpserver.WithEndpointPath(StreamablePath),
		mcpserver.WithSessionIdleTTL(sessionIdle),
		mcpserver.WithSessionIdManagerResolver(known),
		mcpserver.WithStreamableHTTPLogger(t.opts.Log),
		mcpserver.WithDisableLocalhostProtection(true), // hosts are checked in front of all doors
	)
	legacy := t.newSSE()
	serving, cancel := context.WithCancel(context.Background())
	endStreams = func() {
		cancel()
		ctx, done := context.WithTimeout(context.Background(), closeTime)
		defer done()
		if err := streamable.Shutdown(ctx); err != nil {
			t.opts.Log.Warn("closing MCP sessions", "error", err)
		}
	}
	return map[string]http.Handler{
		StreamablePath: ofOwner(t.located(endWith(serving, paced(known.checked(withStream(known.keeping(streamable))))))),
		SSEPath:        t.located(endWith(serving, paced(http.HandlerFunc(legacy.serveStream)))),
		MessagePath:    ofOwner(http.HandlerFunc(legacy.serveMessage)),
	}, endStreams
}

// paced ends the connections of clients that do not read what they are told.
func paced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(pacedWriter{w}, r) })
}

// readTime is how long a client may take to read a message.
const readTime = 2 * time.Minute

type pacedWriter struct{ http.ResponseWriter }

func (w pacedWriter) extend() {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(readTime)) // not for test recorders
}

func (w pacedWriter) Write(data []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(data)
}

// FlushError serves [http.ResponseController].
func (w pacedWriter) FlushError() error {
	w.extend()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush serves handlers that ask for a [http.Flusher] by its type.
func (w pacedWriter) Flush() { _ = w.FlushError() }

// Unwrap serves [http.ResponseController].
func (w pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// endWith ends a handler's requests when ctx ends. The library's own Shutdown
// (v1.2.1) closes the streams of a server that it has started itself alone.
func endWith(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		both, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		next.ServeHTTP(w, r.WithContext(both))
	})
}

type urlKey struct{}

// located has results tell by which URL a file can be had.
func (t *Transports) located(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		url := t.opts.PublicURL
		if url == "" {
			scheme := "http"
			if r.TLS != nil {
				scheme = "https"
			}
			url = scheme + "://" + r.Host
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), urlKey{}, url)))
	})
}

// BaseURL returns the URL of the HTTP API that a request reached, or "" without one.
func BaseURL(ctx context.Context) string {
	url, _ := ctx.Value(urlKey{}).(string)
	return url
}
