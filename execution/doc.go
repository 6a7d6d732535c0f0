// Package execution is the domain: requests, their results and errors, and the
// Executor through which every interface (HTTP, MCP, the command line) runs a
// program.
//
// It contains no Docker type and no MCP type. A [Backend], implemented in the
// folders below, starts sandboxes; the runner drives a program inside one; the pool
// decides which sandboxes are kept warm. An interface decides what a result looks
// like to its clients.
package execution
