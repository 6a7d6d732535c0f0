package transport

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

// The library keeps a bounded number of protocol sessions. The client of one that had to go does
// not notice.
func TestManySessions(t *testing.T) {
	s := newTransports(new(mcpserver.Hooks))
	handlers, endStreams := s.Handlers()
	defer endStreams()
	ask := func(body, session string) (string, int) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, StreamablePath, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set(sessionIDHeader, session)
		w := httptest.NewRecorder()
		handlers[StreamablePath].ServeHTTP(w, r)
		return w.Header().Get(sessionIDHeader), w.Code
	}
	const hello = `{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}}`
	first, _ := ask(hello, "")
	for range maxKept {
		if _, status := ask(hello, ""); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	if err := s.opts.Server.SendNotificationToSpecificClient(first, "x", nil); !errors.Is(err, mcpserver.ErrSessionNotFound) {
		t.Errorf("the first is still there: %v", err)
	}
	if _, status := ask(`{"jsonrpc": "2.0", "id": 2, "method": "ping"}`, first); status != http.StatusOK {
		t.Error(status)
	}
}

// An owner's new session replaces an old one of the same owner, or of any owner if there is none.
func TestKeptSessionsOfOwners(t *testing.T) {
	k := newKeptSessions()
	k.use("ben's", "ben")
	var over string
	for i := 0; over == ""; i++ {
		over = k.use(fmt.Sprint(i), "anna")
	}
	if over != "0" || k.of["anna"] < maxKept/2 {
		t.Errorf("%s of %d goes", over, k.of["anna"])
	}
	k.use("1", "anna")
	if over = k.use("new", "anna"); over != "2" {
		t.Errorf("%s goes", over)
	}
	for i := range maxKept {
		k.use(fmt.Sprint(i), "")
	}
	if over = k.use("carol's", "carol"); over != "ben's" && k.latest.Contains("ben's") {
		t.Errorf("%s goes", over)
	}
	if n := k.latest.Len(); n > maxKept {
		t.Error(n)
	}
}
