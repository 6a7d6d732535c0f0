// Package mcp is the Model Context Protocol door: the tools, what a result
// looks like to a model, and the transports. The protocol library's types stay
// in here.
package mcp

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"time"

	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Executor runs programs.
type Executor interface {
	Execute(ctx context.Context, req execution.Request) (*execution.Result, error)
}

// Options configure a [Server].
type Options struct {
	// Executor runs the programs.
	Executor Executor
	// Limits are told to the model.
	Limits execution.Limits
	// Settings are the sandbox's, told to the model.
	Settings execution.Settings
	// Version is the server's.
	Version string
	// Parallel is how many calls one stdio client may have under way. Zero
	// means 5.
	Parallel int
	// Log gets what users must not see.
	Log *slog.Logger
}

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

// Server offers the tools over every transport.
type Server struct {
	server *mcpserver.MCPServer
	opts   Options
}

// New makes a Server.
func New(opts Options) *Server {
	if opts.Parallel == 0 {
		opts.Parallel = 5
	}
	s := &Server{opts: opts}
	s.server = mcpserver.NewMCPServer("vivarium", opts.Version,
		mcpserver.WithToolCapabilities(false),
		mcpserver.WithLogger(opts.Log),
	)
	s.server.AddTool(executeTool(opts), s.execute)
	return s
}

// ServeStdio serves one client until in ends or ctx does, which are both the
// normal end. Nothing but the protocol is written to out.
func (s *Server) ServeStdio(ctx context.Context, in io.Reader, out io.Writer) error {
	stdio := mcpserver.NewStdioServer(s.server)
	mcpserver.WithWorkerPoolSize(s.opts.Parallel)(stdio)
	mcpserver.WithErrorLogger(s.errorLog())(stdio)
	err := stdio.Listen(ctx, in, out)
	if errors.Is(err, context.Canceled) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (s *Server) errorLog() *log.Logger {
	return slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelWarn)
}

// Handlers gives the HTTP transports by their paths, and a function that ends
// their open streams, which a server's graceful shutdown would wait for.
func (s *Server) Handlers() (handlers map[string]http.Handler, endStreams func()) {
	streamable := mcpserver.NewStreamableHTTPServer(s.server,
		mcpserver.WithEndpointPath(StreamablePath),
		mcpserver.WithSessionIdleTTL(sessionIdle),
		mcpserver.WithStreamableHTTPLogger(s.opts.Log),
	)
	sse := mcpserver.NewSSEServer(s.server,
		mcpserver.WithSSEEndpoint(SSEPath),
		mcpserver.WithMessageEndpoint(MessagePath),
		mcpserver.WithUseFullURLForMessageEndpoint(false),
		mcpserver.WithKeepAliveInterval(keepAlive),
	)
	open, cancel := context.WithCancel(context.Background())
	endStreams = func() {
		cancel()
		ctx, done := context.WithTimeout(context.Background(), closeTime)
		defer done()
		if err := streamable.Shutdown(ctx); err != nil {
			s.opts.Log.Warn("closing MCP sessions", "error", err)
		}
	}
	return map[string]http.Handler{
		StreamablePath: endWith(open, streamable),
		SSEPath:        endWith(open, sse.SSEHandler()),
		MessagePath:    endWith(open, sse.MessageHandler()),
	}, endStreams
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
