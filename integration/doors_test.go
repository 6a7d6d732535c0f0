package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	mcpclient "github.com/mark3labs/mcp-go/client"
	mcpsdk "github.com/mark3labs/mcp-go/mcp"
)

// connect gives an initialized client.
func connect(t *testing.T, c *mcpclient.Client, err error) *mcpclient.Client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	// The context must outlive the connection of some transports.
	if err := c.Start(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	request := mcpsdk.InitializeRequest{}
	request.Params.ProtocolVersion = mcpsdk.LATEST_PROTOCOL_VERSION
	request.Params.ClientInfo = mcpsdk.Implementation{Name: "integration", Version: "1"}
	if _, err := c.Initialize(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	return c
}

// call calls execute_python and gives the text and whether it is an error.
func call(t *testing.T, c *mcpclient.Client, arguments map[string]any) (string, bool) {
	t.Helper()
	request := mcpsdk.CallToolRequest{}
	request.Params.Name = "execute_python"
	request.Params.Arguments = arguments
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, err := c.CallTool(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Content) == 0 {
		t.Fatal("no content")
	}
	text, ok := mcpsdk.AsTextContent(result.Content[0])
	if !ok {
		t.Fatalf("no text: %+v", result.Content[0])
	}
	return text.Text, result.IsError
}

// The same request gets the same answer through every door.
func TestSameAnswerThroughEveryDoor(t *testing.T) {
	stdio := func() (*mcpclient.Client, error) {
		return mcpclient.NewStdioMCPClient(shared.binary, with(slimImage, "POOL_SIZE=1"), "stdio")
	}
	streamable := func() (*mcpclient.Client, error) {
		return mcpclient.NewStreamableHttpClient(shared.server.url + "/mcp")
	}
	sse := func() (*mcpclient.Client, error) { return mcpclient.NewSSEMCPClient(shared.server.url + "/sse") }
	for name, open := range map[string]func() (*mcpclient.Client, error){"stdio": stdio, "streamable HTTP": streamable, "SSE": sse} {
		t.Run(name, func(t *testing.T) {
			c, err := open()
			c = connect(t, c, err)
			for _, r := range []struct {
				body   request
				wanted string // what the tool's text adds to stdout and stderr
				failed bool
			}{
				{body: request{"code": "print(6*7)"}},
				{body: request{"code": "x = 20\nx + 1"}},
				{body: request{"code": "print('to stdout')\nraise SystemExit(3)"}, wanted: "[Exit code 3.]\n", failed: true},
				{body: request{"code": "print(input())", "stdin": "héllo"}},
				{
					body: request{
						"code":  "print(open('a.txt').read()); open('b.txt', 'w').write('123'); None",
						"files": []map[string]any{{"path": "a.txt", "content_base64": encode("in")}},
					}, wanted: "[file: b.txt, 3 bytes, file_id *]\n",
				},
			} {
				a := mustRun(t, shared.server, r.body)
				text, failed := call(t, c, r.body)
				before, after, _ := strings.Cut(r.wanted, "*") // an id is another each time
				if want := a.Stdout + before; !strings.HasPrefix(text, want) || !strings.HasSuffix(text, after) || failed != r.failed {
					t.Errorf("%v: %q (error %v); HTTP: %q", r.body["code"], text, failed, want)
				}
			}
			text, failed := call(t, c, map[string]any{"code": "import time; time.sleep(9)", "timeout_ms": 200})
			if !failed || !strings.Contains(text, "[Stopped after 200 ms. Raise timeout_ms") {
				t.Errorf("timeout: %q (error %v)", text, failed)
			}
			text, failed = call(t, c, map[string]any{"code": "1/0"})
			if !failed || !strings.Contains(text, "ZeroDivisionError") {
				t.Errorf("exception: %q (error %v)", text, failed)
			}
			text, failed = call(t, c, map[string]any{"code": "1", "lang": "py"})
			if !failed || text != `unknown argument "lang": the known ones are code, session, files, timeout_ms, stdin, args` {
				t.Errorf("unknown argument: %q (error %v)", text, failed)
			}
		})
	}
}

// stdioProcess is `vivarium stdio` as a client starts it.
type stdioProcess struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	lines  *bufio.Reader
	stderr bytes.Buffer
}

