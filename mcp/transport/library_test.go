package transport_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// Each test of this file shows a defect of the library alone, without this package. When one
// fails, the library has been fixed, and the workaround that the test names can be removed.

const (
	initialize = `{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "NAME", "version": "0"}}}`
	modernMeta = `"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"}, "io.modelcontextprotocol/clientCapabilities": {}}`
	ping       = `{"jsonrpc": "2.0", "id": 2, "method": "ping"}`
)

func call(id int, tool string) string {
	return fmt.Sprintf(`{"jsonrpc": "2.0", "id": %d, "method": "tools/call", "params": {"name": %q, "arguments": {}}}`, id, tool)
}

// library is a bare server of the library, with a tool "wait" that waits until it is cancelled.
type library struct {
	*mcpserver.MCPServer
	started, cancelled chan struct{}
}

func newLibrary(options ...mcpserver.ServerOption) library {
	options = append(options, mcpserver.WithToolCapabilities(true), mcpserver.WithResourceCapabilities(false, false))
	l := library{mcpserver.NewMCPServer("test", "1", options...), make(chan struct{}, 10), make(chan struct{}, 10)}
	l.AddTool(mcpsdk.NewTool("wait"), func(ctx context.Context, _ mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		l.started <- struct{}{}
		<-ctx.Done()
		l.cancelled <- struct{}{}
		return mcpsdk.NewToolResultText("cancelled"), nil
	})
	return l
}

func (l library) streamable(options ...mcpserver.StreamableHTTPOption) *mcpserver.StreamableHTTPServer {
	return mcpserver.NewStreamableHTTPServer(l.MCPServer, append(options, mcpserver.WithDisableLocalhostProtection(true))...)
}

