package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/httpapi"
	"github.com/vivarium-sandbox/vivarium/mcp"
)

// answerTime is how long unsent answers get at shutdown.
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
	s, err := newService(ctx, c, system, log)
	if err != nil {
		return err
	}
	c = s.config
	defer func() { err = errors.Join(err, s.close(0)) }()
	s.warnAlone()
	if err := s.require(ctx, c); err != nil {
		return err
	}
	d, err := openDoors(ctx, c, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.files.Close()) }()
	example := func(context.Context) {}
	if demo {
		example = func(ctx context.Context) { d.showDemo(ctx, system) }
	}
	return d.serve(ctx, c, example)
}

// doors are the interfaces of the service over the network.
type doors struct {
	service    *service
	access     access
	listener   net.Listener
	files      *filestore.Store
	mcp        *mcp.Server
	http       *http.Server
	others     *peerDoor // nil if no other server shares the sessions
	endStreams func()    // ends streams of MCP, which have no end of their own
}

// openDoors opens the port and the file store, and connects HTTP and MCP to the
// service.
func openDoors(ctx context.Context, c config.Config, s *service) (*doors, error) {
	access, err := newAccess(c)
	if err != nil {
		return nil, err
	}
	if c.FileStorageURL != "" || c.OAuthIssuer != "" {
		if err := trustBundledRoots(); err != nil {
			return nil, err
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if err != nil {
		return nil, fmt.Errorf("HOST and PORT: %w", err)
	}
	files, err := openFiles(ctx, c, s.log)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	d := &doors{service: s, access: access, listener: listener, files: files, mcp: mcp.New(mcpOptions(c, s, files))}
	handlers, endStreams := d.mcp.Handlers()
	d.endStreams = endStreams
	options := httpapi.Options{
		Executor: s.executor, Files: files, Sessions: s.sessions, Health: s.health, Backend: s.backendName, Isolation: s.isolation, Version: version(),
		MaxBodyBytes: int64(c.MaxBodyMB) << 20, MaxFileBytes: int64(c.MaxFileSizeMB) << 20, Limits: s.executor.Limits(),
		InFlightBytes: int64(c.MaxInFlightMB) << 20, Log: s.log, Mount: handlers,
		AllowedHosts: access.hosts, AllowedOrigins: access.origins, Auth: access.authenticator, Issuer: c.OAuthIssuer, PublicURL: c.PublicURL,
	}
	if s.peers != nil {
		options.Peers = s.peers.door(s.sessions.Release)
	}
	d.http = httpapi.NewServer(options)
	if s.peers != nil {
		if d.others, err = s.peers.open(ctx, d.http, options.Peers, s.log); err != nil {
			return nil, errors.Join(err, listener.Close(), files.Close())
		}
	}
	return d, nil
}

// serve serves until ctx ends, and then lets running programs finish.
func (d *doors) serve(ctx context.Context, c config.Config, example func(context.Context)) error {
	s, log := d.service, d.service.log
	failed := make(chan error, 2)
	go func() { failed <- d.http.Serve(httpapi.NewRetryingListener(d.listener, log)) }()
	if d.others != nil {
		go func() { failed <- d.others.server.Serve(httpapi.NewRetryingListener(d.others.listener, log)) }()
	}
	log.InfoContext(ctx, "listening", "address", d.listener.Addr().String(), "version", version(), "instance", s.backend.InstanceID())
	d.access.warn(ctx, log, d.listener.Addr())

	stop := s.background(ctx, s.sweep, s.warm(prepared(c, d.mcp)), sweepFiles(d.files, log), example)
	defer stop()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	log.InfoContext(ctx, "shutting down: running programs may finish", "seconds", c.ShutdownTimeout)
	stop()
	return d.shutdown(seconds(c.ShutdownTimeout))
}

// showDemo shows the example, which has no key.
func (d *doors) showDemo(ctx context.Context, system System) {
	if d.access.authenticator != nil {
		_, _ = fmt.Fprintln(system.Stdout, "The example is skipped: it has no key (API_KEYS, OAUTH_ISSUER).")
		return
	}
	showDemo(ctx, system, d.listener.Addr().String())
}

// shutdown lets running programs finish, while queued and new requests get 503. Where there are
// other servers, queued requests finish too. Then it closes the listeners and the streams.
func (d *doors) shutdown(grace time.Duration) error {
	end := time.Now().Add(grace)
	if d.others != nil {
		ctx, cancel := context.WithDeadline(context.Background(), end)
		d.leave(ctx)
		cancel()
	}
	runs := d.service.close(time.Until(end))
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	d.endStreams()
	d.end(ctx, d.http)
	if d.others != nil {
		d.end(ctx, d.others.server)
		d.service.peers.transport.CloseIdleConnections()
	}
	return runs
}

// leave answers the requests that have come, also those that wait, until ctx ends: other
// servers serve the next ones.
func (d *doors) leave(ctx context.Context) {
	d.http.SetKeepAlivesEnabled(false) // clients connect to another server for their next requests
	d.others.peers.Leave(ctx)
}

// end closes the listener of a server, and its connections when their answers are sent, or ctx ends.
func (d *doors) end(ctx context.Context, server *http.Server) {
	if err := server.Shutdown(ctx); err != nil {
		d.service.log.WarnContext(ctx, "cutting off clients that have not read their answers", "error", err)
		_ = server.Close()
	}
}

func mcpOptions(c config.Config, s *service, files mcp.Files) mcp.Options {
	return mcp.Options{
		Executor: s.executor, Sessions: s.sessions, Files: files, Limits: limits(c), Settings: sandboxSettings(c), Backend: s.backendName,
		SessionTTL: seconds(c.MCPSessionTTL), FileTTL: seconds(c.FileTTLSec), OutputBytes: c.MCPOutputBytes, EnvNames: c.MCPEnvNames,
		PythonAlias:   c.MCPPythonAlias,
		Instance:      s.instance(),
		AwaitPrepared: c.PoolSize > 0, PublicURL: c.PublicURL, Version: version(), Parallel: c.MaxSandboxes,
		InFlightBytes: int64(c.MaxInFlightMB) << 20, MaxMessageBytes: int64(c.MaxBodyMB) << 20,
		Log: s.log,
	}
}

// prepared returns what to call when sandboxes are warm, so that the MCP server can
// describe them. If none is kept warm, none is started for that.
func prepared(c config.Config, door *mcp.Server) func(context.Context, error) {
	if c.PoolSize == 0 {
		return func(context.Context, error) {}
	}
	return door.Prepared
}
