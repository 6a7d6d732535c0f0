package mcp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/mcp"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

var update = flag.Bool("update", false, "write the snapshots in testdata anew")

// execute is an executor that is a function.
type execute func(ctx context.Context, req execution.Request) (*execution.Result, error)

func (e execute) Execute(ctx context.Context, req execution.Request) (*execution.Result, error) {
	return e(ctx, req)
}

// gives returns an executor that returns a result or an error.
func gives(result *execution.Result, err error) execute {
	return func(context.Context, execution.Request) (*execution.Result, error) { return result, err }
}

func exited(code int) *execution.Result {
	return &execution.Result{ExitCode: &code, End: execution.End{Reason: execution.Exited}}
}

// options returns options for a test to change.
func options(executor execute) mcp.Options {
	return mcp.Options{
		Executor: executor, Sessions: newSessions(), Files: noFiles{}, Version: "1.2.3", Log: slog.New(slog.DiscardHandler),
		Limits:     execution.Limits{MaxTimeout: time.Minute, CPUTime: 5 * time.Second, WorkspaceBytes: 64 << 20, OutputBytes: 1_000_000, ResultFiles: 100, ResultBytes: 20 << 20},
		Settings:   execution.Settings{Network: "none", MemoryBytes: 256 << 20, Processes: 64, WorkspaceBytes: 64 << 20, TempBytes: 32 << 20},
		SessionTTL: time.Hour, FileTTL: time.Hour,
	}
}

// noFiles is a store for tests without files: it keeps nothing.
type noFiles struct{}

func (noFiles) Put(_ context.Context, name string, r io.Reader) (filestore.Info, error) {
	_, err := io.Copy(io.Discard, r)
	return filestore.Info{ID: "id of " + name}, err
}

func (noFiles) Hold(context.Context, string) (*filestore.Held, error) { return nil, errNoFile }

func (noFiles) Stat(context.Context, string) (filestore.Info, error) {
	return filestore.Info{}, errNoFile
}

func (noFiles) Get(context.Context, string) (*filestore.File, error) { return nil, errNoFile }

func (noFiles) Delete(context.Context, string) error { return nil }

var errNoFile = &execution.Error{Code: execution.NotFound, Message: "File not found"}