// ask sends a request. The header consists of pairs of names and values.
func ask(ctx context.Context, handler http.Handler, method, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, "/mcp", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func begin(ctx context.Context, handler http.Handler) (session string) {
	return ask(ctx, handler, http.MethodPost, initialize).Header().Get("Mcp-Session-Id")
}

// fixed reports that the library has been fixed.
func fixed(t *testing.T, workaround string, got any) {
	t.Helper()
	t.Errorf("the library has been fixed: remove %s (%v)", workaround, got)
}

func TestLibraryMethodsAndSessions(t *testing.T) {
	handler := newLibrary().streamable()
	for name, test := range map[string]struct {
		method, body string
		defect       int
	}{
		"another method is not found":            {http.MethodPut, "", http.StatusNotFound},
		"a request without a session is unknown": {http.MethodPost, ping, http.StatusNotFound},
		"no session can be ended":                {http.MethodDelete, "", http.StatusOK},
	} {
		if w := ask(t.Context(), handler, test.method, test.body); w.Code != test.defect {
			fixed(t, "the case of sessions.checked for "+name, w.Code)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if w := ask(ctx, handler, http.MethodGet, ""); w.Code != http.StatusOK {
		fixed(t, "the check of GET in sessions.checked: a stream needs no session", w.Code)
	}
}

func TestLibraryRejectsBatches(t *testing.T) {
	handler := newLibrary().streamable()
	w := ask(t.Context(), handler, http.MethodPost, "["+ping+"]", "Mcp-Session-Id", begin(t.Context(), handler))
	if !strings.Contains(w.Body.String(), fmt.Sprint(mcpsdk.PARSE_ERROR)) {
		fixed(t, "serveBatch", w.Body)
	}
}

func TestLibraryCancelsCallsOfStrangers(t *testing.T) {
	l := newLibrary()
	handler := l.streamable()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	over := make(chan struct{})
	go func() {
		defer close(over)
		body := `{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {` + modernMeta + `, "name": "wait", "arguments": {}}}`
		ask(ctx, handler, http.MethodPost, body, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "wait")
	}()
	<-l.started
	cancel := `{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7, ` + modernMeta + `}}`
	ask(t.Context(), handler, http.MethodPost, cancel, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "notifications/cancelled")
	select {
	case <-l.cancelled:
	case <-time.After(10 * time.Second):
		fixed(t, "the dropping of modern notifications in serveMessage", "the call runs")
	}
	leave()
	<-over
}

func TestLibraryConfusesIDsAndAnswersCancelledCalls(t *testing.T) {
	l := newLibrary()
	handler := l.streamable()
	session := begin(t.Context(), handler)
	answer := make(chan *httptest.ResponseRecorder)
	go func() {
		answer <- ask(t.Context(), handler, http.MethodPost, call(7, "wait"), "Mcp-Session-Id", session)
	}()
	<-l.started
	ask(t.Context(), handler, http.MethodPost, `{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "7"}}`, "Mcp-Session-Id", session)
	select {
	case <-l.cancelled:
	case <-time.After(10 * time.Second):
		fixed(t, "the key of the requests in unanswered: the id \"7\" does not cancel 7", "")
		ask(t.Context(), handler, http.MethodPost, `{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}`, "Mcp-Session-Id", session)
	}
	if w := <-answer; !strings.Contains(w.Body.String(), "cancelled") {
		fixed(t, "sessions.open: a cancelled call is not answered", w.Body)
	}
}

func TestLibraryRejectsPlainNotifications(t *testing.T) {
	w := ask(t.Context(), newLibrary().streamable(), http.MethodPost, `{"jsonrpc": "2.0", "method": "notifications/initialized"}`,
		"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "notifications/initialized")
	if w.Code != http.StatusBadRequest {
		fixed(t, "the acceptance of modern notifications in serveMessage", w.Code)
	}
}

func TestLibrarySessionsDoNotEnd(t *testing.T) {
	handler := newLibrary().streamable()
	session := begin(t.Context(), handler)
	ask(t.Context(), handler, http.MethodDelete, "", "Mcp-Session-Id", session)
	if w := ask(t.Context(), handler, http.MethodPost, ping, "Mcp-Session-Id", session); w.Code != http.StatusOK {
		fixed(t, "ownSessions.Terminate", w.Code)
	}
	// The library's other manager does end them, but knows none after a restart.
	before, after := newLibrary().streamable(mcpserver.WithStateful(true)), newLibrary().streamable(mcpserver.WithStateful(true))
	if w := ask(t.Context(), after, http.MethodPost, ping, "Mcp-Session-Id", begin(t.Context(), before)); w.Code != http.StatusNotFound {
		fixed(t, "sessions in favour of WithStateful", w.Code)
	}
}

func TestLibraryKeepsClientInfo(t *testing.T) {
	var session mcpserver.ClientSession
	hooks := new(mcpserver.Hooks)
	hooks.AddAfterInitialize(func(ctx context.Context, _ any, _ *mcpsdk.InitializeRequest, _ *mcpsdk.InitializeResult) {
		session = mcpserver.ClientSessionFromContext(ctx)
	})
	long := strings.Repeat("x", 100_000)
	ask(t.Context(), newLibrary(mcpserver.WithHooks(hooks)).streamable(), http.MethodPost, strings.Replace(initialize, "NAME", long, 1))
	if kept := session.(mcpserver.SessionWithClientInfo).GetClientInfo().Name; kept != long {
		fixed(t, "ForgetClients", len(kept))
	}
}

func TestLibraryKeepsAnyNumberOfSessions(t *testing.T) {
	l := newLibrary()
	handler := l.streamable()
	first := begin(t.Context(), handler)
	for range 3000 {
		begin(t.Context(), handler)
	}
	if err := l.SendNotificationToSpecificClient(first, "x", nil); errors.Is(err, mcpserver.ErrSessionNotFound) {
		fixed(t, "sessions.keeping", err)
	}
}

// blockedWriter is an answer that the client does not read. Its first write, if any, is noted.
type blockedWriter struct {
	*httptest.ResponseRecorder
	begun, released chan struct{}
}

func newBlockedWriter() blockedWriter {
	return blockedWriter{httptest.NewRecorder(), make(chan struct{}, 1), make(chan struct{})}
}

func (b blockedWriter) Write([]byte) (int, error) {
	select {
	case b.begun <- struct{}{}:
	default:
	}
	<-b.released
	return 0, io.ErrClosedPipe
}

func TestLibraryMixesNotificationsOfCalls(t *testing.T) {
	l := newLibrary()
	l.AddTool(mcpsdk.NewTool("notify"), func(ctx context.Context, _ mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		for range 60 {
			if err := l.SendNotificationToClient(ctx, "notifications/progress", nil); err != nil {
				return nil, err
			}
		}
		<-ctx.Done()
		return mcpsdk.NewToolResultText("done"), nil
	})
	handler := l.streamable()
	session := begin(t.Context(), handler)
	ctx, leave := context.WithCancel(t.Context())
	serve := func(w http.ResponseWriter, body string) (over chan struct{}) {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/mcp", strings.NewReader(body))
		r.Header = http.Header{"Content-Type": {"application/json"}, "Mcp-Session-Id": {session}}
		over = make(chan struct{})
		go func() {
			defer close(over)
			handler.ServeHTTP(w, r)
		}()
		return over
	}
	quiet, own := newBlockedWriter(), newBlockedWriter()
	quietOver := serve(quiet, call(2, "wait"))
	<-l.started
	ownOver := serve(own, call(3, "notify")) // its own answer takes one notification, as its client does not read
	select {
	case <-quiet.begun:
	case <-time.After(10 * time.Second):
		fixed(t, "stream and Notify", "notifications stay with their call")
	}
	leave()
	close(quiet.released)
	close(own.released)
	<-quietOver
	<-ownOver
}

func TestLibraryIgnoresAccept(t *testing.T) {
	l := newLibrary()
	l.AddTool(mcpsdk.NewTool("notify"), func(ctx context.Context, _ mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		return mcpsdk.NewToolResultText("done"), l.SendNotificationToClient(ctx, "notifications/progress", nil)
	})
	handler := l.streamable()
	w := ask(t.Context(), handler, http.MethodPost, call(2, "notify"), "Accept", "application/json", "Mcp-Session-Id", begin(t.Context(), handler))
	if kind := w.Header().Get("Content-Type"); kind != "text/event-stream" {
		fixed(t, "the case of Notify for clients that do not accept events", kind)
	}
}

func TestLibraryShutdownLeavesSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := newLibrary().streamable()
		ctx, leave := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			body := `{"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": {` + modernMeta + `, "notifications": {"toolsListChanged": true}}}`
			ask(ctx, handler, http.MethodPost, body, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "subscriptions/listen")
		}()
		synctest.Wait()
		if err := handler.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		select {
		case <-over:
			fixed(t, "endWith", "the stream has ended")
		default:
		}
		leave()
		<-over
	})
}

