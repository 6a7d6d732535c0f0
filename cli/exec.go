package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const execName = "exec"

type execOptions struct {
	from    string
	files   []string
	env     []string
	args    []string // of the program
	out     string
	timeout timeLimit
	stdin   bool
}

// timeLimit is the value of a flag. The zero value means that it is not set.
type timeLimit time.Duration

// String implements [pflag.Value].
func (l *timeLimit) String() string {
	if *l == 0 {
		return ""
	}
	return time.Duration(*l).String()
}

// Set implements [pflag.Value].
func (l *timeLimit) Set(text string) error {
	limit, err := time.ParseDuration(text)
	if err != nil || limit < time.Millisecond {
		return errors.New("must be a time of 1ms or more with its unit, such as 1s")
	}
	*l = timeLimit(limit)
	return nil
}

// Type implements [pflag.Value].
func (l *timeLimit) Type() string { return "duration" }

func execCommand(system System) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   execName + " [CODE] [-- ARGUMENT...]",
		Short: "Run one program and exit with its exit code",
		Long: `Run one program in a sandbox and exit with its exit code. The code is the
argument, a file (--from) or, with --from -, standard input. What follows -- are
the program's own arguments, sys.argv[1:].

The command has two exit codes of its own: 124 if the program timed out, and 125
if it could not be run or its files could not be saved.`,
		Example: `  vivarium exec 'print(6*7)'
  vivarium exec --from analysis.py --file sales.csv --out results/
  vivarium exec --from report.py --env REGION=eu --env API_TOKEN -- --year 2025
  echo 'print(input())' > echo.py; echo hello | vivarium exec --from echo.py --stdin`,
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := o.takeArguments(args, cmd.ArgsLenAtDash())
			if err != nil {
				return err
			}
			return runProgram(cmd.Context(), system, o, code)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.from, "from", "f", "", "read the code from a file, or from standard input if it is -")
	flags.StringArrayVar(&o.files, "file", nil, "copy a file into the workspace: LOCAL, or LOCAL:PATH for another path there")
	flags.StringArrayVarP(&o.env, "env", "e", nil, "set an environment variable of the program: NAME=VALUE, or NAME for its value here, if it has one")
	flags.StringVar(&o.out, "out", "", "folder in which to save the files that the program made or changed")
	flags.Var(&o.timeout, "timeout", "wall-clock time limit of the program (default the maximum, MAX_EXEC_TIMEOUT_MS)")
	flags.BoolVar(&o.stdin, "stdin", false, "pass standard input to the program")
	return cmd
}

// takeArguments takes the program's own arguments, which follow "--". It returns the code, if
// that is an argument. dash is how many arguments precede "--", or -1 if there is none.
func (o *execOptions) takeArguments(args []string, dash int) (code []string, err error) {
	if dash < 0 {
		dash = len(args)
	}
	if dash > 1 {
		return nil, fmt.Errorf("accepts at most 1 arg(s), received %d: put the program's own arguments behind --", dash)
	}
	if dash == 0 && o.from == "" && len(args) > 0 {
		dash = 1 // code that looks like a flag
	}
	o.args = args[dash:]
	return args[:dash], nil
}

func runProgram(ctx context.Context, system System, o execOptions, args []string) (err error) {
	c, log, err := settings(ctx, system)
	if err != nil {
		return err
	}
	req, err := o.request(system, args)
	if err != nil {
		return err
	}
	if req.Timeout == 0 {
		req.Timeout = milliseconds(c.MaxExecTimeoutMS)
	}
	c = c.WithoutPool() // one sandbox, for one run
	if c.Isolation == string(execution.IsolationAuto) {
		c.Isolation = string(execution.IsolationContainer) // there is no second run to isolate, and a probe takes time
	}
	if level, _ := system.Lookup("LOG_LEVEL"); level == "" {
		log = warnings(c, system) // stderr belongs to the program
	}
	s, err := newService(ctx, c, system, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(0)) }()
	out, err := newOutFolder(o.out)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	req.Keep = out.keep
	result, err := s.executor.Execute(ctx, req)
	if err != nil {
		out.discard()
		return errors.Join(o.nameFlags(err), out.close())
	}
	return o.show(system, result, out.close())
}

// nameFlags replaces the faults of a request with those of the flags it came from.
func (o execOptions) nameFlags(err error) error {
	if domain, ok := errors.AsType[*execution.Error](err); ok && len(domain.Fields) > 0 {
		return errors.New(domain.ExplainFields(o.describeFault))
	}
	return err
}

// describeFault describes a fault with the name of the flag.
func (o execOptions) describeFault(f execution.FieldError) string {
	switch f.Field {
	case execution.FieldTimeout:
		if f.Fault == execution.FaultTooLarge {
			return fmt.Sprintf("--timeout is %v: must be at most MAX_EXEC_TIMEOUT_MS, which is %d", f.Value, f.Limit.Milliseconds())
		}
		return f.Describe("--timeout")
	case execution.FieldFiles:
		return f.Describe("--file " + o.files[f.Index] + ": its path")
	case execution.FieldEnv:
		return f.Describe(strings.TrimSpace("--env " + execution.Clip(f.Variable)))
	case execution.FieldArgs:
		if f.Index >= 0 {
			return f.Describe(fmt.Sprintf("argument %d behind --", f.Index+1))
		}
		return f.Describe("what follows --")
	case execution.FieldCommand, execution.FieldPath, execution.FieldTarget, execution.FieldArchive: // of sessions
	}
	return f.String()
}

