//go:build !conformance

// Package conformance adds nothing to servers, except in builds with -tags conformance.
package conformance

import mcpserver "github.com/mark3labs/mcp-go/server"

// Add does nothing without -tags conformance.
func Add(*mcpserver.MCPServer) {}
