package integration

import (
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
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	mcpsdk "github.com/mark3labs/mcp-go/mcp"
)

// What the documents have users put in for the binary's path and the server's
// address.
const (
	documentedBinary  = "/path/to/vivarium"
	documentedAddress = "http://127.0.0.1:8000"
)

// clientFormat is how a client wants to be told of a server, as its own
// documentation has it.
type clientFormat struct {
	root string // what servers are below
	url  string // the field of a server's address; "" where a client starts servers alone
	toml bool
	// fields are those of a server, beside its address.
	fields []string
}

func clientFormats() map[string]clientFormat {
	stdio := []string{"command", "args", "env"}
	typed := append([]string{"type"}, stdio...)
	return map[string]clientFormat{
		"Claude Desktop": {root: "mcpServers", fields: stdio},
		"Claude Code":    {root: "mcpServers", url: "url", fields: typed},
		"Cursor":         {root: "mcpServers", url: "url", fields: typed},
		"VS Code":        {root: "servers", url: "url", fields: typed},
		"Windsurf":       {root: "mcpServers", url: "serverUrl", fields: stdio},
		"Zed":            {root: "context_servers", url: "url", fields: stdio},
		"Codex":          {root: "mcp_servers", url: "url", toml: true, fields: append([]string{"tool_timeout_sec"}, stdio...)},
		"Container":      {root: "mcpServers", fields: stdio},
		"README.md":      {root: "mcpServers", fields: stdio},
	}
}

// snippet is a piece of a document that users copy.
type snippet struct{ section, language, text string }

// snippets gives the fenced code of docs/mcp.md by its section, and the README's
// lines about MCP clients, which are indented.
func snippets(t *testing.T) []snippet {
	t.Helper()
	var found []snippet
	section := ""
	pieces := regexp.MustCompile("(?ms)^##+ (.+?)$|^```(\\w+)\n(.*?)^```$")
	for _, piece := range pieces.FindAllStringSubmatch(readText(t, "../docs/mcp.md"), -1) {
		if piece[1] != "" {
			section = piece[1]
			continue
		}
		found = append(found, snippet{section, piece[2], piece[3]})
	}
	_, about, _ := strings.Cut(readText(t, "../README.md"), "## MCP clients\n")
	about, _, _ = strings.Cut(about, "\n## ")
	for _, line := range regexp.MustCompile(`(?m)^    (.+)$`).FindAllStringSubmatch(about, -1) {
		language := "sh"
		if strings.HasPrefix(line[1], "{") {
			language = "json"
		}
		found = append(found, snippet{"README.md", language, line[1]})
	}
	return found
}

func readText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// documented is a server as a snippet has it.
type documented struct {
	Type      string            `json:"type" toml:"type"`
	Command   string            `json:"command" toml:"command"`
	Args      []string          `json:"args" toml:"args"`
	Env       map[string]string `json:"env" toml:"env"`
	URL       string            `json:"url" toml:"url"`
	ServerURL string            `json:"serverUrl" toml:"-"`
}

// parse gives the one server of a snippet, whose form must be the client's.
func (s snippet) parse(t *testing.T, format clientFormat) documented {
	t.Helper()
	var form map[string]map[string]map[string]any
	var server map[string]map[string]documented
	var err error
	if format.toml {
		_, first := toml.Decode(s.text, &form)
		_, second := toml.Decode(s.text, &server)
		err = errors.Join(first, second)
	} else {
		err = errors.Join(json.Unmarshal([]byte(s.text), &form), json.Unmarshal([]byte(s.text), &server))
	}
	if err != nil {
		t.Fatalf("%v in %s", err, s.text)
	}
	fields, ok := form[format.root]["vivarium"]
	if !ok || len(form) != 1 || len(form[format.root]) != 1 {
		t.Fatalf("there is not the one server vivarium below %s: %s", format.root, s.text)
	}
	for name := range fields {
		if !slices.Contains(format.fields, name) && (name != format.url || name == "") {
			t.Errorf("%s does not know the field %s: %s", s.section, name, s.text)
		}
	}
	return server[format.root]["vivarium"]
}

