package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// longest returns the length of the longest run of one of the characters of hostile
// values, in any escaped form.
func longest(text string) (most int) {
	for _, char := range []string{"#", "1", `\u0001`, `\ufffd`, "\uFFFD", "<", `\u003c`, "%23"} {
		for at := 0; at < len(text); {
			n := 0
			for strings.HasPrefix(text[at:], char) {
				at += len(char)
				n += len(char)
			}
			most = max(most, n)
			at++
		}
	}
	return most
}

// longBodies returns bodies of /v1/execute with a fault and a long value.
func longBodies() map[string]string {
	const size = 1 << 16
	long := func(of string) string { return `"` + strings.Repeat(of, size/len(of)) + `"` }
	nested := `[` + strings.Repeat(long("#")+",", 1) + `{"#": ` + long("<") + `}]`
	return map[string]string{
		"a number for text":     `{"code": ` + strings.Repeat("1", size) + `}`,
		"an unknown number":     `{"code": "", "x": ` + strings.Repeat("1", size) + `}`,
		"text for a number":     `{"code": "", "timeout_ms": ` + long("#") + `}`,
		"controls for a number": `{"code": "", "timeout_ms": ` + long(`\u0001`) + `}`,
		"no UTF-8 for a number": `{"code": "", "timeout_ms": ` + long("\xff") + `}`,
		"a list for a number":   `{"code": "", "timeout_ms": ` + nested + `}`,
		"a fraction":            `{"code": "", "timeout_ms": 1.` + strings.Repeat("1", 1100) + `}`,
		"a path":                `{"code": "", "files": [{"path": "/` + strings.Repeat("#", size) + `", "content_base64": ""}]}`,
		"a folder that is a file": `{"code": "", "files": [{"path": "` + strings.Repeat("#", 200) + `", "content_base64": ""}, {"path": "` +
			strings.Repeat("#", 200) + `/x", "content_base64": ""}]}`,
		"an id":            `{"code": "", "files": [{"path": "x", "file_id": ` + long("#") + `}]}`,
		"no base64":        `{"code": "", "files": [{"path": "x", "content_base64": ` + long("#") + `}]}`,
		"no base64 beside": `{"code": "", "files": [{"path": "x", "file_id": "x", "content_base64": ` + long("#") + `}]}`,
		"no JSON":          strings.Repeat("#", size),
		"no JSON's end":    `{"code": ` + long("#") + ` x`,
		"an unknown name":  `{"code": 5, ` + long("#") + `: 5}`,
		"many faults":      `{"code": "", "files": [` + strings.Repeat(`{"path": "/####################", "content_base64": ""},`, 1000) + `{}]}`,
		"many bad paths":   `{"code": "", "files": [` + strings.Repeat(`{"path": "/##################", "content_base64": ""},`, 1000) + `{"path": "x", "content_base64": ""}]}`,
		"a list":           `[` + long("#") + `]`,
	}
}

// No answer and no line of the log repeats more than a kilobyte of a request, whatever
// part of the request it is.
func TestLongValuesAreNotRepeated(t *testing.T) {
	log, logged := newLog()
	opts := options(validates)
	opts.Log, opts.Auth = log, known{"anna's key": "anna"}
	store, err := filestore.Open(t.Context(), filestore.Options{URL: "file://" + t.TempDir(), MaxFileBytes: maxFile, MaxBytes: maxFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	opts.Files = store
	h := httpapi.NewHandler(opts)
	check := func(name string, r *http.Request) {
		t.Helper()
		a := serve(h, r)
		whole := a.body + fmt.Sprint(a.header)
		if a.status < 400 || len(whole) > 10_000 || longest(whole) > 1100 || !utf8.ValidString(a.body) {
			t.Errorf("%s: %d, %d bytes, %d the same: %.300s", name, a.status, len(whole), longest(whole), a.body)
		}
	}
	for name, body := range longBodies() {
		for _, path := range []string{"/v1/execute", "/v1/execute/stream", "/v1/sessions", "/v1/sessions/x/execute", "/v1/sessions/x/bash"} {
			if path == "/v1/sessions" && !strings.HasPrefix(name, "no JSON") && !strings.HasPrefix(name, "an unknown number") {
				continue // what it does not know is ignored
			}
			check(name+" "+path, authorized(http.MethodPost, path, body, "Bearer anna's key"))
		}
	}
	word := strings.Repeat("#", 15_000)
	for name, change := range map[string]func(r *http.Request){
		"method":      func(r *http.Request) { r.Method = strings.Repeat("1", 15_000) },
		"host":        func(r *http.Request) { r.Host = strings.Repeat("1", 15_000) },
		"host's zone": func(r *http.Request) { r.Host = "[fe80::1%" + strings.Repeat("1", 15_000) + "]" },
		"origin":      func(r *http.Request) { r.Header.Set("Origin", "https://"+word) },
		"key":         func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+word) },
		"type":        func(r *http.Request) { r.Header.Set("Content-Type", word) },
		"path":        func(r *http.Request) { r.URL.Path = "/" + word },
		"file":        func(r *http.Request) { r.Method, r.URL.Path = http.MethodGet, "/v1/files/"+word },
		"in session":  func(r *http.Request) { r.URL.Path = "/v1/sessions/" + word + "/execute" },
	} {
		r := authorized(http.MethodPost, "/v1/execute", `{"code": 1}`, "Bearer anna's key")
		change(r)
		check(name, r)
	}
	for line := range strings.Lines(logged.String()) {
		if len(line) > 4000 || longest(line) > 1100 {
			t.Errorf("the log has a line of %d bytes: %.200s", len(line), line)
		}
	}
}

