//go:build !conformance

package conformance

import mcpserver "github.com/mark3labs/mcp-go/server"

// Add adds nothing: what the conformance suites call for is in builds
// with -tags conformance alone.
func Add(*mcpserver.MCPServer) {}
