package mcp_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/mcp"
)

// The server ends with its input or its context even if the client does not read.
func TestStdioEndsUnread(t *testing.T) {
	const list = `{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}`
	for name, said := range map[string]string{"answers": list, "errors": "nonsense", "a call": callCode} {
		for _, end := range []string{"input", "context"} {
			t.Run(name+" "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					in, client := io.Pipe()
					unread, out := io.Pipe()
					ctx, leave := context.WithCancel(t.Context())
					over := make(chan error, 1)
					go func() { over <- mcp.New(options(gives(exited(0), nil))).ServeStdio(ctx, in, out) }()
					for range 60 {
						if _, err := io.WriteString(client, said+"\n"); err != nil {
							t.Fatal(err)
						}
					}
					synctest.Wait()
					began := time.Now()
					if end == "input" {
						_ = client.Close()
					} else {
						leave()
					}
					if err := <-over; err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took > 5*time.Second {
						t.Errorf("it took %v", took)
					}
					leave()
					_ = client.Close()
					_ = unread.Close()
				})
			})
		}
	}
}

// The calls of a client that has closed its stdin, and still reads, say so.
func TestStdioClosedDuringCall(t *testing.T) {
	r := newRuns()
	c := connect(t, optionsOf(r))
	c.send("tools/call", `{"name": "execute_python", "arguments": {"code": "a"}}`)
	<-r.begun
	_ = c.in.Close()
	if text, isError := textOf(t, c.read().Result); !isError || text != "the client closed stdin before the call ended" {
		t.Error(text)
	}
}

// Requests of a client that has closed its stdin are answered, however many they
// are; calls that wait do not run.
func TestStdioClosedAfterRequests(t *testing.T) {
	r := newRuns()
	opts := optionsOf(r)
	opts.Parallel = 1
	c := connect(t, opts)
	const requests = 20
	call := c.send("tools/call", `{"name": "execute_python", "arguments": {"code": "first"}}`)
	<-r.begun
	waiting := c.send("tools/call", `{"name": "execute_python", "arguments": {"code": "second"}}`)
	for range requests {
		c.send("ping", `{}`)
	}
	_ = c.in.Close()
	for range requests + 2 {
		m := c.read()
		if m.Error != nil {
			t.Errorf("%+v", m.Error)
		}
		if *m.ID == call || *m.ID == waiting {
			if text, isError := textOf(t, m.Result); !isError || text != "the client closed stdin before the call ended" {
				t.Error(text)
			}
		}
	}
	if len(r.begun) > 0 {
		t.Errorf("%s ran", <-r.begun)
	}
}

// Revision 2025-03-26 has batches. Each answer comes by itself.
func TestStdioBatch(t *testing.T) {
	c := connect(t, options(gives(printed("42\n"), nil)))
	c.write(`[{"jsonrpc": "2.0", "id": 7, "method": "ping"}, {"jsonrpc": "2.0", "method": "notifications/initialized"}, ` +
		strings.ReplaceAll(callCode, `"id": 2`, `"id": 8`) + `]`)
	answered := make(map[int]bool)
	for range 2 {
		m := c.read()
		if m.ID == nil || m.Error != nil {
			t.Fatalf("%+v", m)
		}
		answered[*m.ID] = true
	}
	if !answered[7] || !answered[8] {
		t.Error(answered)
	}
	c.write(`[]`)
	if m := c.read(); m.Error == nil || m.Error.Code != -32600 {
		t.Errorf("an empty one: %+v", m)
	}
}

// An empty line is ignored. The last line needs no newline.
func TestStdioLines(t *testing.T) {
	var out strings.Builder
	in := "\n  \r\n" + strings.ReplaceAll(hello, "\n", "")
	if err := mcp.New(options(nil)).ServeStdio(t.Context(), strings.NewReader(in), &out); err != nil {
		t.Error(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"serverInfo"`) {
		t.Errorf("%q", got)
	}
}

// An invalid id gets an error that does not repeat it.
func TestStdioInvalidID(t *testing.T) {
	c := connect(t, options(nil))
	for _, id := range []string{`{}`, `[[]]`, `true`} {
		c.write(`{"jsonrpc": "2.0", "id": ` + id + `, "method": "ping"}`)
		if m := c.read(); m.ID != nil || m.Error == nil || m.Error.Code != -32600 {
			t.Errorf("%s: %+v", id, m)
		}
	}
}

// A request that panics gets an answer, and the next request is handled.
func TestStdioPanic(t *testing.T) {
	opts := options(nil)
	opts.Files = panicking{}
	c := connect(t, opts)
	if m := c.request("resources/read", `{"uri": "vivarium://files/a"}`); m.Error == nil || m.Error.Code != -32603 {
		t.Errorf("%+v", m)
	}
	c.request("ping", `{}`)
}

// panicking is a store that is broken.
type panicking struct{ noFiles }

func (panicking) Stat(context.Context, string) (filestore.Info, error) { panic("in the store") }

// A message over stdio is bounded, and so is what waits for its answer: others are
// refused at once, and what calls off a request is taken.
func TestStdioIsBounded(t *testing.T) { synctest.Test(t, testStdioIsBounded) }

func testStdioIsBounded(t *testing.T) {
	t.Helper()
	r := newRuns()
	opts := optionsOf(r)
	opts.MaxMessageBytes, opts.InFlightBytes, opts.OutputBytes = 1<<20, 1<<20, 1
	c := connect(t, opts)
	c.write(`{"jsonrpc": "2.0", "id": 5, "method": "ping", "x": "` + strings.Repeat("x", 1<<20) + `"}`)
	if m := c.read(); m.ID != nil || m.Error == nil || m.Error.Message != "the message is too large: at most 1 MB are allowed (MAX_BODY_MB)" {
		t.Errorf("%+v", m)
	}
	c.request("ping", "{}")

	call := `{"jsonrpc": "2.0", "id": %d, "method": "tools/call", "params": {"name": "execute_python", "arguments": {"code": "` + strings.Repeat("x", 100<<10) + `"}}}`
	for id := range 2 {
		c.write(fmt.Sprintf(call, 100+id))
		<-r.begun
	}
	c.write(fmt.Sprintf(call, 102))
	if m := c.read(); m.ID == nil || *m.ID != 102 || m.Error == nil || !strings.Contains(m.Error.Message, "MAX_IN_FLIGHT_MB") {
		t.Errorf("one more: %+v", m)
	}
	c.write(`{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 100}}`)
	<-r.ended
	synctest.Wait() // until its memory is free
	c.write(fmt.Sprintf(call, 103))
	<-r.begun
}
