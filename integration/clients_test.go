package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"golang.org/x/sync/errgroup"
)

// mcpStep is one thing that an MCP client is to do: list the tools, call ours, or
// read the first file that the last call linked to.
type mcpStep struct {
	List     bool           `json:"list,omitempty"`
	Read     bool           `json:"read,omitempty"`
	Call     map[string]any `json:"call,omitempty"`     // arguments
	CancelAt int            `json:"cancelAt,omitempty"` // call it off at that many notifications of progress
}

// mcpReply is what came of a step.
type mcpReply struct {
	Tools     []string
	Text      string
	IsError   bool
	Links     []string
	Progress  []progress
	Cancelled bool
	MS        int64
}

type progress struct {
	Progress float64
	Message  string
}

// walk has a client walk through steps over a transport. The target is a binary
// for stdio, the URL of a server otherwise.
type walk func(t *testing.T, transport, target string, steps []mcpStep) ([]mcpReply, error)

// transports that each of the clients has.
var transports = []string{"stdio", "http", "sse"}

// walkers are the clients that people's programs are made with, by their names.
// Those that speak both eras of the protocol are here once more, with the old
// one.
func walkers(t *testing.T) map[string]walk {
	t.Helper()
	goSDK := walkGoSDK(t)
	return map[string]walk{
		"mcp-go":                walkMCPGo(),
		"mcp-go, old":           walkMCPGo(mcpclient.WithLegacyProtocolOnly()), //nolint:staticcheck // as old programs do
		"TypeScript SDK 1":      walkNode("clients/sdk1.mjs", ""),
		"TypeScript SDK 2":      walkNode("clients/sdk2.mjs", "auto"),
		"TypeScript SDK 2, old": walkNode("clients/sdk2.mjs", "legacy"),
		"Go SDK":                goSDK("auto"),
		"Go SDK, old":           goSDK("legacy"),
	}
}

// walkGoSDK builds the client of the official Go SDK, for either era.
func walkGoSDK(t *testing.T) func(era string) walk {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "client")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	build.Dir = "../tools/clients"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return func(era string) walk {
		return func(t *testing.T, transport, target string, steps []mcpStep) ([]mcpReply, error) {
			t.Helper()
			return walkCommand(t, exec.CommandContext(t.Context(), binary), era, transport, target, steps)
		}
	}
}

// walkNode has a script walk, in one era if it knows both.
func walkNode(script, era string) walk {
	return func(t *testing.T, transport, target string, steps []mcpStep) ([]mcpReply, error) {
		t.Helper()
		return walkCommand(t, node(t.Context(), script), era, transport, target, steps)
	}
}

// walkCommand has a program walk.
func walkCommand(t *testing.T, cmd *exec.Cmd, era, transport, target string, steps []mcpStep) ([]mcpReply, error) {
	t.Helper()
	data, err := json.Marshal(steps)
	if err != nil {
		return nil, err
	}
	cmd.Args = append(cmd.Args, transport, target, string(data))
	cmd.Env = slices.Concat(os.Environ(), stdioSettings(), []string{"ERA=" + era})
	out, err := cmd.Output()
	if err != nil {
		return nil, withStderr(err)
	}
	var replies []mcpReply
	err = json.Unmarshal(out, &replies)
	return replies, err
}

// withStderr adds what a program complained about.
func withStderr(err error) error {
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("%w\n%s", err, failed.Stderr)
	}
	return err
}

// stdioSettings are for the server that a client starts.
func stdioSettings() []string {
	return with(slimImage, oneAtATime()...)
}

func oneAtATime() []string { return []string{"MAX_SANDBOXES=1", "POOL_SIZE=1"} }

// inspectors are the MCP Inspector in either era.
func inspectors() map[string]walk {
	return map[string]walk{"Inspector": walkInspector("auto"), "Inspector, old": walkInspector("legacy")}
}