func startStdio(t *testing.T, env ...string) *stdioProcess {
	t.Helper()
	p := &stdioProcess{t: t, cmd: exec.CommandContext(t.Context(), shared.binary, "stdio")}
	var err error
	p.cmd.Env, err = adapt(slices.Concat(os.Environ(), with(slimImage, "POOL_SIZE=1", "LOG_LEVEL=debug", "LOG_FORMAT=json"), env))
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = &p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	p.stdin, p.lines = in, bufio.NewReader(p.stdout)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *stdioProcess) say(text string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.stdin, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *stdioProcess) hear() map[string]any {
	p.t.Helper()
	line, err := p.lines.ReadBytes('\n')
	var message map[string]any
	if err := errors.Join(err, json.Unmarshal(line, &message)); err != nil || message["jsonrpc"] != "2.0" {
		p.t.Fatalf("%q is no MCP: %v", line, err)
	}
	return message
}

func (p *stdioProcess) greet() {
	p.t.Helper()
	p.say(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	p.hear()
	p.say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
}

// instance gives the server's name for itself, from its log. The process must be
// over.
func (p *stdioProcess) instance() string {
	for line := range bytes.Lines(p.stderr.Bytes()) {
		var entry struct{ Instance string }
		if json.Unmarshal(line, &entry) == nil && entry.Instance != "" {
			return entry.Instance
		}
	}
	p.t.Fatalf("the log does not name the instance:\n%s", p.stderr.String())
	return ""
}

// awaitEnd waits for the process's end, which must be in peace: what it still
// says is MCP, its status is 0, and nothing of it is left.
func (p *stdioProcess) awaitEnd(session string) {
	p.t.Helper()
	began := time.Now()
	rest, _ := io.ReadAll(p.lines) // it may have been closed
	for line := range bytes.Lines(rest) {
		if !json.Valid(line) {
			p.t.Errorf("%q is no MCP", line)
		}
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%v\n%s", err, p.stderr.String())
	}
	if took := time.Since(began); took > goAway {
		p.t.Errorf("it took %s to end", took)
	}
	if left := awaitSandboxes(p.instance(), 0); left != 0 {
		p.t.Errorf("%d sandboxes are left", left)
	}
	if left := sessionSandboxes(p.t, session); len(left) != 0 {
		p.t.Errorf("the session is left: %+v", left)
		shared.host.endSession(session)
	}
}

// Nothing but MCP comes out on stdout. However a client goes, the process ends
// with status 0, a run and a session that are under way included, and leaves
// nothing.
func TestStdioProcess(t *testing.T) {
	for name, leave := range map[string]func(p *stdioProcess) error{
		"stdin ends": func(p *stdioProcess) error { return p.stdin.Close() },
		"SIGTERM":    func(p *stdioProcess) error { return p.cmd.Process.Signal(syscall.SIGTERM) },
		"a broken pipe": func(p *stdioProcess) error {
			if err := p.stdout.Close(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(p.stdin, `{"jsonrpc":"2.0","id":9,"method":"ping"}`) // its answer finds nobody
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startStdio(t)
			p.greet()
			p.say(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"execute_python","arguments":{"code":"import sys; print('a'); print('b', file=sys.stderr)"}}}`)
			if result := fmt.Sprint(p.hear()["result"]); !strings.Contains(result, "a\n[stderr]\nb") {
				t.Errorf("result: %s", result)
			}
			p.say(`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"execute_python","arguments":{"code":"x = 6", "session": "new"}}}`)
			begun := regexp.MustCompile(`session="([0-9a-f]{32})"`).FindStringSubmatch(fmt.Sprint(p.hear()["result"]))
			if begun == nil || len(sessionSandboxes(t, begun[1])) != 1 {
				t.Fatalf("no session: %v", begun)
			}
			p.say(`{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"execute_python","arguments":{"code":"import subprocess; subprocess.run(['sleep', '60'])","timeout_ms":60000}}}`)
			p.say(`not json`)
			if p.hear()["error"] == nil {
				t.Error("no error for what is no JSON")
			}
			if err := leave(p); err != nil {
				t.Fatal(err)
			}
			p.awaitEnd(begun[1])
		})
	}
}

// A client learns what the server is while the engine is down, and from its
// first call what is missing.
func TestDockerStdioWithoutEngine(t *testing.T) {
	p := startStdio(t, "DOCKER_HOST=tcp://127.0.0.1:1")
	p.greet()
	p.say(`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
	if result := fmt.Sprint(p.hear()["result"]); !strings.Contains(result, "execute_python") {
		t.Errorf("result: %s", result)
	}
	p.say(`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"execute_python","arguments":{"code":"1"}}}`)
	const want = "Docker Engine does not answer at tcp://127.0.0.1:1. Nothing was run. Ask the user to run `vivarium doctor`, which reports what is missing."
	if result := fmt.Sprint(p.hear()["result"]); !strings.Contains(result, want) {
		t.Errorf("result: %s", result)
	}
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.stderr.String())
	}
}
