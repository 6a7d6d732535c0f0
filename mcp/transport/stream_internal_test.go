package transport

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/wire"
)

const (
	first  = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":1}}\n\n"
	second = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":2}}\n\n"
)

// Notifications of a call are sent on its own answer, before the result and in order.
func TestStream(t *testing.T) {
	notify := func(t *testing.T, r *http.Request, progress int) {
		t.Helper()
		if err := Notify(r.Context(), nil, "notifications/progress", map[string]any{"progress": progress}); err != nil {
			t.Error(err)
		}
	}
	asJSON := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "{\"result\":{}}\n")
	}
	asEvents := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "event: message\ndata: {\"result\":{}}\n\n")
	}
	const answer = "event: message\ndata: {\"result\":{}}\n\n"
	for name, test := range map[string]struct {
		handle     func(t *testing.T, w http.ResponseWriter, r *http.Request)
		kind, want string
	}{
		"no notification": {func(_ *testing.T, w http.ResponseWriter, _ *http.Request) { asJSON(w) }, "application/json", "{\"result\":{}}\n"},
		"two notifications": {func(t *testing.T, w http.ResponseWriter, r *http.Request) {
			t.Helper()
			notify(t, r, 1)
			notify(t, r, 2)
			asJSON(w)
		}, "text/event-stream", first + second + answer},
		"events of the library's after ours": {func(t *testing.T, w http.ResponseWriter, r *http.Request) {
			t.Helper()
			notify(t, r, 1)
			asEvents(w)
		}, "text/event-stream", first + answer},
		"ours after events of the library's": {func(t *testing.T, w http.ResponseWriter, r *http.Request) {
			t.Helper()
			asEvents(w)
			notify(t, r, 1)
		}, "text/event-stream", answer + first},
		"a notification within the answer": {func(t *testing.T, w http.ResponseWriter, r *http.Request) {
			t.Helper()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			notify(t, r, 1)
			asJSON(w)
		}, "application/json", "{\"result\":{}}\n"},
		"a notification too late": {func(t *testing.T, w http.ResponseWriter, r *http.Request) {
			t.Helper()
			asJSON(w)
			notify(t, r, 1)
		}, "application/json", "{\"result\":{}}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mcp", strings.NewReader("{}"))
			r.Header.Set("Accept", "application/json, text/event-stream")
			w := httptest.NewRecorder()
			withStream(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { test.handle(t, w, r) })).ServeHTTP(w, r)
			if kind := w.Header().Get("Content-Type"); kind != test.kind || w.Body.String() != test.want {
				t.Errorf("%s: %q", kind, w.Body)
			}
		})
	}
}

// A client that takes events in some words gets them, and no other does.
func TestStreamAccepted(t *testing.T) {
	for accept, want := range map[string]string{
		"application/json, text/event-stream": wire.EventStream, "application/json;q=0.9, TEXT/EVENT-STREAM;q=0.5": wire.EventStream,
		"*/*": wire.EventStream, "text/*": wire.EventStream, "application/json": "application/json", "": "application/json",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mcp", strings.NewReader("{}"))
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		withStream(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := Notify(r.Context(), nil, "x", nil); err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("{}"))
		})).ServeHTTP(w, r)
		if got := w.Header().Get("Content-Type"); got != want {
			t.Errorf("%q gets %s", accept, got)
		}
	}
}
