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
	"strings"
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
		return mcpclient.NewStdioMCPClient(shared.binary, []string{"PYTHON_EXECUTOR_DOCKER_IMAGE=" + slimImage, "POOL_SIZE=1"}, "stdio")
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
				{body: request{"code": "print('to stdout')\nraise SystemExit(3)"}, wanted: "[exit code 3]\n", failed: true},
				{body: request{"code": "print(input())", "stdin": "héllo"}},
				{
					body: request{
						"code":  "print(open('a.txt').read()); open('b.txt', 'w').write('123'); None",
						"files": []map[string]any{{"path": "a.txt", "content_base64": encode("in")}},
					}, wanted: "[file written: b.txt, 3 bytes]\n",
				},
			} {
				a := mustRun(t, shared.server, r.body)
				text, failed := call(t, c, r.body)
				if want := a.Stdout + r.wanted; text != want || failed != r.failed {
					t.Errorf("%v: %q (error %v); HTTP: %q", r.body["code"], text, failed, want)
				}
			}
			text, failed := call(t, c, map[string]any{"code": "import time; time.sleep(9)", "timeout_ms": 200})
			if !failed || !strings.Contains(text, "timed out") {
				t.Errorf("timeout: %q (error %v)", text, failed)
			}
			text, failed = call(t, c, map[string]any{"code": "1/0"})
			if !failed || !strings.Contains(text, "ZeroDivisionError") {
				t.Errorf("exception: %q (error %v)", text, failed)
			}
			text, failed = call(t, c, map[string]any{"code": "1", "lang": "py"})
			if !failed || text != `unknown argument "lang": the known ones are code, timeout_ms, stdin, files` {
				t.Errorf("unknown argument: %q (error %v)", text, failed)
			}
		})
	}
}

// Nothing but MCP on stdout; the end of stdin ends the process with status 0,
// a run that is under way included, and leaves nothing.
func TestStdioProcess(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), shared.binary, "stdio")
	cmd.Env = append(os.Environ(), "PYTHON_EXECUTOR_DOCKER_IMAGE="+slimImage, "POOL_SIZE=1", "LOG_LEVEL=debug", "LOG_FORMAT=json")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	say := func(text string) {
		if _, err := fmt.Fprintln(stdin, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func() map[string]any {
		line, err := lines.ReadBytes('\n')
		var message map[string]any
		if err := errors.Join(err, json.Unmarshal(line, &message)); err != nil || message["jsonrpc"] != "2.0" {
			t.Fatalf("%q is no MCP: %v\n%s", line, err, stderr.String())
		}
		return message
	}
	say(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	hear()
	say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	say(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"execute_python","arguments":{"code":"import sys; print('a'); print('b', file=sys.stderr)"}}}`)
	if result := fmt.Sprint(hear()["result"]); !strings.Contains(result, `a`+"\n"+`[stderr]`+"\n"+`b`) {
		t.Errorf("result: %s", result)
	}
	say(`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"execute_python","arguments":{"code":"import subprocess; subprocess.run(['sleep', '60'])","timeout_ms":60000}}}`)
	say(`not json`)
	if hear()["error"] == nil {
		t.Error("no error for what is no JSON")
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	rest, err := io.ReadAll(lines)
	for line := range bytes.Lines(rest) {
		if !json.Valid(line) {
			t.Errorf("%q is no MCP", line)
		}
	}
	if err := errors.Join(err, cmd.Wait()); err != nil {
		t.Errorf("%v\n%s", err, stderr.String())
	}
	if time.Since(began) > goAway {
		t.Errorf("it took %s to end", time.Since(began))
	}
}
