package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// pipes is a listener whose connections are pipes, so that deadlines expire in virtual
// time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return new(net.TCPAddr) }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// newServer serves until the test ends.
func newServer(t *testing.T, executor execute) *pipes {
	t.Helper()
	opts := options(executor)
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if _, err := executor(r.Context(), execution.Request{}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})}
	return newServerOf(t, httpapi.NewServer(opts))
}

// newServerOf makes a server serve pipes until the test ends.
func newServerOf(t *testing.T, server *http.Server) *pipes {
	t.Helper()
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	over := make(chan error)
	go func() { over <- server.Serve(p) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-over; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return p
}

const post = "POST /v1/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

// A program may run longer than the time for a body and for an answer, repeatedly on one
// connection.
func TestLongRunIsNotCut(t *testing.T) {
	for name, request := range map[string]string{
		"sized":          post + "Content-Length: 12\r\n\r\n{\"code\": \"\"}",
		"chunked":        post + "Transfer-Encoding: chunked\r\n\r\nc\r\n{\"code\": \"\"}\r\n0\r\n\r\n",
		"another door's": "POST /mounted HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\nx",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := newServer(t, func(ctx context.Context, req execution.Request) (*execution.Result, error) {
					select {
					case <-time.After(time.Hour):
						return validates(ctx, req)
					case <-ctx.Done():
						return nil, context.Cause(ctx)
					}
				}).dial()
				defer func() { _ = conn.Close() }()
				in := bufio.NewReader(conn)
				for range 3 {
					if _, err := io.WriteString(conn, request); err != nil {
						t.Fatal(err)
					}
					if status := readStatus(t, in); status != http.StatusOK {
						t.Errorf("the status is %d", status)
					}
				}
			})
		})
	}
}

func readStatus(t *testing.T, in *bufio.Reader) int {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// The connections of slow clients are closed.
func TestSlowClients(t *testing.T) {
	for name, test := range map[string]struct {
		sent  string
		reads bool
	}{
		"in a header":             {"POST /v1/execute HTT", true},
		"in a body":               {post + "Content-Length: 1000\r\n\r\n{", true},
		"in a mounted one's body": {"POST /mounted HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{", true},
		"in a refused body":       {"POST /v1/execute HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1000\r\n\r\n{", true},
		"between requests":        {"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", true},
		"over an answer":          {post + "Content-Length: 12\r\n\r\n{\"code\": \"\"}", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := newServer(t, func(context.Context, execution.Request) (*execution.Result, error) {
					return &execution.Result{Stdout: strings.Repeat("x", 1<<20), ExitCode: new(int)}, nil
				}).dial()
				if _, err := io.WriteString(conn, test.sent); err != nil {
					t.Fatal(err)
				}
				if !test.reads {
					time.Sleep(5 * time.Minute)
				}
				patience := time.AfterFunc(5*time.Minute, func() { _ = conn.Close() })
				_, _ = io.Copy(io.Discard, conn) // to the connection's end
				if !patience.Stop() {
					t.Error("the server keeps the connection")
				}
				_ = conn.Close()
			})
		})
	}
}

// A body that stalls is answered with 408 on every route that reads one, and is not logged
// as an error.
func TestStalledBodies(t *testing.T) {
	const form = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nsome"
	for name, sent := range map[string]string{
		"a run":            post + "Content-Length: 1000\r\n\r\n{",
		"a form":           "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 1000\r\n\r\n--",
		"an upload":        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 1000\r\n\r\n" + form,
		"a session's file": "PUT /v1/sessions/" + knownSession + "/files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := options(validates)
				opts.Files = readsAll{}
				log, text := newLog()
				opts.Log = log
				conn := newServerOf(t, httpapi.NewServer(opts)).dial()
				defer func() { _ = conn.Close() }()
				if _, err := io.WriteString(conn, sent); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if err := errors.Join(err, resp.Body.Close()); err != nil {
					t.Error(err)
				}
				if resp.StatusCode != http.StatusRequestTimeout || strings.TrimSpace(string(body)) != `{"detail":"request body read timeout"}` {
					t.Errorf("%d %s", resp.StatusCode, body)
				}
				if strings.Contains(text.String(), "ERROR") {
					t.Errorf("the log is:\n%s", text)
				}
			})
		})
	}
}

// readsAll is a store that reads and discards files.
type readsAll struct{ noFiles }

func (readsAll) Put(_ context.Context, _ string, r io.Reader) (filestore.Info, error) {
	_, err := io.Copy(io.Discard, r)
	return filestore.Info{}, err
}
