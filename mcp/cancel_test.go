package mcp_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// runs is an executor whose runs last until they are cancelled.
type runs struct {
	begun chan string  // the code of each
	ended chan string  // of each that was cancelled
	fault func() error // of the latest one's context
}

func newRuns() *runs { return &runs{begun: make(chan string, 8), ended: make(chan string, 8)} }

func (r *runs) Execute(ctx context.Context, req execution.Request) (*execution.Result, error) {
	r.fault = ctx.Err
	r.begun <- req.Code
	<-ctx.Done()
	r.ended <- req.Code
	return nil, &execution.Error{Code: execution.Cancelled, Message: "the caller left"}
}

func optionsOf(r *runs) mcp.Options {
	opts := options(nil)
	opts.Executor = r
	return opts
}

// A client that no longer reads has left.
func TestBrokenStdout(t *testing.T) {
	r := newRuns()
	in, clientIn := io.Pipe()
	out, serverOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	defer func() { _ = serverOut.Close() }()
	over := make(chan error)
	go func() { over <- mcp.New(optionsOf(r)).ServeStdio(t.Context(), in, serverOut) }()
	if _, err := io.WriteString(clientIn, strings.ReplaceAll(callCode, "\n", "")+"\n"); err != nil {
		t.Fatal(err)
	}
	<-r.begun
	go func() { _, _ = io.WriteString(clientIn, hello+"\n") }() // nothing reads its answer
	<-r.ended
	if err := <-over; err != nil {
		t.Error(err)
	}
	_ = in.Close()
}

// begin starts a request that lasts, and returns a function that ends it.
func begin(t *testing.T, client *http.Client, url, body string, header http.Header) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		send(ctx, t, client, url, body, header)
	}()
	return func() {
		cancel()
		<-over
	}
}

// send makes a request and waits until it is over.
func send(ctx context.Context, t *testing.T, client *http.Client, url, body string, header http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	r.Header = header.Clone()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := client.Do(r)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	} else if ctx.Err() == nil {
		t.Error(err)
	}
}

func TestCancelOverStreamableHTTP(t *testing.T) {
	r := newRuns()
	server, _ := newHTTP(t, optionsOf(r))
	url := server.URL + transport.StreamablePath
	_, session, _ := post(t, server.Client(), url, "", hello)
	inSession := http.Header{"Mcp-Session-Id": {session}}

	leave := begin(t, server.Client(), url, strings.Replace(callCode, `"c"`, `"left"`, 1), inSession)
	<-r.begun
	leave()
	if got := <-r.ended; got != "left" {
		t.Error(got)
	}

	// It has an id of its own: the library may forget the first one's only now.
	second := strings.NewReplacer(`"c"`, `"cancelled"`, `"id": 2`, `"id": 3`).Replace(callCode)
	leave = begin(t, server.Client(), url, second, inSession)
	<-r.begun
	post(t, server.Client(), url, session, `{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}}`)
	if got := <-r.ended; got != "cancelled" {
		t.Error(got)
	}
	leave()
}

const modern = `"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"}, "io.modelcontextprotocol/clientCapabilities": {}}`

// One client cannot cancel another's call, whatever protocol either speaks.
func TestStrangersCannotCancel(t *testing.T) {
	r := newRuns()
	server, _ := newHTTP(t, optionsOf(r))
	url := server.URL + transport.StreamablePath
	_, theirs, _ := post(t, server.Client(), url, "", hello)
	_, mine, _ := post(t, server.Client(), url, "", hello)
	call := `{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {` + modern + `, "name": "execute_python", "arguments": {"code": "c"}}}`
	version := http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"execute_python"}}
	for name, test := range map[string]struct {
		call   string
		header http.Header
	}{
		"without sessions": {call, version},
		"in a session":     {callCode, http.Header{"Mcp-Session-Id": {mine}}},
	} {
		t.Run(name, func(t *testing.T) {
			leave := begin(t, server.Client(), url, test.call, test.header)
			<-r.begun
			const cancel = `{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2`
			post(t, server.Client(), url, "", cancel+`}}`)
			post(t, server.Client(), url, theirs, cancel+`}}`)
			post(t, server.Client(), url, theirs, cancel+`, `+modern+`}}`)
			post(t, server.Client(), url, "", cancel+`, `+modern+`}}`)
			for _, spelt := range []string{
				`"method": "notifications/cancelled"`, `"method": "notifications\/cancelled"`, `"method": "\u006eotifications/cancelled"`,
				`"Method": "notifications/cancelled"`, `"method": "ping", "method": "notifications/cancelled"`,
			} {
				for _, header := range []http.Header{
					{"Mcp-Protocol-Version": {"2026-07-28"}},
					{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"notifications/cancelled"}},
					{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Session-Id": {theirs}},
					{"Mcp-Session-Id": {theirs}},
				} {
					send(t.Context(), t, server.Client(), url, `{"jsonrpc": "2.0", `+spelt+`, "params": {"requestId": 2, `+modern+`}}`, header)
				}
			}
			if r.fault() != nil {
				t.Error("the call was cancelled")
			}
			leave()
			<-r.ended
		})
	}
}

// A client of the legacy transport that leaves ends its calls.
func TestLeavingSSEEndsCalls(t *testing.T) {
	r := newRuns()
	server, _ := newHTTP(t, optionsOf(r))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+transport.SSEPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, endpoint := events{bufio.NewScanner(stream.Body)}.next(t)
	for _, body := range []string{hello, callCode} {
		if status, _, text := post(t, server.Client(), server.URL+endpoint, "", body); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, text)
		}
	}
	<-r.begun
	leave()
	<-r.ended
	_ = stream.Body.Close()
}
