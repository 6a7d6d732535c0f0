package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// The limits of the server of these tests, and bodies that no buffers of the kernel hold.
const (
	drainLimit = 6 << 20
	longBody   = 22 << 20
)

// drainServer returns the address of a server that needs a key.
func drainServer(t *testing.T) string {
	t.Helper()
	opts := options(validates)
	opts.MaxBodyBytes, opts.MaxFileBytes, opts.Limits.WorkspaceBytes = drainLimit, drainLimit, drainLimit
	opts.Files = readsAll{}
	opts.Auth = known{"anna's key": "anna"}
	opts.Mount = map[string]http.Handler{"/mcp": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		}
	})}
	server := httptest.NewUnstartedServer(nil)
	server.Config = httpapi.NewServer(opts)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// ask writes a whole request and only then reads the answer.
func ask(t *testing.T, address, header string, body io.Reader) (status int, answer string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.Copy(conn, io.MultiReader(strings.NewReader(header), body)); err != nil {
		t.Errorf("writing: %v", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("no answer: %v", err)
		return 0, ""
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		t.Errorf("half an answer: %v", err)
	}
	return resp.StatusCode, string(text)
}

// filler is a body of n bytes: JSON, or a form, in one field.
func filler(start string, n int, end string) io.Reader {
	return io.MultiReader(strings.NewReader(start), io.LimitReader(spaces{}, int64(n-len(start)-len(end))), strings.NewReader(end))
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// chunked encodes a body in chunks.
type chunked struct{ io.Reader }

func (c chunked) WriteTo(w io.Writer) (int64, error) {
	n, err := io.CopyBuffer(chunkWriter{w}, struct{ io.Reader }{c.Reader}, make([]byte, 64<<10))
	if err == nil {
		_, err = io.WriteString(w, "0\r\n\r\n")
	}
	return n, err
}

type chunkWriter struct{ io.Writer }

func (c chunkWriter) Write(p []byte) (int, error) {
	if _, err := fmt.Fprintf(c.Writer, "%x\r\n%s\r\n", len(p), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A client that sends its whole request before it reads gets its answer, whatever the
// server refuses, and before or while it reads the body.
func TestAnswerAfterALongBody(t *testing.T) {
	const (
		key, typed = "Authorization: Bearer anna's key\r\n", "Content-Type: application/json\r\n"
		form       = "Content-Type: multipart/form-data; boundary=x\r\n"
		part       = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n"
		session    = "/v1/sessions/" + knownSession
		tooLarge   = "request body exceeds maximum of 6 MB"
	)
	address := drainServer(t)
	for name, test := range map[string]struct {
		line, header string
		start, end   string
		status       int
		want         string
	}{
		"a run":                {"POST /v1/execute", key + typed, `{"code": "`, `"}`, 413, tooLarge},
		"a stream":             {"POST /v1/execute/stream", key + typed, `{"code": "`, `"}`, 413, tooLarge},
		"a command":            {"POST " + session + "/bash", key + typed, `{"cmd": "`, `"}`, 413, tooLarge},
		"a session":            {"POST /v1/sessions", key + typed, `{`, `}`, 413, tooLarge},
		"an upload":            {"POST /v1/files", key + form, part, "\r\n--x--\r\n", 413, "File size exceeds maximum of 6 MB"},
		"another form":         {"POST /v1/files", key + "Content-Type: text/plain\r\n", "", "", 0, ""},
		"another door's":       {"POST /mcp", key + typed, `{`, `}`, 413, ""},
		"no key":               {"POST /v1/files", form, part, "\r\n--x--\r\n", 401, "Not authenticated"},
		"another key":          {"POST /v1/execute", "Authorization: Bearer x\r\n" + typed, `{`, `}`, 401, ""},
		"another host":         {"POST /v1/execute", "X-Host: example.com\r\n" + key + typed, `{`, `}`, 403, "Forbidden"},
		"another origin":       {"POST /v1/execute", "Origin: https://evil.com\r\n" + key + typed, `{`, `}`, 403, "Forbidden"},
		"another media type":   {"POST /v1/execute", key + "Content-Type: text/plain\r\n", `{`, `}`, 415, "Unsupported Media Type"},
		"another method":       {"PUT /v1/execute", typed, `{`, `}`, 0, ""},
		"an unknown route":     {"POST /nope", key + typed, `{`, `}`, 0, ""},
		"not the shortest one": {"POST //v1/execute", key + typed, `{`, `}`, 0, ""},
	} {
		for encoding, encode := range map[string]func() (string, io.Reader){
			"sized": func() (string, io.Reader) {
				return fmt.Sprintf("Content-Length: %d\r\n", longBody), filler(test.start, longBody, test.end)
			},
			"expected": func() (string, io.Reader) {
				return fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n", longBody), filler(test.start, longBody, test.end)
			},
			"chunked": func() (string, io.Reader) {
				return "Transfer-Encoding: chunked\r\n", chunked{filler(test.start, longBody, test.end)}
			},
		} {
			length, body := encode()
			host := "localhost"
			if strings.Contains(test.header, "X-Host") {
				host = "example.com"
			}
			status, text := ask(t, address, test.line+" HTTP/1.1\r\nHost: "+host+"\r\n"+test.header+length+"\r\n", body)
			if test.status != 0 && status != test.status || status < 400 || !strings.Contains(text, test.want) {
				t.Errorf("%s, %s: %d %s", name, encoding, status, text)
			}
		}
	}
}

// The server does not read on forever: a body that never ends is cut off.
func TestEndlessBodyIsCutOff(t *testing.T) {
	conn, err := net.Dial("tcp", drainServer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const header = "POST /v1/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n" +
		"Authorization: Bearer anna's key\r\n\r\n"
	if _, err := io.WriteString(conn, header); err != nil {
		t.Fatal(err)
	}
	if sent, err := io.Copy(conn, chunked{io.LimitReader(spaces{}, 100*drainLimit)}); err == nil {
		t.Errorf("all %d bytes were read", sent)
	}
}

// A client that gets its answer and sends nothing more, or too little, is disconnected.
func TestSlowBodyIsCutOff(t *testing.T) {
	for name, pause := range map[string]time.Duration{"nothing": time.Hour, "a byte a second": time.Second} {
		for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
			t.Run(name+" "+expect, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					conn := newServer(t, validates).dial()
					defer func() { _ = conn.Close() }()
					if _, err := io.WriteString(conn, post+expect+fmt.Sprintf("Content-Length: %d\r\n\r\n", maxBody+1)); err != nil {
						t.Fatal(err)
					}
					in := bufio.NewReader(conn)
					if status := readStatus(t, in); status != http.StatusRequestEntityTooLarge {
						t.Errorf("the status is %d", status)
					}
					ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
					defer stop()
					go func() {
						for ctx.Err() == nil {
							select {
							case <-time.After(pause):
							case <-ctx.Done():
							}
							_, _ = io.WriteString(conn, " ")
						}
					}()
					if _, err := in.ReadByte(); err == nil || ctx.Err() != nil {
						t.Errorf("the connection is open after 5 minutes: %v", err)
					}
				})
			})
		}
	}
}

// A body that ends before its Content-Length or has a broken chunk is the client's fault.
func TestBrokenBodies(t *testing.T) {
	const form = "Content-Type: multipart/form-data; boundary=x\r\n"
	const part = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nsome"
	opts := options(validates)
	opts.Files = readsAll{}
	log, logged := newLog()
	opts.Log = log
	server := httptest.NewServer(httpapi.NewHandler(opts))
	defer server.Close()
	for name, sent := range map[string]string{
		"no chunk":        post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"a long chunk":    post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{\"code\": \"\"}\r\n0\r\n\r\n",
		"half a chunk":    post + "Transfer-Encoding: chunked\r\n\r\nff\r\n{\"code\"",
		"no last chunk":   post + "Transfer-Encoding: chunked\r\n\r\nc\r\n{\"code\": \"\"}\r\n",
		"a short body":    post + "Content-Length: 1000\r\n\r\n{\"code\": \"\"}",
		"no body":         post + "Content-Length: 1000\r\n\r\n",
		"in a stream":     strings.Replace(post, "/execute", "/execute/stream", 1) + "Transfer-Encoding: chunked\r\n\r\nz\r\n",
		"in a session":    strings.Replace(post, "/execute", "/sessions", 1) + "Transfer-Encoding: chunked\r\n\r\nz\r\n",
		"an upload":       "POST /v1/files HTTP/1.1\r\nHost: localhost\r\n" + form + "Content-Length: 1000\r\n\r\n" + part,
		"before the file": "POST /v1/files HTTP/1.1\r\nHost: localhost\r\n" + form + "Content-Length: 1000\r\n\r\n--x\r\nConte",
		"upload's chunk":  "POST /v1/files HTTP/1.1\r\nHost: localhost\r\n" + form + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\nz\r\n", len(part), part),
		"session's file":  "PUT /v1/sessions/" + knownSession + "/files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome",
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		tcp, _ := conn.(*net.TCPConn)
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Error(err)
		}
		_ = tcp.CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		_ = conn.Close()
		if want := `{"detail":"the request body is cut short or its chunks are not valid"}`; resp.StatusCode != http.StatusBadRequest || strings.TrimSpace(string(text)) != want {
			t.Errorf("%s: %s %s", name, resp.Status, text)
		}
	}
	if strings.Contains(logged.String(), "ERROR") {
		t.Errorf("it is logged as the server's fault: %s", logged)
	}
}

// A request that is refused before its body leaves the connection usable.
func TestConnectionIsKeptAfterARefusal(t *testing.T) {
	conn, err := net.Dial("tcp", drainServer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for range 3 {
		const body = `{"code": ""}`
		if _, err := fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", post, len(body), body); err != nil {
			t.Fatal(err)
		}
		if status := readStatus(t, in); status != http.StatusUnauthorized {
			t.Errorf("the status is %d", status)
		}
	}
}
