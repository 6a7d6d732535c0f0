// Package transport carries messages of the Model Context Protocol between clients and the
// protocol library: over stdio, streamable HTTP and the legacy HTTP transport with SSE.
//
// It knows nothing of tools. The library answers each message; this package reads messages,
// bounds them, cancels requests whose client has left, and writes answers no faster than the
// client reads them. A "protocol session" is what a client begins with initialize; it has
// nothing to do with the sessions that keep a sandbox.
//
// Several parts work around defects of the library (mcp-go v1.2.1). library_test.go has a test
// for each, which fails when the library no longer needs the workaround.
package transport

import (
	"log/slog"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

// Options configure [Transports].
type Options struct {
	// Server is the library's server, which answers the messages.
	Server *mcpserver.MCPServer
	// PublicURL is the URL of the HTTP API, without a slash at its end. Empty means the
	// address that each request was sent to.
	PublicURL string
	// Parallel is how many tool calls one client of stdio or SSE may have in progress.
	Parallel int
	// InFlightBytes bounds the memory that the requests of a client of stdio take together,
	// and MaxMessageBytes the size of each. Zero means no bound. Over HTTP, httpapi
	// enforces both.
	InFlightBytes, MaxMessageBytes int64
	// Instance is the name of this server among those that clients' requests may reach: it is
	// part of the ids of protocol sessions. Empty means that there are no others.
	Instance string
	// Log receives failures that clients must not see.
	Log *slog.Logger
}

// Transports serves one library server over every transport.
type Transports struct{ opts Options }

// New returns Transports.
func New(opts Options) *Transports { return &Transports{opts} }