// walkInspector has the MCP Inspector walk, whose command line takes one step a
// process: it hears no progress, and calls nothing off.
func walkInspector(era string) walk {
	return func(t *testing.T, transport, target string, steps []mcpStep) ([]mcpReply, error) {
		t.Helper()
		arguments := []string{"--cli", "--format=json", "--quiet", "--protocol-era", era, "--transport", transport}
		var server []string
		switch transport {
		case "stdio":
			for _, setting := range stdioSettings() {
				arguments = append(arguments, "-e", setting)
			}
			server = []string{"--", target, "stdio"}
		case "http":
			server = []string{"--server-url", target + "/mcp"}
		default:
			server = []string{"--server-url", target + "/sse"}
		}
		var replies []mcpReply
		for _, s := range steps {
			what, err := s.forInspector(replies)
			if err != nil {
				return nil, err
			}
			o, err := inspect(t, slices.Concat(arguments, what, server))
			if err != nil {
				return nil, err
			}
			replies = append(replies, o)
		}
		return replies, nil
	}
}

// forInspector gives the step's arguments. --strict has it look at what of the
// tools' schemas not every client understands.
func (s mcpStep) forInspector(before []mcpReply) ([]string, error) {
	switch {
	case s.List:
		return []string{"--method=tools/list", "--strict"}, nil
	case s.Read:
		last := before[len(before)-1]
		if len(last.Links) == 0 {
			return nil, errors.New("the last call linked to nothing")
		}
		return []string{"--method=resources/read", "--uri", last.Links[0]}, nil
	}
	data, err := json.Marshal(s.Call)
	return []string{"--method=tools/call", "--tool-name=execute_python", "--tool-args-json", string(data)}, err
}

// inspect runs the Inspector. It exits with 5 after a result that is an error.
func inspect(t *testing.T, arguments []string) (o mcpReply, _ error) {
	t.Helper()
	cmd := node(t.Context(), filepath.Join(nodeModules, "@modelcontextprotocol/inspector/clients/launcher/build/index.js"), arguments...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || failed.ExitCode() != 5) {
		return o, withStderr(err)
	}
	var answer struct {
		Result struct {
			Tools    []struct{ Name string }
			Content  []struct{ Type, Text, URI string }
			Contents []struct {
				Text string
				Blob []byte
			}
			IsError bool
		}
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return o, fmt.Errorf("%w in %s", err, out)
	}
	o.IsError = answer.Result.IsError
	for _, tool := range answer.Result.Tools {
		o.Tools = append(o.Tools, tool.Name)
	}
	for _, part := range answer.Result.Content {
		if part.Type == "resource_link" {
			o.Links = append(o.Links, part.URI)
		}
		o.Text += part.Text
	}
	for _, part := range answer.Result.Contents {
		o.Text += part.Text + string(part.Blob)
	}
	return o, nil
}

// clientsTest is what clients are to do, and what must come of it.
type clientsTest struct {
	clients map[string]walk
	// transports are all, unless some are named.
	transports []string
	// alone gives each client a server of its own, which runs one program at a
	// time.
	alone bool
	steps []mcpStep
	check func(t *testing.T, replies []mcpReply)
}

// run has each client walk over each transport, several at once.
func (c clientsTest) run(t *testing.T) {
	t.Helper()
	if c.transports == nil {
		c.transports = transports
	}
	var several errgroup.Group
	several.SetLimit(4)
	for name, walk := range c.clients {
		for _, transport := range c.transports {
			several.Go(func() error {
				t.Run(name+" over "+transport, func(t *testing.T) { c.runOne(t, walk, transport) })
				return nil
			})
		}
	}
	_ = several.Wait()
}

func (c clientsTest) runOne(t *testing.T, walk walk, transport string) {
	t.Helper()
	target := shared.server.url
	switch {
	case transport == "stdio":
		target = shared.binary
	case c.alone:
		target = startServer(t, oneAtATime()...).url
	}
	replies, err := walk(t, transport, target, c.steps)
	if err != nil || len(replies) != len(c.steps) {
		t.Fatalf("%+v, %v", replies, err)
	}
	c.check(t, replies)
}

// runCode is a step that calls the tool with some code.
func runCode(code string) mcpStep { return mcpStep{Call: map[string]any{"code": code}} }