// newStore makes a store of the test's own.
func newStore(t *testing.T) *filestore.Store {
	t.Helper()
	store, err := filestore.Open(t.Context(), filestore.Options{
		URL: "file://" + t.TempDir(), MaxFileBytes: 64 << 20, MaxBytes: 64 << 20, TTL: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// sessions are sessions that are a map. They check requests as the manager does; what
// a call then returns is the test's. A nil function succeeds.
type sessions struct {
	mu     sync.Mutex
	begun  int
	alive  map[string]bool
	python func(req execution.Request) (*execution.Result, error)
	bash   func(cmd execution.Command) (*execution.Result, error)
	read   func(req execution.ReadRequest) error
	write  func(req execution.WriteRequest) error
	list   func(req execution.ListRequest) (execution.Listing, error)
}

func newSessions() *sessions { return &sessions{alive: make(map[string]bool)} }

func (s *sessions) Create(_ context.Context, ttl time.Duration, _ []execution.Input) (execution.SessionInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun++
	id := fmt.Sprintf("session%d", s.begun)
	s.alive[id] = true
	return execution.SessionInfo{ID: id, Expires: time.Now().Add(ttl)}, nil
}

// find locks the sessions, unless the id is unknown.
func (s *sessions) find(id string) (unlock func(), err error) {
	s.mu.Lock()
	if !s.alive[id] {
		s.mu.Unlock()
		return nil, notFound(id)
	}
	return s.mu.Unlock, nil
}

func (s *sessions) RunPython(ctx context.Context, id string, req execution.Request) (*execution.Result, error) {
	if _, err := req.Validate(ctx, options(nil).Limits); err != nil {
		return nil, err
	}
	unlock, err := s.find(id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.python == nil {
		return exited(0), nil
	}
	return s.python(req)
}

func (s *sessions) RunBash(_ context.Context, id string, cmd execution.Command) (*execution.Result, error) {
	if _, err := cmd.Validate(options(nil).Limits); err != nil {
		return nil, err
	}
	unlock, err := s.find(id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.bash == nil {
		return exited(0), nil
	}
	return s.bash(cmd)
}

func (s *sessions) ReadFile(_ context.Context, id string, req execution.ReadRequest) error {
	if err := req.Validate(); err != nil {
		return err
	}
	unlock, err := s.find(id)
	if err != nil {
		return err
	}
	defer unlock()
	if s.read == nil {
		return nil
	}
	return s.read(req)
}

func (s *sessions) WriteFiles(ctx context.Context, id string, req execution.WriteRequest) error {
	if _, err := req.Validate(ctx, options(nil).Limits); err != nil {
		return err
	}
	unlock, err := s.find(id)
	if err != nil {
		return err
	}
	defer unlock()
	if s.write == nil {
		return nil
	}
	return s.write(req)
}

func (s *sessions) ListFiles(_ context.Context, id string, req execution.ListRequest) (execution.Listing, error) {
	req, err := req.Validate()
	if err != nil {
		return execution.Listing{}, err
	}
	unlock, err := s.find(id)
	if err != nil {
		return execution.Listing{}, err
	}
	defer unlock()
	if s.list == nil {
		return execution.Listing{}, nil
	}
	return s.list(req)
}

func (s *sessions) Delete(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.alive[id] {
		return notFound(id)
	}
	delete(s.alive, id)
	return nil
}

func notFound(id string) error {
	return execution.SessionNotFound(id)
}

// client is the other end of a stdio server, played by hand.
type client struct {
	t     *testing.T
	in    *io.PipeWriter
	out   *bufio.Scanner
	over  chan error // what ServeStdio returned
	leave context.CancelFunc
	ids   int
}

// connect starts a server and says hello.
func connect(t *testing.T, opts mcp.Options) *client {
	t.Helper()
	return connectTo(t, mcp.New(opts))
}

func connectTo(t *testing.T, server *mcp.Server) *client {
	t.Helper()
	c := start(t, server)
	c.request("initialize", `{"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}`)
	c.write(`{"jsonrpc": "2.0", "method": "notifications/initialized"}`)
	return c
}

// start has a server serve. In the end it must leave in peace.
func start(t *testing.T, server *mcp.Server) *client {
	t.Helper()
	serverIn, in := io.Pipe()
	out, serverOut := io.Pipe()
	ctx, leave := context.WithCancel(t.Context())
	c := &client{t: t, in: in, out: bufio.NewScanner(out), over: make(chan error, 1), leave: leave}
	c.out.Buffer(nil, 10<<20)
	go func() {
		c.over <- server.ServeStdio(ctx, serverIn, serverOut)
		_ = serverOut.Close()
	}()
	t.Cleanup(func() {
		leave()
		_ = in.Close()
		if err := <-c.over; err != nil {
			t.Errorf("ServeStdio: %v", err)
		}
		_ = out.Close()
	})
	return c
}

func (c *client) write(line string) {
	c.t.Helper()
	var compact bytes.Buffer // a message is a line
	if err := json.Compact(&compact, []byte(line)); err != nil {
		c.t.Fatalf("%v in %s", err, line)
	}
	if _, err := c.in.Write(append(compact.Bytes(), '\n')); err != nil {
		c.t.Fatal(err)
	}
}

// message is what the server says.
type message struct {
	Version string          `json:"jsonrpc"`
	ID      *int            `json:"id"`
	Method  string          `json:"method"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// read reads one line, which must be a message of the protocol.
func (c *client) read() message {
	c.t.Helper()
	if !c.out.Scan() {
		c.t.Fatalf("the server said nothing more: %v", c.out.Err())
	}
	var m message
	if err := json.Unmarshal(c.out.Bytes(), &m); err != nil || m.Version != "2.0" {
		c.t.Fatalf("no message of the protocol: %s (%v)", c.out.Bytes(), err)
	}
	return m
}

// request sends a request and reads its answer.
func (c *client) request(method, params string) message {
	c.t.Helper()
	id := c.send(method, params)
	m := c.read()
	if m.ID == nil || *m.ID != id {
		c.t.Fatalf("the answer to %d is %+v", id, m)
	}
	return m
}

func (c *client) send(method, params string) (id int) {
	c.t.Helper()
	c.ids++
	line, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": c.ids, "method": method, "params": json.RawMessage(params)})
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(string(line))
	return c.ids
}

// content is a piece of a tool's result.
type content struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Data     []byte `json:"data"`
	MIMEType string `json:"mimeType"`
	URI      string `json:"uri"`
	Name     string `json:"name"`
	About    string `json:"description"`
}

// result is a tool's result.
type result struct {
	Content []content `json:"content"`
	IsError bool      `json:"isError"`
}

// tool calls a tool with some arguments.
func (c *client) tool(name, arguments string) result {
	c.t.Helper()
	m := c.request("tools/call", `{"name": "`+name+`", "arguments": `+arguments+`}`)
	if m.Error != nil {
		c.t.Fatalf("a protocol error, which no model reads: %+v", m.Error)
	}
	return resultOf(c.t, m.Result)
}

func resultOf(t *testing.T, data []byte) result {
	t.Helper()
	var r result
	if err := json.Unmarshal(data, &r); err != nil || len(r.Content) == 0 || r.Content[0].Type != "text" {
		t.Fatalf("the result is %s (%v)", data, err)
	}
	return r
}

// call calls execute_python and returns the text.
func (c *client) call(arguments string) (text string, isError bool) {
	c.t.Helper()
	r := c.tool("execute_python", arguments)
	return r.Content[0].Text, r.IsError
}

func textOf(t *testing.T, data []byte) (text string, isError bool) {
	t.Helper()
	r := resultOf(t, data)
	if len(r.Content) != 1 {
		t.Fatalf("the result is %s", data)
	}
	return r.Content[0].Text, r.IsError
}

// logged collects a log.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