func (o execOptions) request(system System, args []string) (execution.Request, error) {
	req := execution.Request{
		Interactive: true, Timeout: time.Duration(o.timeout), Args: o.args, Env: variables(o.env, system.Lookup),
	}
	code, err := o.code(system, args)
	if err != nil {
		return req, err
	}
	req.Code = code
	if o.stdin {
		if o.from == "-" {
			return req, errors.New("--stdin: standard input is already the code (--from -)")
		}
		text, err := io.ReadAll(system.Stdin)
		if err != nil {
			return req, fmt.Errorf("--stdin: %w", err)
		}
		req.Stdin = string(text)
	}
	for _, spec := range o.files {
		local, name, found := strings.Cut(spec, ":")
		if !found {
			name = filepath.Base(local)
		}
		input, err := localInput(local, name)
		if err != nil {
			return req, fmt.Errorf("--file: %w", err)
		}
		req.Files = append(req.Files, input)
	}
	return req, nil
}

// variables returns the variables of flags: NAME=VALUE, or NAME for one that lookup finds.
// As for docker-run(1), one that it does not find is not set.
func variables(specs []string, lookup func(name string) (string, bool)) map[string]string {
	env := make(map[string]string)
	for _, spec := range specs {
		name, value, given := strings.Cut(spec, "=")
		if !given && name != "" {
			if value, given = lookup(name); !given {
				continue
			}
		}
		env[name] = value
	}
	return env
}

// localFile is the path of a file on this machine.
type localFile string

// Open opens the file.
func (f localFile) Open(context.Context) (io.ReadCloser, error) { return os.Open(string(f)) }

// localInput returns the input for a local file. A regular file is read when it is
// sent. Any other file, such as a pipe, can be read only once, and is read now.
func localInput(local, name string) (execution.Input, error) {
	file, err := os.Open(local)
	if err != nil {
		return execution.Input{}, err
	}
	defer func() { _ = file.Close() }()
	status, err := file.Stat()
	if err != nil {
		return execution.Input{}, err
	}
	if status.Mode().IsRegular() {
		return execution.Input{Path: name, Size: status.Size(), Source: localFile(local)}, nil
	}
	content, err := io.ReadAll(file)
	return execution.Inline(name, content), err
}

func (o execOptions) code(system System, args []string) (string, error) {
	switch {
	case len(args) == 1 && o.from != "":
		return "", errors.New("pass the code as an argument or with --from, not both")
	case len(args) == 1 && isProgramFile(args[0]):
		return "", fmt.Errorf("the code is the name of a file: to run the file, use exec --from %s", args[0])
	case len(args) == 1 && args[0] == "-":
		return "", errors.New("the code is -: to read it from standard input, use exec --from -")
	case len(args) == 1:
		return args[0], nil
	case o.from == "":
		return "", errors.New("no code: pass it as an argument, or name a file with --from")
	case o.from == "-":
		text, err := io.ReadAll(system.Stdin)
		return string(text), err
	}
	text, err := os.ReadFile(o.from)
	if err != nil {
		return "", fmt.Errorf("--from: %w", err)
	}
	return string(text), nil
}

// isProgramFile reports whether the code is probably meant as the name of a file.
func isProgramFile(code string) bool {
	if !strings.HasSuffix(code, ".py") {
		return false
	}
	status, err := os.Stat(code)
	return err == nil && status.Mode().IsRegular()
}

// show prints the result of a run and returns the exit code as an error. saving is why not
// all files could be saved, or nil.
func (o execOptions) show(system System, r *execution.Result, saving error) error {
	if _, err := io.WriteString(system.Stdout, r.Stdout); err != nil {
		return fmt.Errorf("the program's output is lost: %w", err)
	}
	_, _ = io.WriteString(system.Stderr, r.Stderr)
	note := func(format string, args ...any) {
		_, _ = fmt.Fprintf(system.Stderr, "vivarium: "+format+"\n", args...)
	}
	if r.End.Reason != execution.Exited || r.End.Message != "" {
		note("%s", describeEnd(r.End))
	}
	switch {
	case saving != nil:
		return fmt.Errorf("--out: %w", saving)
	case o.out != "":
	case len(r.Files) == 1:
		note("1 file written; --out FOLDER saves it")
	case len(r.Files) > 1:
		note("%d files written; --out FOLDER saves them", len(r.Files))
	}
	for _, file := range r.Skipped {
		note("not returned: %s: %s", file.Path, file.Reason)
	}
	switch {
	case r.TimedOut():
		return exitError(exitTimedOut)
	case r.Failed():
		return exitError(*r.ExitCode)
	}
	return nil
}

// describeEnd returns "REASON SIGNAL: MESSAGE", without the parts that are empty.
func describeEnd(end execution.End) string {
	text := string(end.Reason)
	if end.Signal != "" {
		text += " " + end.Signal
	}
	if end.Message != "" {
		text += ": " + end.Message
	}
	return text
}
