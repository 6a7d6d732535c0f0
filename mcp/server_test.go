package mcp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

func TestInitialize(t *testing.T) {
	c := connect(t, options(nil))
	m := c.request("initialize", `{"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "old", "version": "0"}}`)
	var got struct {
		ProtocolVersion string
		ServerInfo      struct{ Name, Version string }
		Capabilities    map[string]any
	}
	if err := json.Unmarshal(m.Result, &got); err != nil {
		t.Fatal(err)
	}
	if got.ProtocolVersion != "2024-11-05" || got.ServerInfo.Name != "vivarium" || got.ServerInfo.Version != "1.2.3" || got.Capabilities["tools"] == nil {
		t.Errorf("it says %+v", got)
	}
}

func TestUnknownToolAndMethod(t *testing.T) {
	c := connect(t, options(nil))
	if m := c.request("tools/call", `{"name": "rm", "arguments": {}}`); m.Error == nil {
		t.Errorf("the answer for an unknown tool is %s", m.Result)
	}
	if m := c.request("no/such", `{}`); m.Error == nil || m.Error.Code != -32601 {
		t.Errorf("the answer for an unknown method is %+v", m)
	}
}

// A line that is not a message gets an answer, and the next line is handled.
func TestStdioSurvivesNonsense(t *testing.T) {
	c := connect(t, options(gives(exited(0), nil)))
	if _, err := io.WriteString(c.in, "print(1)\n"); err != nil {
		t.Fatal(err)
	}
	if m := c.read(); m.Error == nil {
		t.Errorf("the answer is %+v", m)
	}
	if text, isError := c.call(`{"code": ""}`); isError {
		t.Error(text)
	}
}

// Nothing but messages comes out, whatever goes wrong inside: client.read
// checks every line.
func TestStdioWritesMessagesAlone(t *testing.T) {
	c := connect(t, options(func(_ context.Context, req execution.Request) (*execution.Result, error) {
		switch req.Code {
		case "panic":
			panic("in the executor")
		case "error":
			return nil, errors.New("line one\nline two")
		}
		r := exited(0)
		r.Stdout = "{\"jsonrpc\": \"2.0\"}\n\x00\u2028\n"
		return r, nil
	}))
	for _, code := range []string{"panic", "error", "print", "panic", "print"} {
		c.request("tools/call", `{"name": "execute_python", "arguments": {"code": "`+code+`"}}`)
	}
}

func TestStdioEnds(t *testing.T) {
	t.Run("with its input", func(t *testing.T) {
		c := connect(t, options(nil))
		_ = c.in.Close()
		checkEnd(t, c)
	})
	t.Run("with its context", func(t *testing.T) {
		c := connect(t, options(nil))
		c.leave()
		checkEnd(t, c)
	})
	t.Run("without input", func(t *testing.T) {
		if err := mcp.New(options(nil)).ServeStdio(t.Context(), strings.NewReader(""), io.Discard); err != nil {
			t.Error(err)
		}
	})
	t.Run("with a broken input", func(t *testing.T) {
		broken := errors.New("broken")
		reader, writer := io.Pipe()
		_ = writer.CloseWithError(broken)
		if err := mcp.New(options(nil)).ServeStdio(t.Context(), reader, io.Discard); !errors.Is(err, broken) {
			t.Errorf("the error is %v", err)
		}
	})
}

func checkEnd(t *testing.T, c *client) {
	t.Helper()
	err := <-c.over
	if err != nil {
		t.Errorf("ServeStdio: %v", err)
	}
	c.over <- err // for the clean-up
	for c.out.Scan() {
		t.Errorf("it said %s", c.out.Bytes())
	}
}

// The end of the session ends its calls.
func TestStdioEndStopsCalls(t *testing.T) {
	running, stopped := make(chan struct{}), make(chan error, 1)
	c := connect(t, options(func(ctx context.Context, _ execution.Request) (*execution.Result, error) {
		close(running)
		<-ctx.Done()
		stopped <- ctx.Err()
		return nil, &execution.Error{Code: execution.Cancelled, Message: "the caller left"}
	}))
	c.send("tools/call", `{"name": "execute_python", "arguments": {"code": ""}}`)
	<-running
	go func() {
		for c.out.Scan() { // the server may still answer
		}
	}()
	_ = c.in.Close()
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("the call ended with %v", err)
	}
}

// Calls of one client run side by side, as many as it may have.
func TestStdioCallsInParallel(t *testing.T) {
	const parallel = 3
	running, finish := make(chan struct{}, parallel), make(chan struct{})
	opts := options(func(context.Context, execution.Request) (*execution.Result, error) {
		running <- struct{}{}
		<-finish
		return exited(0), nil
	})
	opts.Parallel = parallel
	c := connect(t, opts)
	waiting := make(map[int]bool)
	for range parallel {
		waiting[c.send("tools/call", `{"name": "execute_python", "arguments": {"code": ""}}`)] = true
	}
	for range parallel {
		<-running
	}
	close(finish)
	for range parallel {
		m := c.read()
		if m.ID == nil || !waiting[*m.ID] {
			t.Errorf("an answer without a request: %+v", m)
			continue
		}
		delete(waiting, *m.ID)
	}
}

