package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/cli"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction( // it lives as long as the process
		"github.com/mark3labs/mcp-go/server.(*StreamableHTTPServer).startSessionSweeper.func1"))
}

// nowhere is an engine that is not there.
const nowhere = "unix:///nonexistent/docker.sock"

// outcome is what became of a command.
type outcome struct {
	code           int
	stdout, stderr string
}

// run runs a command line with some settings ("NAME=value") and standard input,
// on a machine without an engine.
func run(t *testing.T, settings []string, stdin string, args ...string) outcome {
	t.Helper()
	var stdout, stderr buffer
	code := cli.Run(t.Context(), args, cli.System{
		Lookup: lookup(t, settings), Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr,
	})
	return outcome{code, stdout.String(), stderr.String()}
}

// buffer is a writer for goroutines that outlive a command: serve and stdio do
// not wait for theirs.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func lookup(t *testing.T, settings []string) func(name string) (string, bool) {
	t.Helper()
	environment := map[string]string{"DOCKER_HOST": nowhere, "EXECUTOR_BACKEND": "docker"}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		environment[name] = value
	}
	t.Setenv("DOCKER_HOST", environment["DOCKER_HOST"]) // the engine's client reads it itself
	return func(name string) (string, bool) {
		value, found := environment[name]
		return value, found
	}
}

// want checks the exit code, that stdout is empty, and what stderr contains.
func (o outcome) want(t *testing.T, code int, inStderr ...string) {
	t.Helper()
	if o.code != code || o.stdout != "" {
		t.Errorf("exit code %d, stdout %q", o.code, o.stdout)
	}
	for _, text := range inStderr {
		if !strings.Contains(o.stderr, text) {
			t.Errorf("%q is not in stderr: %s", text, o.stderr)
		}
	}
}

// commands returns the commands that a help text lists.
func commands(help string) []string {
	_, list, _ := strings.Cut(help, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var names []string
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "help" {
			names = append(names, fields[0])
		}
	}
	return names
}

// Every command explains itself, with an example.
func TestHelp(t *testing.T) {
	top := run(t, nil, "", "--help")
	if top.code != 0 || top.stderr != "" {
		t.Fatalf("%+v", top)
	}
	names := commands(top.stdout)
	if len(names) < 6 {
		t.Fatalf("the commands are %q", names)
	}
	for ; len(names) > 0; names = names[1:] {
		t.Run(names[0], func(t *testing.T) {
			o := run(t, nil, "", append(strings.Fields(names[0]), "--help")...)
			if o.code != 0 || o.stderr != "" || !strings.Contains(o.stdout, "\nExamples:\n") {
				t.Errorf("exit code %d, stderr %q, stdout:\n%s", o.code, o.stderr, o.stdout)
			}
			for _, child := range commands(o.stdout) {
				names = append(names, names[0]+" "+child)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		if o := run(t, nil, "", arg); o.code != 0 || !regexp.MustCompile(`^vivarium \S+\n$`).MatchString(o.stdout) || o.stderr != "" {
			t.Errorf("%s: %+v", arg, o)
		}
	}
}

// A wrong setting stops every command that reads settings. The error names it, its
// value and what is allowed.
func TestWrongSettings(t *testing.T) {
	for command, code := range map[string]int{"serve": 1, "stdio": 1, "exec pass": 125, "image build": 1, "doctor": 1} {
		t.Run(command, func(t *testing.T) {
			run(t, []string{"PORT=http", "LOG_FORMAT=xml"}, "", strings.Fields(command)...).want(t, code, "vivarium: ",
				`PORT is "http": must be a whole number from 0 to 65535`, `LOG_FORMAT is "xml": must be one of plain, json`)
		})
	}
}

func TestWrongArguments(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"unknown command":      {[]string{"frobnicate"}, `unknown command "frobnicate"`},
		"unknown flag":         {[]string{"doctor", "--frobnicate"}, "unknown flag: --frobnicate"},
		"image: no variant":    {[]string{"image", "build", "--variant", "huge"}, `--variant is "huge": must be one of data, lean, slim`},
		"serve: an argument":   {[]string{"serve", "now"}, `"now"`},
		"version: an argument": {[]string{"version", "now"}, `"now"`},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, nil, "", test.args...).want(t, 1, "vivarium: ", test.want)
		})
	}
}

