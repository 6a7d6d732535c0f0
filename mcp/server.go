// Package mcp is the interface for clients of the Model Context Protocol: the tools, the resources,
// and the server that connects them with the transports.
//
//	           cli
//	            |
//	           mcp              tools, arguments, descriptions, resources, progress
//	          / | \
//	transport   |  render       messages of clients | what a model reads
//	        |   |     |
//	        | conformance       fixtures, with -tags conformance alone; uses transport
//	         \       /
//	  wire, filestore, execution    limits and charges | stored files | programs, sessions, errors
//
// Imports point down. transport and render know neither each other nor mcp. The protocol
// library (mcp-go) answers the messages; its types stay below mcp.
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

// Sessions are the sandboxes that clients keep between calls.
type Sessions interface {
	Create(ctx context.Context, ttl time.Duration, files []execution.Input) (execution.SessionInfo, error)
	RunPython(ctx context.Context, id string, req execution.Request) (*execution.Result, error)
	RunBash(ctx context.Context, id string, cmd execution.Command) (*execution.Result, error)
	ReadFile(ctx context.Context, id string, req execution.ReadRequest) error
	WriteFiles(ctx context.Context, id string, req execution.WriteRequest) error
	ListFiles(ctx context.Context, id string, req execution.ListRequest) (execution.Listing, error)
	Delete(ctx context.Context, id string) error
}

// Files stores files of programs.
type Files interface {
	filestore.Files
	Stat(ctx context.Context, id string) (filestore.Info, error)
	Get(ctx context.Context, id string) (*filestore.File, error)
}

// Options configure a [Server].
type Options struct {
	// Executor runs programs without a session.
	Executor Executor
	// Sessions starts sessions, calls them and ends them.
	Sessions Sessions
	// Files stores the files that programs write, and has those that calls pass by id.
	Files Files
	// Limits and Settings are the sandbox's. Descriptions and results name them.
	Limits   execution.Limits
	Settings execution.Settings
	// Backend returns where sandboxes come from: "docker", "local", "kubernetes", or "" while that is
	// not decided. Descriptions name it. Nil means that it is unknown.
	Backend func() string
	// SessionTTL is how long a session that a model starts may last. FileTTL is how long
	// Files keeps a file; it is used only in descriptions.
	SessionTTL, FileTTL time.Duration
	// OutputBytes is how much of a program's output a result shows. Zero means 30,000.
	OutputBytes int
	// EnvNames are the environment variables that a model may set. Without any there is no
	// argument for them.
	EnvNames []string
	// PythonAlias offers execute_python as python too, for models that were trained on that name.
	PythonAlias bool
	// AwaitPrepared must be set if [Server.Prepared] will be called.
	AwaitPrepared bool
	// PublicURL is the URL of the HTTP API, without a slash at its end. Empty means the
	// address that each request was sent to.
	PublicURL string
	// Instance is the name of this server among several that clients' requests may reach, which
	// the ids of protocol sessions contain. Empty means that there are no others.
	Instance string
	// Version is the server's version.
	Version string
	// Parallel is how many calls one client of stdio or SSE may have in progress. Zero
	// means 5.
	Parallel int
	// InFlightBytes bounds the memory that the requests of a client of stdio take together,
	// and MaxMessageBytes the size of each. Zero means no bound. Over HTTP, httpapi
	// enforces both.
	InFlightBytes, MaxMessageBytes int64
	// Log receives failures that clients must not see.
	Log *slog.Logger
}

// defaultOutputBytes is about 8,000 tokens, which leaves room in any context.
const defaultOutputBytes = 30_000

// prepareTime is how long a list of tools waits for the facts about the sandbox: longer than a
// container takes to start, shorter than clients wait.
const prepareTime = 3 * time.Second

// Server offers the tools over every transport.
type Server struct {
	server   *mcpserver.MCPServer
	opts     Options
	renderer *render.Renderer
	*transport.Transports

	facts    atomic.Pointer[facts] // nil while they are unknown
	listed   atomic.Bool           // tools were listed without the facts
	prepared chan struct{}         // closed when the facts are known or could not be found
	settle   func()                // closes it
}

// New returns a Server.
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
		Server: s.server, PublicURL: opts.PublicURL, Instance: opts.Instance, Parallel: opts.Parallel,
		InFlightBytes: opts.InFlightBytes, MaxMessageBytes: opts.MaxMessageBytes, Log: opts.Log,
	})
	return s
}

// instructions describe the server as a whole, for the client's model.
const instructions = "Runs Python and shell commands in isolated sandboxes. Use execute_python to compute, to analyse data and to draw; " +
	"begin a session to keep variables and files between calls."

// awaitPrepared waits until the facts are known, but no longer than prepareTime.
func (s *Server) awaitPrepared(ctx context.Context) {
	timer := time.NewTimer(prepareTime)
	defer timer.Stop()
	select {
	case <-s.prepared:
	case <-timer.C:
	case <-ctx.Done():
	}
}
