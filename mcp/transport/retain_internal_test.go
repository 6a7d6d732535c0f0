package transport

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

const (
	longInfo = `{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "x": {"y": "LONG"}, "capabilities": ` +
		`{"roots": {"listChanged": true}, "sampling": {}, "elicitation": {}, "experimental": {"a": {"b": "LONG"}}, "extensions": {"a": "LONG"}, "z": "LONG"}, ` +
		`"clientInfo": {"name": "LONG", "version": "LONG", "title": "LONG", "websiteUrl": "LONG", "icons": [{"src": "LONG"}], "z": "LONG"}}}`
	modernInfo = `{"jsonrpc": "2.0", "id": 2, "method": "METHOD", "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", ` +
		`"io.modelcontextprotocol/clientInfo": {"name": "LONG", "version": "LONG"}, ` +
		`"io.modelcontextprotocol/clientCapabilities": {"sampling": {}, "experimental": {"a": {"b": "LONG"}}}}}}`
)

func withLong(message string) string {
	return strings.ReplaceAll(message, "LONG", strings.Repeat("x", 10_000))
}

// newTransports returns transports of a server without tools.
func newTransports(hooks *mcpserver.Hooks) *Transports {
	ForgetClients(hooks)
	log := slog.New(slog.DiscardHandler)
	return New(Options{Server: mcpserver.NewMCPServer("test", "1", mcpserver.WithHooks(hooks), mcpserver.WithLogger(log)), Parallel: 5, Log: log})
}

// sessionsOf notes the library's sessions.
func sessionsOf(hooks *mcpserver.Hooks) *[]mcpserver.ClientSession {
	var all []mcpserver.ClientSession
	hooks.AddBeforeAny(func(ctx context.Context, _ any, _ mcpsdk.MCPMethod, _ any) {
		all = append(all, mcpserver.ClientSessionFromContext(ctx))
	})
	return &all
}

// retains reports what a session keeps of its client.
func retains(t *testing.T, name string, session mcpserver.ClientSession) {
	t.Helper()
	s, ok := session.(mcpserver.SessionWithClientInfo)
	if !ok {
		t.Fatalf("%s: the session is a %T", name, session)
	}
	if info := s.GetClientInfo(); !reflect.DeepEqual(info, mcpsdk.Implementation{}) {
		t.Errorf("%s: it keeps the client's name: %.40v", name, info)
	}
	able := s.GetClientCapabilities()
	if able.Experimental != nil || able.Extensions != nil {
		t.Errorf("%s: it keeps capabilities of the client's own", name)
	}
	if able.Sampling == nil {
		t.Errorf("%s: it has lost what the client can do", name)
	}
}

// Nothing of any size is kept of what a client says of itself, over any transport.
func TestNothingIsRetained(t *testing.T) {
	newServer := func() (*Transports, *[]mcpserver.ClientSession) {
		hooks := new(mcpserver.Hooks)
		s := newTransports(hooks)
		return s, sessionsOf(hooks)
	}
	t.Run("streamable", func(t *testing.T) {
		s, all := newServer()
		handlers, end := s.Handlers()
		defer end()
		r := httptest.NewRequest(http.MethodPost, StreamablePath, strings.NewReader(withLong(longInfo)))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handlers[StreamablePath].ServeHTTP(w, r)
		if w.Code != http.StatusOK || len(*all) != 1 {
			t.Fatal(w.Code, w.Body, len(*all))
		}
		retains(t, "streamable", (*all)[0])
	})
	t.Run("stdio", func(t *testing.T) {
		s, all := newServer()
		lines := withLong(longInfo) + "\n" + withLong(strings.Replace(modernInfo, "METHOD", "ping", 1)) + "\n" +
			withLong(strings.Replace(modernInfo, "METHOD", "unknown", 1)) + "\n"
		if err := s.ServeStdio(t.Context(), strings.NewReader(lines), io.Discard); err != nil {
			t.Fatal(err)
		}
		if len(*all) == 0 {
			t.Fatal("no session")
		}
		retains(t, "stdio", (*all)[0])
	})
	t.Run("SSE", func(t *testing.T) {
		s, all := newServer()
		p := s.newPeer("x")
		ctx, err := p.register(withHandshake(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		defer p.unregister(ctx)
		done := make(chan struct{})
		p.dispatch(ctx, parse([]byte(withLong(longInfo))), func() { close(done) })
		<-p.answers
		<-done
		if len(*all) != 1 {
			t.Fatalf("%d sessions", len(*all))
		}
		retains(t, "SSE", (*all)[0])
	})
}
