package mcp_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/mcp/transport"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// The limit on JSON values is the same over each transport, and the error names it.
func TestManyValues(t *testing.T) {
	const want = "too many JSON values: at most 20000 opening brackets and commas are allowed outside of strings"
	call := func(values int) string { // the rest of the message counts 9
		return `{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "execute_python", "arguments": {"code": "", "x": [` +
			strings.Repeat("0,", values-9) + `0]}}}`
	}
	most, more := call(wire.MaxValues), call(wire.MaxValues+1)
	server, _ := newHTTP(t, options(nil), func(next http.Handler) http.Handler { // as httpapi does
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = wire.Body(r.Body, nil)
			next.ServeHTTP(w, r)
		})
	})
	t.Run("streamable", func(t *testing.T) {
		_, session, _ := post(t, server.Client(), server.URL+transport.StreamablePath, "", hello)
		if status, _, text := post(t, server.Client(), server.URL+transport.StreamablePath, session, most); status != http.StatusOK || !strings.Contains(text, "unknown argument") {
			t.Errorf("%d %s", status, text)
		}
		if status, _, text := post(t, server.Client(), server.URL+transport.StreamablePath, session, more); status != http.StatusBadRequest || strings.TrimSpace(text) != want {
			t.Errorf("%d %s", status, text)
		}
	})
	t.Run("SSE", func(t *testing.T) {
		_, endpoint := openSSE(t, server)
		if status, _, text := post(t, server.Client(), server.URL+endpoint, "", most); status != http.StatusAccepted {
			t.Errorf("%d %s", status, text)
		}
		if status, _, text := post(t, server.Client(), server.URL+endpoint, "", more); status != http.StatusBadRequest || strings.TrimSpace(text) != want {
			t.Errorf("%d %s", status, text)
		}
	})
	t.Run("stdio", func(t *testing.T) {
		c := connect(t, options(nil))
		c.write(most)
		if m := c.read(); m.Error != nil || !strings.Contains(string(m.Result), "unknown argument") {
			t.Errorf("%+v", m)
		}
		c.write(more)
		if m := c.read(); m.ID == nil || *m.ID != 2 || m.Error == nil || m.Error.Code != -32600 || m.Error.Message != want {
			t.Errorf("%+v", m)
		}
	})
}
