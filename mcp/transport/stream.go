package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"strings"
	"sync"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// stream is the answer to a request over streamable HTTP. What a call has to
// tell before it ends goes out on the call's own stream. The library (v1.2.1)
// has one queue for all requests of a session: whichever looks first takes what
// another's call tells, out of order, or drops it.
type stream struct {
	http.ResponseWriter
	header http.Header // the library's, which locks it in its own way

	mu    sync.Mutex
	begun bool // by whoever came first
	ours  bool // so that what the library answers becomes an event
	ended bool // there is nobody to tell any more
}

const eventStream = "text/event-stream"

type streamKey struct{}

// withStream lets calls find their stream. That of a client that takes no events
// is nil.
func withStream(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var s *stream
		switch {
		case r.Method != http.MethodPost:
			next.ServeHTTP(w, r)
			return
		case acceptsEvents(r.Header):
			s = &stream{ResponseWriter: w, header: w.Header().Clone()}
			defer s.end()
			w = s
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), streamKey{}, s)))
	})
}

func acceptsEvents(header http.Header) bool {
	for accepted := range strings.SplitSeq(strings.Join(header.Values("Accept"), ","), ",") {
		switch kind, _, _ := mime.ParseMediaType(accepted); kind {
		case eventStream, "text/*", "*/*":
			return true
		}
	}
	return false
}

// Notify tells the client of a call something, before the call ends.
func Notify(ctx context.Context, server *mcpserver.MCPServer, method string, params map[string]any) error {
	s, ok := ctx.Value(streamKey{}).(*stream)
	switch {
	case !ok:
		return server.SendNotificationToClient(ctx, method, params)
	case s == nil:
		return nil // the library would answer with events all the same
	}
	data, err := json.Marshal(mcpsdk.JSONRPCNotification{
		JSONRPC:      mcpsdk.JSONRPC_VERSION,
		Notification: mcpsdk.Notification{Method: method, Params: mcpsdk.NotificationParams{AdditionalFields: params}},
	})
	if err != nil {
		return err
	}
	return s.tell(data)
}

// tell sends an event, and makes the answer a stream of events if it has not
// begun yet.
func (s *stream) tell(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	if !s.begun {
		s.begun, s.ours = true, true
		header := s.ResponseWriter.Header()
		header.Set("Content-Type", eventStream)
		header.Set("Cache-Control", "no-cache")
		s.ResponseWriter.WriteHeader(http.StatusOK)
	}
	if err := s.eventLocked(data); err != nil {
		return err
	}
	return http.NewResponseController(s.ResponseWriter).Flush()
}

func (s *stream) eventLocked(data []byte) error {
	_, err := fmt.Fprintf(s.ResponseWriter, "event: message\ndata: %s\n\n", bytes.TrimSpace(data))
	return err
}

// Header is the library's alone.
func (s *stream) Header() http.Header { return s.header }

// WriteHeader begins the library's answer, unless it has begun.
func (s *stream) WriteHeader(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answerLocked(status)
}

// answerLocked sees to it that nothing is told within an answer that is no
// event, nor after one.
func (s *stream) answerLocked(status int) {
	s.ended = s.header.Get("Content-Type") != eventStream
	if !s.begun {
		s.begun = true
		maps.Copy(s.ResponseWriter.Header(), s.header)
		s.ResponseWriter.WriteHeader(status)
	}
}

// Write takes the library's answer. If that is no event, it becomes one where
// others came before.
func (s *stream) Write(data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answerLocked(http.StatusOK)
	if s.ours && s.ended {
		return len(data), s.eventLocked(data)
	}
	return s.ResponseWriter.Write(data)
}

// Flush serves handlers that ask for a [http.Flusher] by its type.
func (s *stream) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		_ = http.NewResponseController(s.ResponseWriter).Flush()
	}
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// Unwrap serves [http.ResponseController].
func (s *stream) Unwrap() http.ResponseWriter { return s.ResponseWriter }
