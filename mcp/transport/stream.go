package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"mime"
	"net/http"
	"strings"
	"sync"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/wire"
)

// stream is the answer to a request over streamable HTTP. Notifications of a call are sent on
// the call's own answer. The library (v1.2.1) has one queue for all requests of a protocol
// session: any request takes the notifications of another's call, out of order, or drops them.
type stream struct {
	http.ResponseWriter
	header http.Header // the library's, which locks it in its own way
	events bool        // the client accepts events

	mu    sync.Mutex
	begun bool // by the library or by us
	ours  bool // begun by us, so that the library's answer becomes an event
	ended bool // no more notifications can be sent
}

type streamKey struct{}

// withStream puts the stream of a call into its context.
func withStream(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		s := &stream{ResponseWriter: w, header: w.Header().Clone(), events: acceptsEvents(r.Header)}
		defer s.end(r)
		next.ServeHTTP(s, r.WithContext(context.WithValue(r.Context(), streamKey{}, s)))
	})
}

func acceptsEvents(header http.Header) bool {
	for accepted := range strings.SplitSeq(strings.Join(header.Values("Accept"), ","), ",") {
		switch kind, _, _ := mime.ParseMediaType(accepted); kind {
		case wire.EventStream, "text/*", "*/*":
			return true
		}
	}
	return false
}

// Notify sends a notification to the client of a call, before the answer to the call.
func Notify(ctx context.Context, server *mcpserver.MCPServer, method string, params map[string]any) error {
	s, ok := ctx.Value(streamKey{}).(*stream)
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // a client that has cancelled the call no longer knows the token of its progress
	case !ok:
		return server.SendNotificationToClient(ctx, method, params)
	case !s.events:
		return nil // the library would answer with events although the client does not accept them
	}
	data, err := json.Marshal(mcpsdk.JSONRPCNotification{
		JSONRPC:      mcpsdk.JSONRPC_VERSION,
		Notification: mcpsdk.Notification{Method: method, Params: mcpsdk.NotificationParams{AdditionalFields: params}},
	})
	if err != nil {
		return err
	}
	return s.send(data)
}

// send sends an event. If the answer has not begun, it becomes a stream of events.
func (s *stream) send(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	if !s.begun {
		s.begun, s.ours = true, true
		wire.EventHeader(s.ResponseWriter.Header())
		s.ResponseWriter.WriteHeader(http.StatusOK)
	}
	return wire.SendEvent(s.ResponseWriter, wire.Event("message", data))
}

// Header returns the header that the library sets.
func (s *stream) Header() http.Header { return s.header }

// WriteHeader begins the library's answer, unless the answer has begun.
func (s *stream) WriteHeader(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answerLocked(status)
}

// answerLocked begins the answer if needed. It prevents notifications within or after an
// answer that is not an event.
func (s *stream) answerLocked(status int) {
	s.ended = s.header.Get("Content-Type") != wire.EventStream
	if !s.begun {
		s.begun = true
		maps.Copy(s.ResponseWriter.Header(), s.header)
		s.ResponseWriter.WriteHeader(status)
	}
}

// Write writes the library's answer, as an event if we have begun the stream.
func (s *stream) Write(data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answerLocked(http.StatusOK)
	if s.ours && s.ended {
		_, err := s.ResponseWriter.Write(wire.Event("message", bytes.TrimSpace(data)))
		return len(data), err
	}
	return s.ResponseWriter.Write(data)
}

// Flush serves handlers that ask for a [http.Flusher] by its type.
func (s *stream) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		_ = http.NewResponseController(s.ResponseWriter).Flush() // the client may be gone
	}
}

// end ends the stream. A request that was cancelled has no answer, but its POST has one, so
// that the client does not wait: no events, or no body if it accepts none.
func (s *stream) end(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	switch {
	case s.begun || !isCancelled(r.Context()):
	case s.events:
		wire.EventHeader(s.ResponseWriter.Header())
		s.ResponseWriter.WriteHeader(http.StatusOK)
	default:
		s.ResponseWriter.WriteHeader(http.StatusAccepted)
	}
}

// Unwrap serves [http.ResponseController].
func (s *stream) Unwrap() http.ResponseWriter { return s.ResponseWriter }