// The answer to a preflight request does not repeat a long list of headers.
func TestLongPreflight(t *testing.T) {
	opts := options(validates)
	opts.AllowedOrigins = []string{"https://app.example.com"}
	r := request(http.MethodOptions, "/v1/execute", "")
	r.Header.Set("Origin", "https://app.example.com")
	r.Header.Set("Access-Control-Request-Method", "POST")
	r.Header.Set("Access-Control-Request-Headers", strings.Repeat("x-1,", 4000))
	if a := serve(httpapi.NewHandler(opts), r); a.header.Get("Access-Control-Allow-Headers") != "" {
		t.Errorf("%d: %.100v", a.status, a.header)
	}
}

// A long output is returned unchanged, though it is escaped in pieces.
func TestLongOutput(t *testing.T) {
	stdout, stderr := strings.Repeat("a\x01<\"\\é日\n", 5000), strings.Repeat("日", 20_000)+"\u2028"
	h := handler(func(context.Context, execution.Request) (*execution.Result, error) {
		r := &execution.Result{Stdout: stdout, Stderr: stderr, ExitCode: new(int), End: execution.End{Reason: execution.Exited}}
		return r, nil
	})
	a := send(h, `{"code": ""}`)
	a.want(t, http.StatusOK, `{"stdout": `+quote(t, stdout)+`, "stderr": `+quote(t, stderr)+`, "exit_code": 0, "timed_out": false, "duration_ms": 0,
		"files": [], "end": {"reason": "exited"}, "usage": {"cpu_ms": 0, "peak_memory_bytes": 0}, "queue_ms": 0, "skipped_files": [], "results": []}`)

	stream := serve(h, request(http.MethodPost, "/v1/execute/stream", `{"code": ""}`))
	for event := range strings.SplitSeq(stream.body, "\n\n") {
		if len(event) > 110_000 {
			t.Errorf("an event has %d bytes", len(event))
		}
	}
}

func quote(t *testing.T, text string) string {
	t.Helper()
	data, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The form around an uploaded file is bounded.
func TestLongForm(t *testing.T) {
	for name, form := range map[string]string{
		"a header": "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nX-Long: " + strings.Repeat("#", 200_000) + "\r\n\r\nabc\r\n--x--\r\n",
		"a field":  "--x\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\n" + strings.Repeat("#", 200_000) + "\r\n--x--\r\n",
		"behind": "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nabc\r\n--x\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n" +
			strings.Repeat("#", 200_000) + "\r\n--x--\r\n",
	} {
		r := request(http.MethodPost, "/v1/files", form)
		r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
		opts := options(validates)
		opts.Files = readsAll{}
		if a := serve(httpapi.NewHandler(opts), r); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, "65536 bytes") {
			t.Errorf("%s: %d %.200s", name, a.status, a.body)
		}
	}
}

// waits starts a server with room for four connections without a request.
func waits(t *testing.T) (dial func() net.Conn, ask func(conn net.Conn) error) {
	t.Helper()
	opts := options(validates)
	dial = waitsWith(t, opts)
	return dial, func(conn net.Conn) error { return get(conn, "/health", "") }
}

func waitsWith(t *testing.T, opts httpapi.Options) (dial func() net.Conn) {
	t.Helper()
	opts.InFlightBytes = 2 << 20
	server := httptest.NewUnstartedServer(nil)
	server.Config = httpapi.NewServer(opts)
	server.Start()
	t.Cleanup(server.Close)
	return func() net.Conn {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
}

// get sends a request, and reads the beginning of its answer.
func get(conn net.Conn, path, key string) error {
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", path, key)
	if err == nil {
		_, err = io.ReadAtLeast(conn, make([]byte, 4096), 15)
	}
	return err
}

// Connections without a request are bounded: the oldest of many that send nothing is
// closed, and none of a client between two requests.
func TestSilentConnections(t *testing.T) {
	dial, ask := waits(t)
	client := dial()
	if err := ask(client); err != nil {
		t.Fatal(err)
	}
	oldest := dial()
	for range 20 {
		_, _ = dial().Write([]byte("GET /health HTTP/1.1\r\nHost:"))
	}
	if n, err := oldest.Read(make([]byte, 1)); err == nil {
		t.Errorf("the oldest is still open: %d", n)
	}
	if err := ask(client); err != nil {
		t.Errorf("a client's second request: %v", err)
	}
}

// Many idle connections do not close that of a new client.
func TestIdleConnections(t *testing.T) {
	dial, ask := waits(t)
	oldest := dial()
	if err := ask(oldest); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		client := dial()
		if err := ask(client); err != nil {
			t.Errorf("a client that has just come: %v", err)
		}
	}
	if n, err := oldest.Read(make([]byte, 1)); err == nil {
		t.Errorf("the oldest is still open: %d", n)
	}
}

// Many idle connections of one owner close none of another, even if that has waited longest.
func TestIdleConnectionsOfOthers(t *testing.T) {
	opts := options(validates)
	opts.Auth = known{"anna": "anna", "ben": "ben"}
	dial := waitsWith(t, opts)
	bens, oldest := dial(), dial()
	if err := errors.Join(get(bens, "/v1/files", "ben"), get(oldest, "/v1/files", "anna")); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := get(dial(), "/v1/files", "anna"); err != nil {
			t.Error(err)
		}
	}
	if n, err := oldest.Read(make([]byte, 1)); err == nil {
		t.Errorf("the oldest of anna's is still open: %d", n)
	}
	if err := get(bens, "/v1/files", "ben"); err != nil {
		t.Errorf("ben's second request: %v", err)
	}
}
