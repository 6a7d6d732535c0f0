package mcp_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// ask makes a request of the streamable transport.
func ask(t *testing.T, server *httptest.Server, method, body string, header http.Header) (status int, answered http.Header, text string) {
	t.Helper()
	handlers := server.Config.Handler
	r := httptest.NewRequestWithContext(t.Context(), method, transport.StreamablePath, strings.NewReader(body))
	maps.Copy(r.Header, header)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	w := httptest.NewRecorder()
	handlers.ServeHTTP(w, r)
	return w.Code, w.Header(), w.Body.String()
}

// What cannot be served is refused with the status that the protocol has for it.
func TestStreamableRefuses(t *testing.T) {
	server, _ := newHTTP(t, options(gives(printed("42\n"), nil)))
	_, session, _ := post(t, server.Client(), server.URL+transport.StreamablePath, "", hello)
	in, bogus := http.Header{"Mcp-Session-Id": {session}}, http.Header{"Mcp-Session-Id": {"bogus"}}
	newer := http.Header{"Mcp-Session-Id": {session}, "Mcp-Protocol-Version": {"2025-06-18"}}
	for name, test := range map[string]struct {
		method, body string
		header       http.Header
		want         int
	}{
		"a call":                           {http.MethodPost, callCode, in, http.StatusOK},
		"a call without a session":         {http.MethodPost, callCode, nil, http.StatusBadRequest},
		"a notification without a session": {http.MethodPost, `{"jsonrpc": "2.0", "method": "notifications/initialized"}`, nil, http.StatusBadRequest},
		"a call of an unknown session":     {http.MethodPost, callCode, bogus, http.StatusNotFound},
		"a stream without a session":       {http.MethodGet, "", nil, http.StatusBadRequest},
		"a stream of an unknown session":   {http.MethodGet, "", bogus, http.StatusNotFound},
		"the end of no session":            {http.MethodDelete, "", nil, http.StatusBadRequest},
		"the end of an unknown session":    {http.MethodDelete, "", bogus, http.StatusNotFound},
		"another method":                   {http.MethodPut, callCode, in, http.StatusMethodNotAllowed},
		"a batch without a session":        {http.MethodPost, "[" + callCode + "]", nil, http.StatusBadRequest},
		"a batch of an unknown session":    {http.MethodPost, "[" + callCode + "]", bogus, http.StatusNotFound},
		"an empty batch":                   {http.MethodPost, "[]", in, http.StatusBadRequest},
		"no batch":                         {http.MethodPost, "[" + callCode, in, http.StatusBadRequest},
		"a batch that begins a session":    {http.MethodPost, "[" + hello + "]", in, http.StatusBadRequest},
		"a batch of a later revision":      {http.MethodPost, "[" + callCode + "]", newer, http.StatusBadRequest},
		"a batch without requests":         {http.MethodPost, `[{"jsonrpc": "2.0", "method": "notifications/initialized"}]`, in, http.StatusAccepted},
		"a large batch":                    {http.MethodPost, "[" + strings.Repeat(callCode+",", 200) + callCode + "]", in, http.StatusBadRequest},
		"too many values":                  {http.MethodPost, `{"jsonrpc": "2.0", "id": [` + strings.Repeat("[],", 100_000) + `[]]}`, in, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			status, header, text := ask(t, server, test.method, test.body, test.header)
			if status != test.want {
				t.Errorf("%d %.200s", status, text)
			}
			if allow := header.Get("Allow"); (allow != "") != (test.want == http.StatusMethodNotAllowed) {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
}

// Revision 2025-03-26 has batches: each answer is an event of its own.
func TestStreamableBatch(t *testing.T) {
	server, _ := newHTTP(t, options(gives(printed("42\n"), nil)))
	_, session, _ := post(t, server.Client(), server.URL+transport.StreamablePath, "", hello)
	batch := "[" + callCode + `, {"jsonrpc": "2.0", "method": "notifications/initialized"}, ` +
		`{"jsonrpc": "2.0", "id": "p", "method": "ping"}, {"jsonrpc": "2.0", "id": 3, "method": "no/such"}]`
	status, header, text := ask(t, server, http.MethodPost, batch, http.Header{"Mcp-Session-Id": {session}, "Mcp-Protocol-Version": {"2025-03-26"}})
	if status != http.StatusOK || header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", status, header)
	}
	var got []string
	for line := range strings.Lines(text) {
		data, isData := strings.CutPrefix(line, "data: ")
		if !isData {
			continue
		}
		var m struct {
			ID     any
			Result json.RawMessage
		}
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			t.Fatalf("%v in %s", err, data)
		}
		got = append(got, fmt.Sprintf("%v %v", m.ID, m.Result != nil))
	}
	if want := "2 true p true 3 false"; strings.Join(got, " ") != want {
		t.Errorf("%q", got)
	}
}