// If exec cannot run the program, the exit code is 125, as that of docker-run(1): many
// programs exit with 1.
func TestExecNotRun(t *testing.T) {
	folder := t.TempDir()
	local, code := filepath.Join(folder, "local.csv"), filepath.Join(folder, "code.py")
	for path, content := range map[string]string{local: "a,b", code: "pass"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"unknown flag":          {[]string{"--frobnicate"}, "unknown flag: --frobnicate"},
		"no code":               {nil, "no code: pass it as an argument, or name a file with --from"},
		"code twice":            {[]string{"pass", "--from", code}, "pass the code as an argument or with --from, not both"},
		"a file as code":        {[]string{code}, "the code is the name of a file: to run the file, use exec --from " + code},
		"two arguments":         {[]string{"pass", "pass"}, "accepts at most 1 arg(s), received 2: put the program's own arguments behind --"},
		"a variable's name":     {[]string{"pass", "--env", "FOO-BAR=x"}, "vivarium: --env FOO-BAR must have a name of ASCII letters, digits and _, with no digit first\n"},
		"no variable's name":    {[]string{"pass", "--env", "=x"}, "vivarium: --env must not have an empty name\n"},
		"a variable's value":    {[]string{"pass", "-e", "TOKEN=\xff"}, "vivarium: --env TOKEN must be valid UTF-8\n"},
		"a bad argument":        {[]string{"pass", "--", "a", "\xff"}, `argument 2 behind -- must be valid UTF-8 (it is "\xff")`},
		"too many arguments":    {append([]string{"pass", "--"}, make([]string, 257)...), "what follows -- must have at most 256 arguments, and has 257"},
		"no such code":          {[]string{"--from", code + "x"}, "--from: open " + code + "x: no such file"},
		"no such file":          {[]string{"pass", "--file", "/no/such/file"}, "--file: open /no/such/file: no such file"},
		"stdin twice":           {[]string{"--from", "-", "--stdin"}, "standard input is already the code"},
		"a time without a unit": {[]string{"pass", "--timeout", "5"}, `"5" for "--timeout" flag: must be a time of 1ms or more with its unit, such as 1s`},
		"no time":               {[]string{"pass", "--timeout", "0s"}, `"0s" for "--timeout" flag: must be a time of 1ms or more`},
		"too much time":         {[]string{"pass", "--timeout", "100s"}, "--timeout is 1m40s: must be at most MAX_EXEC_TIMEOUT_MS, which is 60000"},
		"a path that leads out": {[]string{"pass", "--file", local + ":../x"}, "--file " + local + `:../x: its path must not contain ".." (it is "../x")`},
		"the same path twice":   {[]string{"pass", "--file", local, "--file", local}, "--file " + local + `: its path is given twice (it is "local.csv")`},
		"no engine":             {[]string{"pass"}, "Docker Engine does not answer at " + nowhere},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, nil, "", append([]string{"exec"}, test.args...)...).want(t, 125, "vivarium: ", test.want)
		})
	}
}

// Code that looks like the name of a file is code if there is no such file.
func TestExecTakesCodeForCode(t *testing.T) {
	run(t, nil, "", "exec", "module.py").want(t, 125, "Docker Engine does not answer at "+nowhere)
}

func TestDoctorWithoutEngine(t *testing.T) {
	for _, args := range [][]string{{"doctor"}, {"doctor", "--engine"}} {
		o := run(t, nil, "", args...)
		want := "missing  Docker Engine does not answer at " + nowhere + " (Cannot connect to the Docker daemon at " + nowhere +
			". Is the docker daemon running?); to change that, start it, mount its socket where this is a container, or set DOCKER_HOST to where it answers (`docker context inspect` shows it)\n"
		if o.code != 1 || o.stdout != want {
			t.Errorf("%v: %+v", args, o)
		}
	}
}

func TestImageBuildWithoutEngine(t *testing.T) {
	for _, args := range [][]string{{"image", "build"}, {"image", "build", "--if-missing"}} {
		if o := run(t, nil, "", args...); o.code != 1 || !strings.Contains(o.stderr, "Docker Engine does not answer") {
			t.Errorf("%v: %+v", args, o)
		}
	}
}

// Over stdio, stdout has only the protocol, and the end of stdin is a normal end.
func TestStdio(t *testing.T) {
	hello := `{"jsonrpc": "2.0", "id": 1, "method": "ping"}` + "\n"
	o := run(t, []string{"LOG_LEVEL=debug"}, hello, "stdio")
	if o.code != 0 {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	var answer struct{ ID int }
	if err := json.Unmarshal([]byte(o.stdout), &answer); err != nil || answer.ID != 1 {
		t.Errorf("stdout is %q (%v)", o.stdout, err)
	}
}

// If files cannot be stored, stdio fails at its start too, not only when the first file
// is written.
func TestStorageThatCannotBeOpened(t *testing.T) {
	for url, want := range map[string]string{
		"gs://bucket":         "this binary was built without gs://",
		"s3://bucket?key=KEY": "the URL is ",
	} {
		for _, command := range []string{"serve", "stdio"} {
			run(t, []string{"FILE_STORAGE_URL=" + url, "PORT=0"}, "", command).want(t, 1, "vivarium: settings:\nFILE_STORAGE_URL: ", want)
		}
	}
}

// started runs serve until the test's end, and returns its address.
func started(t *testing.T, settings ...string) (address string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	logged, stderr := io.Pipe()
	system := cli.System{Lookup: lookup(t, append(settings, "PORT=0")), Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: stderr}
	code := make(chan int, 1)
	go func() {
		code <- cli.Run(ctx, []string{"serve"}, system)
		_ = stderr.Close()
	}()
	lines := bufio.NewScanner(logged)
	for lines.Scan() {
		if _, rest, found := strings.Cut(lines.Text(), "msg=listening address="); found {
			address, _, _ = strings.Cut(rest, " ")
			break
		}
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() { // so that the server does not wait
		}
	}()
	if address == "" {
		t.Fatalf("it does not listen: exit code %d", <-code)
	}
	return address, func() int {
		cancel()
		<-drained
		return <-code
	}
}

// A server starts without an engine, reports that, and ends normally.
func TestServeWithoutEngine(t *testing.T) {
	address, stop := started(t)
	defer http.DefaultClient.CloseIdleConnections()
	for path, want := range map[string]string{
		"/health":     `"message":"Docker Engine does not answer at ` + nowhere + `"`,
		"/docs":       "<title>Vivarium",
		"/mcp/absent": `{"detail":"Not Found"}`,
	} {
		if body := get(t, "http://"+address+path); !strings.Contains(body, want) {
			t.Errorf("%s: %s", path, body)
		}
	}
	resp, err := http.Post("http://"+address+"/v1/execute", "application/json", strings.NewReader(`{"code": "pass"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("execute: %s", resp.Status)
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

func TestServeOnATakenAddress(t *testing.T) {
	address, stop := started(t)
	defer stop()
	_, port, _ := strings.Cut(address, ":")
	run(t, []string{"PORT=" + port}, "", "serve").want(t, 1, "vivarium: HOST and PORT: ", "address already in use")
}