func TestLibraryRepeatsWhatIsLong(t *testing.T) {
	long := strings.Repeat("#", 100_000)
	handler := newLibrary().streamable()
	session := begin(t.Context(), handler)
	if w := ask(t.Context(), handler, http.MethodPost, ping, "Mcp-Session-Id", session, "Mcp-Protocol-Version", long); !strings.Contains(w.Body.String(), long) {
		fixed(t, "headerFault", w.Body.Len())
	}
	for name, body := range map[string]string{"a tool's name": call(2, long), "a URI": `{"jsonrpc": "2.0", "id": 2, "method": "resources/read", "params": {"uri": "` + long + `"}}`} {
		if w := ask(t.Context(), handler, http.MethodPost, body, "Mcp-Session-Id", session); !strings.Contains(w.Body.String(), long) {
			fixed(t, "maxRepeated for "+name, w.Body.Len())
		}
	}
}

func TestLibraryHidesMissingResources(t *testing.T) {
	l := newLibrary()
	l.AddResource(mcpsdk.NewResource("x://a", "a"), func(context.Context, mcpsdk.ReadResourceRequest) ([]mcpsdk.ResourceContents, error) {
		return nil, mcpserver.ErrResourceNotFound
	})
	answer := l.HandleMessage(t.Context(), []byte(`{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "x://a"}}`))
	if failure, isError := answer.(mcpsdk.JSONRPCError); !isError || failure.Error.Code != mcpsdk.INTERNAL_ERROR {
		fixed(t, "mapNotFound of package mcp", answer)
	}
}

