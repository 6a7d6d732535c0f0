package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/httpapi"
	"github.com/vivarium-sandbox/vivarium/mcp"
)

// answerTime is how long answers that are on their way get at shutdown.
const answerTime = 5 * time.Second

func serveCommand(system System) *cobra.Command {
	var demo bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the HTTP API, and MCP at /mcp and /sse",
		Example: `  vivarium serve
  PORT=9000 LOG_FORMAT=json vivarium serve`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), system, demo)
		},
	}
	cmd.Flags().BoolVar(&demo, "demo", false, "run an example over HTTP first and print it")
	return cmd
}

func serve(ctx context.Context, system System, demo bool) (err error) {
	c, log, err := settings(ctx, system)
	if err != nil {
		return err
	}
	limitMemory(c, system)
	s, err := newService(c, system, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(0)) }()
	if err := s.require(ctx, c); err != nil {
		return err
	}
	access, err := newAccess(c)
	if err != nil {
		return err
	}
	if c.FileStorageURL != "" || c.OAuthIssuer != "" {
		if err := trustBundledRoots(); err != nil {
			return err
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if err != nil {
		return fmt.Errorf("HOST and PORT: %w", err)
	}
	files, err := openFiles(ctx, c, log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	doors := mcp.New(mcpOptions(c, s, files))
	handlers, endStreams := doors.Handlers()
	server := httpapi.NewServer(httpapi.Options{
		Executor: s.executor, Files: files, Sessions: s.sessions, Health: s.health, Backend: s.backendName, Isolation: s.isolation, Version: version(),
		MaxBodyBytes: int64(c.MaxBodyMB) << 20, MaxFileBytes: int64(c.MaxFileSizeMB) << 20, Limits: s.executor.Limits(),
		InFlightBytes: int64(c.MaxInFlightMB) << 20, Log: log, Mount: handlers,
		AllowedHosts: access.hosts, AllowedOrigins: access.origins, Auth: access.authenticator, Issuer: c.OAuthIssuer, PublicURL: c.PublicURL,
	})
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(httpapi.NewRetryingListener(listener, log)) }()
	log.InfoContext(ctx, "listening", "address", listener.Addr().String(), "version", version(), "instance", s.backend.InstanceID())
	access.warn(ctx, log, listener.Addr())

	stop := s.background(ctx, s.sweep, s.warm(prepared(c, doors)), sweepFiles(files, log), func(ctx context.Context) {
		switch {
		case demo && access.authenticator == nil:
			showDemo(ctx, system, listener.Addr().String())
		case demo:
			_, _ = fmt.Fprintln(system.Stdout, "The example is left out: it has no key (API_KEYS, OAUTH_ISSUER).")
		}
	})
	defer stop()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	log.InfoContext(ctx, "shutting down: what runs may finish", "seconds", c.ShutdownTimeout)
	stop()
	return shutdown(s, server, endStreams, seconds(c.ShutdownTimeout))
}

// shutdown lets what runs finish while what waits and what still comes gets
// 503, then closes the listener and the streams that have no end.
func shutdown(s *service, server *http.Server, endStreams func(), grace time.Duration) error {
	runs := s.close(grace)
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	endStreams()
	if err := server.Shutdown(ctx); err != nil {
		s.log.WarnContext(ctx, "cutting off clients that have not read their answers", "error", err)
		_ = server.Close()
	}
	return runs
}

func mcpOptions(c config.Config, s *service, files mcp.Files) mcp.Options {
	return mcp.Options{
		Executor: s.executor, Sessions: s.sessions, Files: files, Limits: limits(c), Settings: sandboxSettings(c), Backend: s.backendName,
		SessionTTL: seconds(c.MCPSessionTTL), FileTTL: seconds(c.FileTTLSec), OutputBytes: c.MCPOutputBytes,
		AwaitPrepared: c.PoolSize > 0, PublicURL: c.PublicURL, Version: version(), Parallel: c.MaxSandboxes,
		InFlightBytes: int64(c.MaxInFlightMB) << 20, MaxMessageBytes: int64(c.MaxBodyMB) << 20,
		Log: s.log,
	}
}

// prepared has a door learn of the sandboxes when they are warm. Where none is
// kept warm, none is started for that.
func prepared(c config.Config, door *mcp.Server) func(context.Context, error) {
	if c.PoolSize == 0 {
		return func(context.Context, error) {}
	}
	return door.Prepared
}

func stdioCommand(system System) *cobra.Command {
	return &cobra.Command{
		Use:   "stdio",
		Short: "Serve MCP to the program that started this one",
		Long:  "Serve MCP over standard input and output. Nothing else is written to standard output; the log goes to standard error.",
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
	// A client that is gone shows as a failed write, and that is a normal end: the
	// signal would end the process with its sandboxes.
	signal.Ignore(syscall.SIGPIPE)
	limitMemory(c, system)
	s, err := newService(c, system, log)
	if err != nil {
		return err
	}
	files := &lateFiles{open: sync.OnceValues(func() (*filestore.Store, error) {
		if c.FileStorageURL != "" {
			if err := trustBundledRoots(); err != nil {
				return nil, err
			}
		}
		return openFiles(context.WithoutCancel(ctx), c, log)
	})}
	door := mcp.New(mcpOptions(c, s, files))
	stop := s.background(ctx, s.sweep, s.warm(prepared(c, door)))
	log.InfoContext(ctx, "serving MCP over stdio", "version", version(), "instance", s.backend.InstanceID())
	served := door.ServeStdio(ctx, system.Stdin, system.Stdout)
	stop()
	brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	sessions := s.sessions.EndOurs(brief) // nobody else knows of them
	return errors.Join(served, sessions, s.close(0), files.close(brief))
}
