package mcp_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/mcp"
)

// largeCall is a call of execute_python with a megabyte of code.
func largeCall(b *testing.B) string {
	b.Helper()
	code, err := json.Marshal(strings.Repeat("print(\"é\")\n", 90_000))
	if err != nil {
		b.Fatal(err)
	}
	return strings.Replace(callCode, `"c"`, string(code), 1)
}

// BenchmarkCallOverHTTP measures what a call with a megabyte of code costs beside its run.
func BenchmarkCallOverHTTP(b *testing.B) {
	handlers, endStreams := mcp.New(options(gives(printed("42\n"), nil))).Handlers()
	defer endStreams()
	ask := func(session, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/mcp", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set("Mcp-Session-Id", session)
		w := httptest.NewRecorder()
		handlers["/mcp"].ServeHTTP(w, r)
		return w
	}
	session, call := ask("", hello).Header().Get("Mcp-Session-Id"), largeCall(b)
	b.SetBytes(int64(len(call)))
	b.ReportAllocs()
	for b.Loop() {
		if w := ask(session, call); !strings.Contains(w.Body.String(), "42") {
			b.Fatal(w.Body)
		}
	}
}

// BenchmarkCallOverStdio measures the same over stdio.
func BenchmarkCallOverStdio(b *testing.B) {
	in, client := io.Pipe()
	out, server := io.Pipe()
	over := make(chan error)
	go func() { over <- mcp.New(options(gives(printed("42\n"), nil))).ServeStdio(b.Context(), in, server) }()
	call, answer := largeCall(b)+"\n", make([]byte, 4096)
	b.SetBytes(int64(len(call)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(client, call); err != nil {
			b.Fatal(err)
		}
		if n, err := out.Read(answer); err != nil || !strings.Contains(string(answer[:n]), "42") {
			b.Fatal(string(answer[:n]), err)
		}
	}
	_ = client.Close()
	if err := <-over; err != nil {
		b.Error(err)
	}
}
