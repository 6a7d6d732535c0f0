// Package execution is the domain: what a run is asked for, what came of it,
// and the Executor through which every door (HTTP, MCP, the command line) runs
// a program.
//
// It knows no Docker type and no MCP type. Where programs run is a [Backend],
// implemented in the folders below; how a program is driven inside a sandbox is
// the runner's; which sandboxes are kept warm is the pool's. What a result
// looks like to a client is the door's business.
package execution
