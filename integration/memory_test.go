package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// inFlightMB is the budget of the server that is attacked, and slackMB what it may
	// take besides.
	inFlightMB, slackMB = 128, 64
	bodyMB              = 12
	// attackTime is how long each way is tried at least.
	attackTime = 2000 * time.Millisecond
)

// attacker is a client with a key that wants all of a server's memory.
type attacker struct {
	server  *server
	ctx     context.Context //nolint:containedctx // of the attack: what it does takes no other
	clients sync.WaitGroup
	served  atomic.Int64 // answers that began with 200 or 202
	refused atomic.Int64 // with 429 or 503
	other   atomic.Int64
}

// say opens a connection, sends a request and calls then with the connection, which is
// closed when that returns or the attack is over.
func (a *attacker) say(head string, body io.Reader, then func(conn net.Conn)) {
	conn, err := new(net.Dialer).DialContext(a.ctx, "tcp", strings.TrimPrefix(a.server.url, "http://"))
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(a.ctx, func() { _ = conn.Close() })()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	method, path, _ := strings.Cut(head, " ")
	path, more, _ := strings.Cut(path, "\n")
	_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Accept: application/json, text/event-stream\r\n%s", method, path, annasKey, more)
	if body != nil {
		_, _ = io.Copy(conn, body) // the server may have answered by now
	}
	then(conn)
}

// post sends a whole request with a body.
func (a *attacker) post(path, body string, then func(conn net.Conn)) {
	a.say(fmt.Sprintf("POST %s\nContent-Length: %d\r\n\r\n", path, len(body)), strings.NewReader(body), then)
}

// status reads how an answer begins, and counts it.
func (a *attacker) status(conn net.Conn) (session string) {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection is closed
	if err != nil {
		return ""
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted:
		a.served.Add(1)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		a.refused.Add(1)
	default:
		a.other.Add(1)
	}
	return resp.Header.Get("Mcp-Session-Id")
}

func (a *attacker) read(conn net.Conn) {
	a.status(conn)
	_, _ = io.Copy(io.Discard, conn)
}

// hold reads no more than how an answer begins, until the attack is over.
func (a *attacker) hold(conn net.Conn) {
	a.status(conn)
	<-a.ctx.Done()
}

// each has so many clients do something, again and again.
func (a *attacker) each(clients int, do func(client int)) {
	for client := range clients {
		a.clients.Go(func() {
			for a.ctx.Err() == nil {
				do(client)
			}
		})
	}
}

// statusOf reads a number of kilobytes from a process's status.
func statusOf(t *testing.T, process *os.Process, name string) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), name+":")
	kilobytes, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes
}

// text is a JSON string of so many bytes, which an answer may repeat.
func text(bytes int, of string) string { return `"` + strings.Repeat(of, bytes/len(of)) + `"` }

func code(python string) string {
	data, _ := json.Marshal(python)
	return string(data)
}

const (
	initialize = `{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", ` +
		`"capabilities": %s, "clientInfo": {"name": %s, "version": "1"}}}`
	toolCall = `{"jsonrpc": "2.0", "id": %s, "method": "tools/call", "params": {"name": "execute_python", "arguments": {"code": %s}, "_meta": {"progressToken": %s}}}`
)

// begin begins a session of MCP.
func (a *attacker) begin() (session string) {
	a.post("/mcp", fmt.Sprintf(initialize, "{}", `"x"`), func(conn net.Conn) { session = a.status(conn) })
	return session
}

// call calls a tool in a session.
func (a *attacker) call(session, message string, then func(conn net.Conn)) {
	a.say(fmt.Sprintf("POST /mcp\nMcp-Session-Id: %s\r\nContent-Length: %d\r\n\r\n", session, len(message)), strings.NewReader(message), then)
}