// Whatever the documents have users copy starts a server, or finds one, and
// that has the tools. Each client has a snippet for each transport that it knows.
func TestDocumentedClients(t *testing.T) {
	ways := make(map[string]int) // "section transport"
	formats := clientFormats()
	for i, s := range snippets(t) {
		format, known := formats[s.section]
		if !known {
			t.Errorf("nothing is known of %s: %s", s.section, s.text)
			continue
		}
		t.Run(fmt.Sprintf("%s %d", s.section, i), func(t *testing.T) {
			switch {
			case s.language == "sh":
				for line := range strings.Lines(s.text) {
					tryCommandLine(t, strings.TrimSpace(line))
				}
			case (s.language == "toml") != format.toml:
				t.Errorf("%s reads no %s", s.section, s.language)
			default:
				ways[s.section+" "+try(t, s.parse(t, format))]++
			}
		})
	}
	for section, format := range formats {
		if ways[section+" stdio"] != 1 || (format.url != "") != (ways[section+" http"] == 1) {
			t.Errorf("%s has not one snippet for each transport: %v", section, ways)
		}
	}
}

// What the documents have users start in a container does start.
func TestDockerDocumentedContainer(t *testing.T) {
	formats := clientFormats()
	started := 0
	for _, s := range snippets(t) {
		if s.language == "sh" {
			continue
		}
		if server := s.parse(t, formats[s.section]); server.Command == "docker" {
			tryContainer(t, server.Args)
			started++
		}
	}
	if started != 1 {
		t.Errorf("%d snippets start a container", started)
	}
}

// try connects as a client with a snippet would, and says how.
func try(t *testing.T, server documented) (way string) {
	t.Helper()
	address := server.URL + server.ServerURL
	switch {
	case address == "" && server.Command == "docker" && (server.Type == "" || server.Type == "stdio"):
		return "stdio" // TestDockerDocumentedContainer starts it
	case address == "" && (server.Type == "" || server.Type == "stdio"):
		tryStdio(t, append([]string{server.Command}, server.Args...), server.Env)
		return "stdio"
	case server.Command == "" && (server.Type == "" || server.Type == "http"):
		tryHTTP(t, shared.server, address)
		return "http"
	}
	t.Errorf("it is neither for stdio nor for HTTP: %+v", server)
	return ""
}

// commandLine is how clients' commands want to be told of a server. What sets a
// variable or a header takes all words that follow: it must not come before the name.
func commandLine() *regexp.Regexp {
	return regexp.MustCompile(`^(?:claude mcp add(?: --transport http)?|codex mcp add) vivarium(?: (?:-e|--env) (\w+)=(\S+))?` +
		`(?: -- (.+)| (?:--url )?(http\S+)( --header "Authorization: Bearer KEY"| --bearer-token-env-var \w+)?)$`)
}

// tryCommandLine does what a client's command would have the client do later.
func tryCommandLine(t *testing.T, line string) {
	t.Helper()
	parts := commandLine().FindStringSubmatch(line)
	if parts == nil {
		t.Fatalf("no client takes %q", line)
	}
	name, value, command, address, key := parts[1], parts[2], parts[3], parts[4], parts[5]
	switch {
	case command != "":
		tryStdio(t, strings.Fields(command), map[string]string{name: value})
	case key != "":
		tryHTTP(t, startServer(t, "API_KEYS="+annasKey, "POOL_SIZE=1"), address,
			transport.WithHTTPHeaders(map[string]string{"Authorization": "Bearer " + annasKey}))
	default:
		tryHTTP(t, shared.server, address)
	}
}

// tryStdio starts a server and uses it.
func tryStdio(t *testing.T, command []string, env map[string]string) {
	t.Helper()
	if command[0] != documentedBinary {
		t.Fatalf("it starts %q", command)
	}
	useServer(t, startBare(t, shared.binary, command[1:], env))
}

// startBare starts a server. It gets as little of our environment as clients
// pass on, and what tells where the tests' engine is.
func startBare(t *testing.T, binary string, args []string, env map[string]string) *mcpclient.Client {
	t.Helper()
	all := []string{"POOL_SIZE=1"}
	for _, name := range []string{"HOME", "PATH", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG"} {
		if value, ok := os.LookupEnv(name); ok {
			all = append(all, name+"="+value)
		}
	}
	all = append(all, with(dataImage)...)
	for name, value := range env {
		if value != "" { // as good as unset, but here it would hide ours
			all = append(all, name+"="+value)
		}
	}
	bare := transport.WithCommandFunc(func(ctx context.Context, command string, env, args []string) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, command, args...)
		cmd.Env = env
		return cmd, nil
	})
	c, err := mcpclient.NewStdioMCPClientWithOptions(binary, all, args, bare)
	return connect(t, c, err)
}