// Each client sees what a call gives: a result, or an error that its model can
// read.
func TestClientsCall(t *testing.T) {
	clients := walkers(t)
	maps.Copy(clients, inspectors())
	clientsTest{
		clients: clients,
		steps:   []mcpStep{{List: true}, runCode("print(6*7)"), runCode("1/0"), {Call: map[string]any{"code": "1", "lang": "py"}}},
		check: func(t *testing.T, replies []mcpReply) {
			t.Helper()
			if tools := replies[0].Tools; !slices.Contains(tools, "execute_python") {
				t.Errorf("the tools are %q", tools)
			}
			if r := replies[1]; r.Text != "42\n" || r.IsError {
				t.Errorf("the answer is %+v", r)
			}
			if r := replies[2]; !strings.Contains(r.Text, "ZeroDivisionError") || !r.IsError {
				t.Errorf("an exception: %+v", r)
			}
			if r := replies[3]; !strings.HasPrefix(r.Text, `unknown argument "lang"`) || !r.IsError {
				t.Errorf("an unknown argument: %+v", r)
			}
		},
	}.run(t)
}

// slow takes some seconds, and prints one after the other.
func slow(seconds int) mcpStep {
	return mcpStep{Call: map[string]any{
		"code":       fmt.Sprintf("import time\nfor i in range(%d):\n    print('second', i)\n    time.sleep(1)", seconds),
		"timeout_ms": 60_000,
	}}
}

// Each client hears how far a call is.
func TestClientsHearProgress(t *testing.T) {
	clientsTest{
		clients: walkers(t),
		steps:   []mcpStep{slow(4)},
		check: func(t *testing.T, replies []mcpReply) {
			t.Helper()
			r := replies[0]
			if r.IsError || !strings.HasSuffix(r.Text, "second 3\n") {
				t.Errorf("the answer is %+v", r)
			}
			if len(r.Progress) < 2 {
				t.Errorf("it heard %+v", r.Progress)
			}
			printed := false
			for i, p := range r.Progress {
				// A program that has printed nothing yet is reported too: a server's first may start slowly.
				printed = printed || strings.HasPrefix(p.Message, "second ")
				named := printed == strings.HasPrefix(p.Message, "second ") && (printed || strings.HasPrefix(p.Message, "running for "))
				if !named || i > 0 && p.Progress <= r.Progress[i-1].Progress {
					t.Errorf("it heard %+v", r.Progress)
				}
			}
		},
	}.run(t)
}

// A call that a client calls off makes room: each server runs one program at a
// time, and the next one does not wait for the minute's end.
func TestClientsCancel(t *testing.T) {
	long := slow(60)
	long.CancelAt = 1
	test := clientsTest{
		alone: true,
		steps: []mcpStep{long, runCode("print(6*7)")},
		check: func(t *testing.T, replies []mcpReply) {
			t.Helper()
			if !replies[0].Cancelled {
				t.Errorf("it was not called off: %+v", replies[0])
			}
			if r := replies[1]; r.Text != "42\n" || r.MS > goAway.Milliseconds() {
				t.Errorf("the next call: %+v", r)
			}
		},
	}
	test.clients = walkers(t)
	test.transports = []string{"stdio", "http"}
	test.run(t)
	// mcp-go's client (v1.2.1) tells nobody over SSE.
	maps.DeleteFunc(test.clients, func(name string, _ walk) bool { return strings.HasPrefix(name, "mcp-go") })
	test.transports = []string{"sse"}
	test.run(t)
}

// Each client can read the files that a program writes.
func TestClientsReadFiles(t *testing.T) {
	test := clientsTest{
		clients: walkers(t),
		steps:   []mcpStep{runCode("open('a.txt', 'w').write('h\u00e9llo')"), {Read: true}},
		check: func(t *testing.T, replies []mcpReply) {
			t.Helper()
			if links := replies[0].Links; len(links) != 1 || !strings.HasPrefix(links[0], "vivarium://files/") {
				t.Errorf("it links to %q", links)
			}
			if text := replies[1].Text; text != "h\u00e9llo" {
				t.Errorf("it read %q", text)
			}
		},
	}
	test.run(t)
	// Over stdio each of the Inspector's steps has a server of its own.
	test.clients, test.transports = inspectors(), []string{"http", "sse"}
	test.run(t)
}
