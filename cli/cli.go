// Package cli is the command line: it reads the settings, builds the parts,
// connects them and runs the chosen command.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/config"
)

// System is the environment of the process.
type System struct {
	// Lookup reads an environment variable.
	Lookup func(name string) (string, bool)
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Exit codes of the command itself, besides those of programs run by exec. They follow
// timeout(1) and docker-run(1).
const (
	exitFailure  = 1
	exitTimedOut = 124
	exitNotRun   = 125
)

// exitError is an error that says nothing and sets the process's exit code.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Run runs the command line and returns the process's exit code.
func Run(ctx context.Context, args []string, system System) int {
	root := &cobra.Command{
		Use:   "vivarium",
		Short: "Run untrusted Python, safely and in milliseconds",
		Long: `Vivarium runs untrusted Python in sandboxes: for programs over HTTP, for language
models over MCP, and from the command line.

Settings are environment variables; docs/settings.md lists them all.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd: true,
		},
	}
	root.SetVersionTemplate("vivarium {{.Version}}\n") // as the command version prints it
	root.SetArgs(args)
	root.SetIn(system.Stdin)
	root.SetOut(system.Stdout)
	root.SetErr(system.Stderr)
	root.AddCommand(serveCommand(system), stdioCommand(system), execCommand(system), imageCommand(system), doctorCommand(system), kubernetesCommand(system), versionCommand())

	command, err := root.ExecuteContextC(ctx)
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	_, _ = fmt.Fprintf(system.Stderr, "vivarium: %v\n", err)
	if command.Name() == execName { // any other code could be the program's
		return exitNotRun
	}
	return exitFailure
}

// warnings returns a log of warnings and errors only.
func warnings(c config.Config, system System) *slog.Logger {
	return newLog(c, system, slog.LevelWarn)
}

func newLog(c config.Config, system System, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(system.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(system.Stderr, options))
}

// settings reads the settings and returns the log that they describe.
func settings(ctx context.Context, system System) (config.Config, *slog.Logger, error) {
	c, err := config.Load(ctx, system.Lookup)
	if err != nil {
		return c, nil, fmt.Errorf("settings:\n%w", err)
	}
	if err := checkStorage(c); err != nil {
		return c, nil, fmt.Errorf("settings:\n%w", err)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return c, nil, fmt.Errorf("LOG_LEVEL: %w", err)
	}
	return c, newLog(c, system, level), nil
}

// version returns the module's version, or the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return "0.0.0-" + setting.Value[:min(12, len(setting.Value))]
		}
	}
	return "0.0.0-dev"
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  vivarium version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "vivarium", version())
			return err
		},
	}
}
