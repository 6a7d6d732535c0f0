// Package mcp is the Model Context Protocol door: the tools, what a result
// looks like to a model, and the transports. The protocol library's types stay
// in here.
package mcp

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/mcp/conformance"
	"github.com/vivarium-sandbox/vivarium/mcp/render"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// Executor runs programs.
type Executor interface {
	Execute(ctx context.Context, req execution.Request) (*execution.Result, error)
}

// Sessions are sandboxes that clients keep.
type Sessions interface {
	Create(ctx context.Context, ttl time.Duration, files []execution.Input) (execution.SessionInfo, error)
	Call(ctx context.Context, id string, operation execution.Operation, req execution.Request) (*execution.Result, error)
	Delete(ctx context.Context, id string) error
}

// Files keeps what programs make.
type Files interface {
	filestore.Files
	Stat(ctx context.Context, id string) (filestore.Info, error)
	Get(ctx context.Context, id string) (*filestore.File, error)
}

// Options configure a [Server].
type Options struct {
	// Executor runs the programs.
	Executor Executor
	// Sessions are those of the tools that have one.
	Sessions Sessions
	// Files takes what programs make, and has what they are given by id.
	Files Files
	// Limits and Settings are the sandbox's. They are told to the model.
	Limits   execution.Limits
	Settings execution.Settings
	// Backend names where sandboxes come from: "docker", "local", or "" as long as
	// that is not decided. It is told to the model. Nil means that it is not known.
	Backend func() string
	// SessionTTL is how long a session that a model begins may last. FileTTL is how
	// long Files keeps one, which is told alone.
	SessionTTL, FileTTL time.Duration
	// OutputBytes is how much of a program's output a model is shown. Zero means
	// 30,000.
	OutputBytes int
	// AwaitPrepared says that [Server.Prepared] will be called.
	AwaitPrepared bool
	// PublicURL is where clients find the HTTP API, without a slash at its end.
	// Empty means where each request has gone to.
	PublicURL string
	// Version is the server's.
	Version string
	// Parallel is how many calls one client of stdio or SSE may have under way.
	// Zero means 5.
	Parallel int
	// InFlightBytes bounds the memory that the requests of a client of stdio take at
	// once, and MaxMessageBytes each of them. Over HTTP, others bound that. Zero bounds
	// nothing.
	InFlightBytes, MaxMessageBytes int64
	// Log gets what users must not see.
	Log *slog.Logger
}

// defaultOutputBytes is about 8,000 tokens, which leaves room in any context.
const defaultOutputBytes = 30_000

// prepareTime is how long a list of tools waits for what is being learned of the
// sandbox: more than a container takes to start, less than clients wait.
const prepareTime = 3 * time.Second

// Server offers the tools over every transport.
type Server struct {
	server   *mcpserver.MCPServer
	opts     Options
	renderer *render.Renderer
	*transport.Transports

	facts    atomic.Pointer[facts] // nil as long as they are not known
	listed   atomic.Bool           // tools were listed without them
	prepared chan struct{}         // closed when they are known, or were asked for in vain
	settle   func()                // closes it
}

// New makes a Server.
func New(opts Options) *Server {
	if opts.Parallel == 0 {
		opts.Parallel = 5
	}
	if opts.OutputBytes == 0 {
		opts.OutputBytes = defaultOutputBytes
	}
	s := &Server{opts: opts, prepared: make(chan struct{})}
	s.settle = sync.OnceFunc(func() { close(s.prepared) })
	if !opts.AwaitPrepared {
		s.settle()
	}
	s.server = mcpserver.NewMCPServer("vivarium", opts.Version,
		mcpserver.WithTitle("Vivarium"),
		mcpserver.WithInstructions(instructions),
		mcpserver.WithToolCapabilities(true),
		mcpserver.WithResourceCapabilities(false, false),
		mcpserver.WithHooks(s.hooks()),
		mcpserver.WithLogger(opts.Log),
	)
	s.addTools()
	s.addResources()
	conformance.Add(s.server)
	s.renderer = render.New(render.Options{
		Files: opts.Files, FileURL: fileURL, Limits: opts.Limits, Settings: opts.Settings, SessionTTL: opts.SessionTTL, OutputBytes: opts.OutputBytes,
	})
	s.Transports = transport.New(transport.Options{
		Server: s.server, PublicURL: opts.PublicURL, Parallel: opts.Parallel,
		InFlightBytes: opts.InFlightBytes, MaxMessageBytes: opts.MaxMessageBytes, Log: opts.Log,
	})
	return s
}

// instructions are what a client tells its model of the server as a whole.
const instructions = "Runs Python and shell commands in isolated sandboxes. Use execute_python to compute, to analyse data and to draw; " +
	"begin a session to keep variables and files between calls."

// awaitPrepared waits until the facts of the sandbox are known, for a moment.
func (s *Server) awaitPrepared(ctx context.Context) {
	timer := time.NewTimer(prepareTime)
	defer timer.Stop()
	select {
	case <-s.prepared:
	case <-timer.C:
	case <-ctx.Done():
	}
}
