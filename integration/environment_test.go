package integration

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	mcpclient "github.com/mark3labs/mcp-go/client"
	mcpsdk "github.com/mark3labs/mcp-go/mcp"
)

// showEnvironment is a program that shows its variable TOKEN, as a process that it starts has it
// too, and its arguments.
const showEnvironment = `import os, subprocess, sys
child = subprocess.run(["sh", "-c", "echo $TOKEN"], capture_output=True, text=True).stdout.strip()
print(os.environ.get("TOKEN"), child, sys.argv[1:])`

const token = "TOKENhunter2"

// withToken returns a request with a variable, and two arguments unless the route has none.
func withToken(body request) request {
	all := request{"env": map[string]string{"TOKEN": token}, "args": []string{"-v", "a b"}}
	maps.Copy(all, body)
	return all
}

// noToken checks that a server has logged, and no value of a variable.
func noToken(t *testing.T, s *server) {
	t.Helper()
	if log := s.logged(); log == "" || strings.Contains(log, token) {
		t.Errorf("the log is %s", log)
	}
}

// Variables and arguments are those of one run, also where one sandbox serves many.
func TestEnvironmentOfRuns(t *testing.T) {
	for _, isolation := range []string{"run", "container"} {
		t.Run(isolation, func(t *testing.T) {
			s := startServer(t, "ISOLATION="+isolation, "POOL_SIZE=1", "MAX_SANDBOXES=1", "LOG_LEVEL=debug")
			with, without := token+" "+token+" ['-v', 'a b']\n", "None  []\n"
			for _, want := range []string{with, without, with, without} {
				body := request{"code": showEnvironment}
				if want == with {
					body = withToken(body)
				}
				program{stdout: want}.check(t, mustRun(t, s, body))
			}
			a, err := s.execute(t.Context(), withToken(request{"code": "1", "timeout_ms": 0}))
			if err != nil || a.status != 422 || strings.Contains(fmt.Sprint(a.Detail), token) {
				t.Errorf("%+v, %v", a, err)
			}
			noToken(t, s)
		})
	}
}

// In a session they are those of one call, and what was there before comes back.
func TestEnvironmentOfCalls(t *testing.T) {
	s := startServer(t, "POOL_SIZE=1", "LOG_LEVEL=debug")
	session := startSession(t, s, request{})
	const commands = `echo "$TOKEN,$1,$2,$#"`
	for i, step := range []struct {
		route string
		body  request
		want  string
	}{
		{"/execute", withToken(request{"code": showEnvironment}), token + " " + token + " ['-v', 'a b']\n"},
		{"/execute", request{"code": showEnvironment}, "None  []\n"},
		{"/execute", request{"code": "os.environ['TOKEN'] = 'mine'; sys.argv"}, "['']\n"},
		{"/execute", withToken(request{"code": showEnvironment}), token + " " + token + " ['-v', 'a b']\n"},
		{"/execute", request{"code": showEnvironment}, "mine mine []\n"},
		{"/execute", withToken(request{"code": "os.environ['TOKEN'] = 'changed'"}), ""},
		{"/execute", request{"code": showEnvironment}, "changed changed []\n"},
		{"/execute", withToken(request{"code": "1 / 0"}), ""},
		{"/execute", withToken(request{"code": "import time; time.sleep(60)", "timeout_ms": 300}), ""},
		{"/execute", request{"code": showEnvironment}, "changed changed []\n"},
		{"/bash", withToken(request{"cmd": commands}), token + ",-v,a b,2\n"},
		{"/bash", request{"cmd": commands}, ",,,0\n"},
		{"/execute", withToken(request{"code": "os.kill(os.getpid(), 9)"}), ""},
		{"/execute", request{"code": showEnvironment}, "None  []\n"},
	} {
		if a := session.call(t, step.route, patient(step.body)); a.Stdout != step.want {
			t.Errorf("call %d prints %q (%s)", i, a.Stdout, a.Stderr)
		}
	}
	noToken(t, s)
}

// A model may set the variables that the server names, and no others.
func TestEnvironmentOverMCP(t *testing.T) {
	for _, isolation := range []string{"run", "container"} {
		t.Run(isolation, func(t *testing.T) {
			s := startServer(t, "ISOLATION="+isolation, "POOL_SIZE=1", "LOG_LEVEL=debug", "MCP_ENV_NAMES=REGION, TOKEN")
			c, err := mcpclient.NewStreamableHttpClient(s.url + "/mcp")
			c = connect(t, c, err)
			for _, step := range []struct {
				arguments request
				want      string
				failed    bool
			}{
				{withToken(request{"code": showEnvironment}), token + " " + token + " ['-v', 'a b']\n", false},
				{request{"code": showEnvironment}, "None  []\n", false},
				{request{"code": "1", "env": map[string]string{"PATH": token}}, "env.PATH must not be set: the allowed names are REGION, TOKEN", true},
			} {
				if text, failed := call(t, c, step.arguments); text != step.want || failed != step.failed {
					t.Errorf("%q (error %v), not %q", text, failed, step.want)
				}
			}
			if text := bashWithToken(t, c); !strings.HasPrefix(text, token+"\n") {
				t.Errorf("run_bash: %q", text)
			}
			noToken(t, s)
		})
	}
}

// bashWithToken returns what run_bash answers in a new session, which it then ends.
func bashWithToken(t *testing.T, c *mcpclient.Client) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request := mcpsdk.CallToolRequest{}
	request.Params.Name = "run_bash"
	request.Params.Arguments = map[string]any{"command": "echo $TOKEN", "session": "new", "env": map[string]string{"TOKEN": token}}
	result, err := c.CallTool(ctx, request)
	if err != nil || len(result.Content) == 0 {
		t.Fatalf("%+v, %v", result, err)
	}
	text, _ := mcpsdk.AsTextContent(result.Content[0])
	_, name, _ := strings.Cut(text.Text, `session="`)
	name, _, _ = strings.Cut(name, `"`)
	t.Cleanup(func() { shared.host.endSession(name) })
	return text.Text
}