// waysToTakeMemory are what one key may try.
func waysToTakeMemory() map[string]func(a *attacker) {
	const most = bodyMB<<20 - 1000
	loud := code("import sys\nsys.stdout.write('\\x01' * 1000000)\nsys.stderr.write('\\x01' * 1000000)")
	return map[string]func(a *attacker){
		"large bodies": func(a *attacker) {
			body := `{"code": ` + text(most, "#") + `}`
			a.each(30, func(int) { a.post("/v1/execute", body, a.read) })
		},
		"bodies with faults": func(a *attacker) {
			bodies := []string{
				`{"code": ` + strings.Repeat("1", most) + `}`,
				`{"code": "", "x": ` + strings.Repeat("1", most) + `}`,
				`{"code": "", "timeout_ms": ` + text(most, "a") + `}`,
				`{"code": "", "timeout_ms": ` + text(most, `\u0001`) + `}`,
				`{"code": "", "timeout_ms": ` + text(most, "\xff") + `}`,
				`{"code": "", "timeout_ms": [` + text(most, "<") + `]}`,
				`{"code": "", "files": [{"path": ` + text(most, "\x7f") + `, "file_id": "x"}]}`,
				`{"code": "", "files": [{"path": "x", "file_id": ` + text(most, "a") + `}]}`,
				`{"code": "", "files": [{"path": "x", "content_base64": ` + text(most, "AAAA") + `}]}`,
				strings.Repeat("a", most),
			}
			a.each(30, func(client int) { a.post("/v1/execute", bodies[client%len(bodies)], a.read) })
		},
		"many values": func(a *attacker) {
			body := `{"code": "", "x": [` + strings.Repeat(`{"a":0},`, 9900) + `0], "files": [` + strings.Repeat(`{},`, 20) + `{}]}`
			a.each(60, func(int) { a.post("/v1/execute", body, a.read) })
		},
		"many bad files": func(a *attacker) {
			body := `{"code": "", "files": [` + strings.Repeat(`{"path":"/","content_base64":""},`, 6000) + `{}]}`
			a.each(60, func(int) { a.post("/v1/execute", body, a.hold) })
		},
		"slow bodies": func(a *attacker) {
			a.each(400, func(int) {
				a.say(fmt.Sprintf("POST /v1/execute\nContent-Length: %d\r\n\r\n", most), strings.NewReader(`{"code": "`+strings.Repeat("#", 200_000)), a.hold)
			})
		},
		"bodies of no known length": func(a *attacker) {
			chunk := strings.Repeat("#", 1<<20)
			body := "b\r\n{\"code\": \"\"\r\n" + strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", len(chunk), chunk), bodyMB-1)
			a.each(60, func(int) {
				a.say("POST /v1/execute\nTransfer-Encoding: chunked\r\n\r\n", strings.NewReader(body), a.hold)
			})
		},
		"unread streams": func(a *attacker) {
			a.each(60, func(int) { a.post("/v1/execute/stream", `{"code": `+loud+`}`, a.hold) })
		},
		"unread answers": func(a *attacker) {
			a.each(60, func(int) { a.post("/v1/execute", `{"code": `+loud+`}`, a.hold) })
		},
		"unread SSE": func(a *attacker) {
			a.each(20, func(int) {
				a.say("GET /sse\n\r\n", nil, func(conn net.Conn) {
					lines := bufio.NewScanner(conn)
					endpoint, found := "", false
					for !found && lines.Scan() {
						endpoint, found = strings.CutPrefix(lines.Text(), "data: ")
					}
					for i := 0; a.ctx.Err() == nil; i++ {
						body := fmt.Sprintf(toolCall, strconv.Itoa(i), code("print('<' * 30000)"), `"p"`)
						if i%2 == 0 {
							body = fmt.Sprintf(initialize, "{}", text(1<<20, "x"))
						}
						a.post(endpoint, body, func(conn net.Conn) { a.status(conn) })
					}
				})
			})
		},
		"sessions of MCP": func(a *attacker) {
			infos := []string{
				fmt.Sprintf(initialize, "{}", text(4<<20, "x")),
				fmt.Sprintf(initialize, `{"experimental": {"x": [`+strings.Repeat(`{"a":0},`, 9000)+`0]}}`, `"x"`),
				fmt.Sprintf(initialize, `{"extensions": {"x": {"y": `+text(4<<20, "x")+`}}}`, `"x"`),
			}
			a.each(20, func(client int) { a.post("/mcp", infos[client%len(infos)], a.read) })
		},
		"what answers of MCP repeat": func(a *attacker) {
			session := a.begin()
			ticking := code("import time\nfor i in range(9):\n print(i)\n time.sleep(1)")
			calls := []string{
				fmt.Sprintf(toolCall, text(5<<20, "i"), ticking, text(5<<20, "t")),
				fmt.Sprintf(toolCall, "1", ticking, text(most/2, "<")),
				fmt.Sprintf(toolCall, strings.Repeat("1", 10<<20), ticking, strings.Repeat("1", 1<<20)),
				fmt.Sprintf(toolCall, "2", ticking, `{"a": `+text(most/2, "<")+`}`),
				fmt.Sprintf(`{"jsonrpc": "2.0", "id": 1, "method": %s}`, text(most/2, "<")),
				fmt.Sprintf(`{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": %s}}`, text(most/2, "<")),
				fmt.Sprintf(`{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "execute_python", "arguments": {%s: 1}}}`, text(most/2, "<")),
			}
			a.each(28, func(client int) { a.call(session, calls[client%len(calls)], a.hold) })
		},
		"large calls of MCP": func(a *attacker) {
			session := a.begin()
			calls := []string{
				fmt.Sprintf(toolCall, "1", text(most, "#"), `"p"`), fmt.Sprintf(toolCall, "1", text(most, "<"), `"p"`),
				fmt.Sprintf(toolCall, "1", text(most, `\u0001`), `"p"`),
			}
			a.each(20, func(client int) { a.call(session, calls[client%len(calls)], a.read) })
		},
		"pictures": func(a *attacker) {
			session := a.begin()
			// A PNG of white, 4,900 pixels a side, by hand: 24 million pixels of four bytes.
			picture := code(`
import struct, zlib
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
def png(name, side, kind, size):
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(b"\0" + b"\xff" * size * side) for _ in range(side)) + packer.flush()
    open(name, "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, kind, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
png("a.png", 4900, 6, 4)
png("b.png", 3000, 6, 4)
png("c.png", 2000, 2, 3)
`)
			a.each(12, func(int) {
				a.call(session, fmt.Sprintf(`{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "execute_python", `+
					`"arguments": {"code": %s}}}`, picture), a.hold)
			})
		},
		"uploads and downloads": func(a *attacker) {
			id := a.upload(strings.Repeat("\x01", 9<<20))
			uri := fmt.Sprintf(`{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "vivarium://files/%s"}}`, id)
			session := a.begin()
			a.each(40, func(int) { a.upload(strings.Repeat("y", 4<<20)) })
			a.each(200, func(client int) {
				if client%4 > 0 {
					a.say("GET /v1/files/"+id+"\n\r\n", nil, a.hold)
				} else {
					a.call(session, uri, a.hold)
				}
			})
		},
		"half headers": func(a *attacker) {
			var header strings.Builder
			for i := range 2200 {
				fmt.Fprintf(&header, "%x:\r\n", i)
			}
			a.each(1000, func(int) { a.say("GET /health\n"+header.String(), nil, a.hold) })
		},
		"unread questions": func(a *attacker) {
			a.each(600, func(client int) {
				a.say("GET "+[]string{"/openapi.json", "/docs", "/v1/files", "/health"}[client%4]+"\n\r\n", nil, a.hold)
			})
		},
		"many small requests": func(a *attacker) {
			a.each(400, func(int) { a.post("/v1/execute", `{"code": "import time; time.sleep(1)"}`, a.read) })
		},
	}
}

