package cli

import (
	"context"
	"errors"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/mcp"
)

func stdioCommand(system System) *cobra.Command {
	return &cobra.Command{
		Use:   "stdio",
		Short: "Serve MCP to the program that started this command",
		Long:  "Serve MCP over standard input and output. The log goes to standard error.",
		Example: `  vivarium stdio
  claude mcp add vivarium -- vivarium stdio`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return stdio(cmd.Context(), system)
		},
	}
}

func stdio(ctx context.Context, system System) error {
	c, log, err := settings(ctx, system)
	if err != nil {
		return err
	}
	// A client that has gone shows as a failed write, which is a normal end. The
	// signal would kill the process before it ends its sandboxes.
	signal.Ignore(syscall.SIGPIPE)
	limitMemory(c, system)
	s, err := newService(ctx, c, system, log)
	if err != nil {
		return err
	}
	c = s.config
	files := openFilesLazily(ctx, c, log)
	door := mcp.New(mcpOptions(c, s, files))
	stop := s.background(ctx, s.sweep, s.warm(prepared(c, door)))
	log.InfoContext(ctx, "serving MCP over stdio", "version", version(), "instance", s.backend.InstanceID())
	served := door.ServeStdio(ctx, system.Stdin, system.Stdout)
	stop()
	brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	sessions := s.sessions.EndOurs(brief) // no other server knows of them
	closed := s.close(0)
	_, swept := files.Sweep(brief) // no later server may do it
	return errors.Join(served, sessions, closed, swept, files.Close())
}