// listen serves a client over the library's stdio transport.
func (l library) listen(ctx context.Context, options ...mcpserver.StdioOption) (in *io.PipeWriter, out *io.PipeReader, over chan struct{}) {
	serverIn, in := io.Pipe()
	out, serverOut := io.Pipe()
	server := mcpserver.NewStdioServer(l.MCPServer)
	for _, option := range append(options, mcpserver.WithErrorLogger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelError))) {
		option(server)
	}
	over = make(chan struct{})
	go func() {
		defer close(over)
		_ = server.Listen(ctx, serverIn, serverOut) // which error it returns does not matter here
	}()
	return in, out, over
}

func write(t *testing.T, in io.Writer, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLibraryStdioHoldsAnswers(t *testing.T) {
	in, out, over := newLibrary().listen(t.Context())
	accepted := make(chan error, 1)
	go func() {
		_, err := io.WriteString(in, strings.Repeat(ping+"\n", 500)) // the client reads no answer
		accepted <- err
	}()
	select {
	case err := <-accepted:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		fixed(t, "otherRequests and answers of peer for stdio", "not all requests are read")
	}
	_, _ = out.Close(), in.Close()
	<-over
}

func TestLibraryStdioDoesNotEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in, out, over := newLibrary().listen(ctx)
	write(t, in, ping)
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // the rest of the answer stays unread
		t.Fatal(err)
	}
	cancel()
	select {
	case <-over:
		fixed(t, "finish of peer", "it has ended")
	case <-time.After(500 * time.Millisecond):
	}
	_, _ = out.Close(), in.Close()
	<-over
}

func TestLibraryStdioCannotCancelWaitingCalls(t *testing.T) {
	l := newLibrary()
	in, out, over := l.listen(t.Context(), mcpserver.WithWorkerPoolSize(1))
	go func() { _, _ = io.Copy(io.Discard, out) }()
	write(t, in, initialize, call(2, "wait"))
	<-l.started
	write(t, in, call(3, "wait"))
	for _, id := range []int{3, 2} { // the waiting call, then the running one
		write(t, in, fmt.Sprintf(`{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": %d}}`, id))
	}
	<-l.cancelled
	select {
	case <-l.started:
	case <-time.After(10 * time.Second):
		fixed(t, "request.cancelled of peer", "the waiting call did not run")
	}
	_ = in.Close()
	<-over
	_ = out.Close()
}

func TestLibraryStdioRejectsBatches(t *testing.T) {
	in, out, over := newLibrary().listen(t.Context())
	write(t, in, "["+ping+"]")
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.Contains(lines.Text(), fmt.Sprint(mcpsdk.PARSE_ERROR)) {
		fixed(t, "the batches of peer", lines.Text())
	}
	_ = in.Close()
	<-over
}

func TestLibrarySSEHoldsAnswers(t *testing.T) {
	handler := mcpserver.NewSSEServer(newLibrary().MCPServer,
		mcpserver.WithSSEDisableLocalhostProtection(true),
		mcpserver.WithSessionIDGenerator(func(context.Context, *http.Request) (string, error) { return "s", nil }))
	stream := newBlockedWriter()
	ctx, leave := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		handler.SSEHandler().ServeHTTP(stream, httptest.NewRequestWithContext(ctx, http.MethodGet, "/sse", nil))
	}()
	<-stream.begun
	for range 2000 {
		w := httptest.NewRecorder()
		handler.MessageHandler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/message?sessionId=s", strings.NewReader(ping)))
		if w.Code != http.StatusAccepted {
			fixed(t, "sse and peer for SSE", w.Code)
			break
		}
	}
	leave()
	close(stream.released)
	<-over
}