// tryHTTP connects to a server that is at the documented address.
func tryHTTP(t *testing.T, s *server, address string, options ...transport.StreamableHTTPCOption) {
	t.Helper()
	path, ok := strings.CutPrefix(address, documentedAddress)
	if !ok {
		t.Fatalf("it connects to %q", address)
	}
	c, err := mcpclient.NewStreamableHttpClient(s.url+path, options...)
	useServer(t, connect(t, c, err))
}

// useServer lists the tools and runs a program.
func useServer(t *testing.T, c *mcpclient.Client) {
	t.Helper()
	if names := toolNames(t, c); !slices.Contains(names, "execute_python") || !slices.Contains(names, "end_session") {
		t.Errorf("the tools are %q", names)
	}
	if text, failed := call(t, c, map[string]any{"code": "print(6*7)"}); text != "42\n" || failed {
		t.Errorf("print(6*7) gives %q (error %v)", text, failed)
	}
}

func toolNames(t *testing.T, c *mcpclient.Client) (names []string) {
	t.Helper()
	list, err := c.ListTools(t.Context(), mcpsdk.ListToolsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	slices.Sort(names)
	return names
}

// tryContainer starts the server's image as `docker run` would with some
// arguments, and uses it.
func tryContainer(t *testing.T, args []string) {
	t.Helper()
	config, host := dockerRun(t, args)
	ctx := context.WithoutCancel(t.Context())
	made, err := shared.engine.ContainerCreate(ctx, config, host, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.engine.ContainerRemove(ctx, made.ID, container.RemoveOptions{Force: true}) }) // it may be gone
	streams, err := shared.engine.ContainerAttach(ctx, made.ID, container.AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.engine.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	stdout, write := io.Pipe()
	var log bytes.Buffer
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := stdcopy.StdCopy(write, &log, streams.Reader)
		_ = write.CloseWithError(err) // it returns no error
	}()
	c := connect(t, mcpclient.NewClient(transport.NewIO(stdout, streams.Conn, io.NopCloser(strings.NewReader("")))), nil)
	useServer(t, c)
	// With its standard input, the server ends, and takes everything with it.
	if err := streams.CloseWrite(); err != nil {
		t.Error(err)
	}
	<-ended
	streams.Close()
	if !poll(func() bool { _, err := shared.engine.ContainerInspect(ctx, made.ID); return err != nil }) {
		t.Errorf("the container is left\n%s", log.String())
	}
	instance := regexp.MustCompile(`instance=(\S+)`).FindStringSubmatch(log.String())
	if instance == nil {
		t.Fatalf("the log does not name the instance:\n%s", log.String())
	}
	assertGone(t, instance[1])
}

// dockerRun translates the arguments of `docker run`, as far as the documents
// have them, for the machine of the tests.
func dockerRun(t *testing.T, args []string) (*container.Config, *container.HostConfig) {
	t.Helper()
	socket := engineSocket(t)
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	config := &container.Config{Env: []string{"PYTHON_EXECUTOR_DOCKER_IMAGE=" + slimImage, "POOL_SIZE=1"}, AttachStdout: true, AttachStderr: true}
	host := &container.HostConfig{}
	if len(args) == 0 || args[0] != "run" {
		t.Fatalf("docker %q", args)
	}
	for args = args[1:]; len(args) > 0 && strings.HasPrefix(args[0], "-"); args = args[1:] {
		name, value, joined := strings.Cut(args[0], "=")
		if takes := !slices.Contains([]string{"-i", "--rm"}, name); takes && !joined {
			args = args[1:]
			value = args[0]
		}
		switch name {
		case "-i":
			config.OpenStdin, config.StdinOnce, config.AttachStdin = true, true, true
		case "--rm":
			host.AutoRemove = true
		case "-v", "--volume":
			host.Binds = append(host.Binds, strings.Replace(value, "/var/run/docker.sock:", socket+":", 1))
		case "--group-add":
			host.GroupAdd = append(host.GroupAdd, strings.Replace(value, "GROUP", groupOf(info), 1))
		case "-e", "--env":
			config.Env = append(config.Env, value)
		default:
			t.Fatalf("the test does not know docker run %s", name)
		}
	}
	if len(args) == 0 || args[0] != "vivarium/server" {
		t.Fatalf("it runs %q", args)
	}
	config.Image, config.Cmd = serverImage(t), args[1:]
	return config, host
}