// upload uploads a file and returns its id.
func (a *attacker) upload(content string) (id string) {
	const begin, end = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n", "\r\n--x--\r\n"
	// The last of several Content-Type counts for nobody; this is another connection's.
	req, err := http.NewRequestWithContext(a.ctx, http.MethodPost, a.server.url+"/v1/files", strings.NewReader(begin+content+end))
	if err != nil {
		return ""
	}
	req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	req.Header.Set("Authorization", "Bearer "+annasKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	var file struct {
		ID string `json:"file_id"`
	}
	_ = json.NewDecoder(resp.Body).Decode(&file)
	return file.ID
}

// Whatever one key does, the server's memory stays within the budget and a bit, and
// another key is served meanwhile.
func TestLocalMemory(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "vivarium") // the race detector takes many times the memory
	if out, err := exec.Command("go", "build", "-o", binary, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := startServerBinary(t, binary, "API_KEYS="+annasKey+","+bensKey, "POOL_SIZE=2", "MAX_SANDBOXES=8",
		"MAX_IN_FLIGHT_MB="+strconv.Itoa(inFlightMB), "MAX_BODY_MB="+strconv.Itoa(bodyMB), "FILE_STORAGE_DIR="+t.TempDir(), "LOG_LEVEL=info")
	began := time.Now()
	for name, way := range waysToTakeMemory() {
		t.Run(name, func(t *testing.T) { attack(t, s, way) })
	}
	t.Logf("all of it took %v", time.Since(began).Round(time.Second))
}

func attack(t *testing.T, s *server, way func(*attacker)) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.process.Pid), []byte("5"), 0); err != nil {
		t.Fatal(err) // it has VmHWM begin anew
	}
	before := statusOf(t, s.process, "VmRSS")
	ctx, stop := context.WithTimeout(t.Context(), attackTime)
	defer stop()
	a := &attacker{server: s, ctx: ctx}
	way(a)
	runs, slowest := 0, time.Duration(0)
	for ; ctx.Err() == nil || runs < 2; runs++ {
		began := time.Now()
		if got := s.runAs(t, bensKey, "print(1)"); got.Stdout != "1\n" {
			t.Errorf("another key gets %+v", got)
		}
		slowest = max(slowest, time.Since(began))
	}
	peak := statusOf(t, s.process, "VmHWM")
	stop()
	a.clients.Wait()
	t.Logf("VmHWM %d MB (from %d MB); %d served, %d refused, %d otherwise; another key: %d runs, the slowest %v",
		peak>>10, before>>10, a.served.Load(), a.refused.Load(), a.other.Load(), runs, slowest.Round(time.Millisecond))
	if peak > (inFlightMB+slackMB)<<10 {
		t.Errorf("the server took %d MB, with a budget of %d MB", peak>>10, inFlightMB)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
