package mcp

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
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
	// keepAlive keeps proxies from closing an SSE stream on which nothing
	// happens.
	keepAlive = 15 * time.Second
	// closeTime bounds the closing of sessions.
	closeTime = 5 * time.Second
)

// Handlers gives the HTTP transports by their paths, and a function that ends
// their open streams, which a server's graceful shutdown would wait for.
func (s *Server) Handlers() (handlers map[string]http.Handler, endStreams func()) {
	streamable := mcpserver.NewStreamableHTTPServer(s.server,
		mcpserver.WithEndpointPath(StreamablePath),
		mcpserver.WithSessionIdleTTL(sessionIdle),
		mcpserver.WithSessionIdManagerResolver(newSessions()),
		mcpserver.WithStreamableHTTPLogger(s.opts.Log),
		mcpserver.WithDisableLocalhostProtection(true), // hosts are checked in front of all doors
	)
	sse := mcpserver.NewSSEServer(s.server,
		mcpserver.WithSSEEndpoint(SSEPath),
		mcpserver.WithMessageEndpoint(MessagePath),
		mcpserver.WithUseFullURLForMessageEndpoint(false),
		mcpserver.WithKeepAliveInterval(keepAlive),
		mcpserver.WithSSEContextFunc(withHandshake),
		mcpserver.WithSSEDisableLocalhostProtection(true), // as above
		mcpserver.WithSessionIDGenerator(newSSEID),
	)
	serving, cancel := context.WithCancel(context.Background())
	endStreams = func() {
		cancel()
		ctx, done := context.WithTimeout(context.Background(), closeTime)
		defer done()
		if err := streamable.Shutdown(ctx); err != nil {
			s.opts.Log.Warn("closing MCP sessions", "error", err)
		}
	}
	return map[string]http.Handler{
		StreamablePath: ofOwner(s.located(endWith(serving, withStream(withoutStrayNotifications(streamable))))),
		SSEPath:        endWith(serving, asStream(sse.SSEHandler())),
		MessagePath:    ofOwner(s.located(endWith(serving, sse.MessageHandler()))),
	}, endStreams
}

// withHandshake offers revisions of the protocol with a handshake alone. The
// library (v1.2.1) offers all over SSE, and then refuses requests of the newest
// for want of headers, which no client sends over SSE.
func withHandshake(ctx context.Context, _ *http.Request) context.Context {
	versions := slices.DeleteFunc(slices.Clone(mcpsdk.ValidProtocolVersions), mcpsdk.IsModernProtocol)
	return mcpserver.WithSupportedProtocolVersions(ctx, versions)
}

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
func (s *Server) located(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		url := s.opts.PublicURL
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

// fileURL gives the URL of a file, or "" where there is no HTTP API.
func fileURL(ctx context.Context, id string) string {
	if url, ok := ctx.Value(urlKey{}).(string); ok {
		return url + "/v1/files/" + id
	}
	return ""
}

// withoutStrayNotifications takes notifications that belong to no protocol
// session, and drops them: we need none. Since 2026-07-28 there are no sessions,
// and a client that calls off a call closes its request; the library (v1.2.1)
// would cancel whichever client's call has the number. Others it refuses, for
// want of what requests alone must say of themselves, and the official Go SDK
// says nothing.
func withoutStrayNotifications(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		r.Body = &readBody{io.MultiReader(bytes.NewReader(body), failing{err}), r.Body}
		inSession := r.Header.Get(mcpserver.HeaderKeySessionID) != "" && !isModern(r.Header, body)
		if open(body).isNotification() && !inSession {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readBody is a body that has been read, and what closes it.
type readBody struct {
	io.Reader
	io.Closer
}

// failing ends a reader as an error has.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// sseStreams are the streams of the legacy transport by their sessions. The
// library (v1.2.1) does not end a client's calls when its stream ends.
type sseStreams struct {
	mu   sync.Mutex
	open map[string]afterStream
}

// afterStream has a function be called when a stream has ended, unless stop is
// called before.
type afterStream func(then func()) (stop func() bool)

type sseKey struct{}

// asStream marks the requests that are streams.
func asStream(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sseKey{}, true)))
	})
}

// follow has the hooks keep the streams that are open.
func (s *sseStreams) follow(hooks *mcpserver.Hooks) {
	s.open = make(map[string]afterStream)
	hooks.AddOnRegisterSession(func(ctx context.Context, session mcpserver.ClientSession) {
		if ctx.Value(sseKey{}) == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open[session.SessionID()] = func(then func()) func() bool { return context.AfterFunc(ctx, then) }
	})
	hooks.AddOnUnregisterSession(func(_ context.Context, session mcpserver.ClientSession) {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, session.SessionID())
	})
}

// whileConnected gives a context that ends with a call's stream too, if it has
// one.
func (s *sseStreams) whileConnected(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	session := mcpserver.ClientSessionFromContext(ctx)
	if session == nil {
		return ctx, cancel
	}
	s.mu.Lock()
	after := s.open[session.SessionID()]
	s.mu.Unlock()
	if after == nil {
		return ctx, cancel
	}
	detach := after(cancel)
	return ctx, func() {
		detach()
		cancel()
	}
}