// newHTTP serves the HTTP transports, behind some middleware.
func newHTTP(t *testing.T, opts mcp.Options, behind ...func(http.Handler) http.Handler) (server *httptest.Server, endStreams func()) {
	t.Helper()
	handlers, endStreams := mcp.New(opts).Handlers()
	mux := http.NewServeMux()
	for path, handler := range handlers {
		mux.Handle(path, handler)
	}
	whole := http.Handler(mux)
	for _, middleware := range behind {
		whole = middleware(whole)
	}
	server = httptest.NewServer(whole)
	t.Cleanup(func() {
		endStreams()
		server.Close()
	})
	return server, endStreams
}

// post returns an answer's status, protocol session and body.
func post(t *testing.T, client *http.Client, url, session, body string) (status int, sessionID, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if session != "" {
		r.Header.Set("Mcp-Session-Id", session)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, resp.Header.Get("Mcp-Session-Id"), string(data)
}

const (
	hello    = `{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}}`
	callCode = `{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "execute_python", "arguments": {"code": "c"}}}`
)

func printed(text string) *execution.Result {
	r := exited(0)
	r.Stdout = text
	return r
}

func TestStreamableHTTP(t *testing.T) {
	server, _ := newHTTP(t, options(gives(printed("42\n"), nil)))
	status, session, text := post(t, server.Client(), server.URL+transport.StreamablePath, "", hello)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	_, _, text = post(t, server.Client(), server.URL+transport.StreamablePath, session, callCode)
	if _, data, found := strings.Cut(text, "data: "); found { // a stream of one event is as good
		text = data
	}
	var m message
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if got, isError := textOf(t, m.Result); got != "42\n" || isError {
		t.Errorf("error %v: %q", isError, got)
	}
}

// A session that its client has ended is gone; others are not, and neither is
// one of the server that was here before.
func TestStreamableSessionEnds(t *testing.T) {
	server, _ := newHTTP(t, options(gives(printed("42\n"), nil)))
	client, url := server.Client(), server.URL+transport.StreamablePath
	_, ended, _ := post(t, client, url, "", hello)
	_, alive, _ := post(t, client, url, "", hello)
	for range 2 { // the second time it does no harm
		r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Mcp-Session-Id", ended)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("DELETE: %d", resp.StatusCode)
		}
	}
	for session, want := range map[string]int{
		ended: http.StatusNotFound, alive: http.StatusOK, "mcp-session-00000000-0000-4000-8000-000000000000": http.StatusOK,
		"nonsense": http.StatusNotFound,
	} {
		if status, _, text := post(t, client, url, session, callCode); status != want {
			t.Errorf("%s: %d %s", session, status, text)
		}
	}
}

// A notification of the newest revision says nothing of its sender.
func TestStreamableTakesNotifications(t *testing.T) {
	server, _ := newHTTP(t, options(nil))
	body := strings.NewReader(`{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}`)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+transport.StreamablePath, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"notifications/cancelled"},
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("%d", resp.StatusCode)
	}
}

// events reads the events of an SSE stream.
type events struct{ *bufio.Scanner }

func (e events) next(t *testing.T) (name, data string) {
	t.Helper()
	for e.Scan() {
		field, value, _ := strings.Cut(e.Text(), ":")
		switch value = strings.TrimSpace(value); {
		case field == "event":
			name = value
		case field == "data":
			data = value
		case e.Text() == "" && name != "":
			return name, data
		}
	}
	t.Fatalf("the stream ended: %v", e.Err())
	return "", ""
}

// openSSE opens a stream and returns its events and the path for its messages.
func openSSE(t *testing.T, server *httptest.Server) (in events, endpoint string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+transport.SSEPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Body.Close() })
	in = events{bufio.NewScanner(stream.Body)}
	name, endpoint := in.next(t)
	if name != "endpoint" || !strings.HasPrefix(endpoint, transport.MessagePath+"?") {
		t.Fatalf("the first event is %q %q", name, endpoint)
	}
	return in, endpoint
}

func TestSSE(t *testing.T) {
	server, endStreams := newHTTP(t, options(gives(printed("42\n"), nil)))
	in, endpoint := openSSE(t, server)
	for _, body := range []string{hello, callCode} {
		if status, _, text := post(t, server.Client(), server.URL+endpoint, "", body); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, text)
		}
		name, data := in.next(t)
		var m message
		if err := json.Unmarshal([]byte(data), &m); name != "message" || err != nil || m.Error != nil {
			t.Fatalf("%s %s (%v)", name, data, err)
		}
		if body == callCode {
			if text, isError := textOf(t, m.Result); text != "42\n" || isError {
				t.Errorf("error %v: %q", isError, text)
			}
		}
	}
	endStreams()
	for in.Scan() { // to the end
	}
}

// The newest revision needs headers, which clients do not send over SSE: it is
// not offered there, so that they take an older one.
func TestSSEOffersHandshakes(t *testing.T) {
	const discover = `{"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": {
		"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}}`
	server, _ := newHTTP(t, options(nil))
	in, endpoint := openSSE(t, server)
	post(t, server.Client(), server.URL+endpoint, "", discover)
	_, data := in.next(t)
	if strings.Contains(data, `"2026-07-28"`) || !strings.Contains(data, `"2024-11-05"`) {
		t.Errorf("it offers %s", data)
	}
}
