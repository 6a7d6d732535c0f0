package mcp_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// newInstance serves the transports of a server of several.
func newInstance(t *testing.T, name string, owner execution.Owner) *httptest.Server {
	t.Helper()
	opts := options(gives(printed("42\n"), nil))
	opts.Instance = name
	handlers, endStreams := mcp.New(opts).Handlers()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[r.URL.Path].ServeHTTP(w, r.WithContext(execution.WithOwner(r.Context(), owner)))
	}))
	t.Cleanup(func() {
		endStreams()
		server.Close()
	})
	return server
}

// The id of a protocol session names the server that began it. Another one serves it too, when
// that server has ended.
func TestProtocolSessionsNameTheirServer(t *testing.T) {
	for _, owner := range []execution.Owner{"", "ann"} {
		first, second := newInstance(t, "abc", owner), newInstance(t, "def", owner)
		_, header, _ := ask(t, first, http.MethodPost, hello, nil)
		id := header.Get("Mcp-Session-Id")
		named := httptest.NewRequestWithContext(execution.WithOwner(t.Context(), owner), http.MethodPost, transport.StreamablePath, nil)
		named.Header.Set("Mcp-Session-Id", id)
		if name := transport.ServerOf(named); name != "abc" {
			t.Errorf("%q names the server %q", id, name)
		}
		stranger := named.WithContext(execution.WithOwner(context.Background(), "eve"))
		if name := transport.ServerOf(stranger); name != "" {
			t.Errorf("%q names the server %q for another owner", id, name)
		}
		for _, server := range []*httptest.Server{first, second} {
			if status, _, text := ask(t, server, http.MethodPost, callCode, http.Header{"Mcp-Session-Id": {id}}); status != http.StatusOK {
				t.Errorf("a call: %d %s", status, text)
			}
		}
	}
}

// So does the id of a stream of the legacy transport. Other paths name none.
func TestStreamsNameTheirServer(t *testing.T) {
	server := newInstance(t, "abc", "")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+transport.SSEPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	event := make([]byte, 200)
	n, err := answer.Body.Read(event)
	if err != nil {
		t.Fatal(err)
	}
	_, target, _ := strings.Cut(strings.TrimSpace(string(event[:n])), "data: ")
	if name := transport.ServerOf(httptest.NewRequest(http.MethodPost, target, nil)); name != "abc" {
		t.Errorf("%q names the server %q", target, name)
	}
	for _, path := range []string{transport.SSEPath, "/v1/execute?sessionId=x.abc", transport.StreamablePath, transport.MessagePath} {
		if name := transport.ServerOf(httptest.NewRequest(http.MethodPost, path, nil)); name != "" {
			t.Errorf("%q names the server %q", path, name)
		}
	}
}
