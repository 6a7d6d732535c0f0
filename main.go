// Command vivarium runs untrusted Python, safely and in milliseconds: as an HTTP
// API, as an MCP server, and from the command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/vivarium-sandbox/vivarium/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := cli.Run(ctx, os.Args[1:], cli.System{
		Lookup: os.LookupEnv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	os.Exit(code)
}
