package transport

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// keepAlive keeps proxies from closing an SSE stream on which nothing
	// happens.
	keepAlive = 15 * time.Second
	// streamRequests is how many requests of one stream may wait for their answer
	// to be written.
	streamRequests = 64
)

// sse is the legacy HTTP transport: what a client says comes in requests, which
// are answered at once, and what it is told goes out on its stream. A call ends
// with its stream.
type sse struct {
	transports *Transports

	mu      sync.Mutex
	streams map[string]*sseStream
}

// sseStream is a client's stream, and the context that its requests have.
type sseStream struct {
	*peer
	requests context.Context //nolint:containedctx // it is that of the stream's own request
	admitted chan struct{}
}

func (t *Transports) newSSE() *sse {
	return &sse{transports: t, streams: make(map[string]*sseStream)}
}

// serveStream is a client's stream.
func (s *sse) serveStream(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		refuseMethod(w, http.MethodGet)
		return
	}
	id := rand.Text() + ownerEnding(r.Context())
	p := s.transports.newPeer(id)
	defer p.leave()
	ctx, err := p.join(withHandshake(r.Context()))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer p.part(ctx)
	s.open(id, &sseStream{peer: p, requests: ctx, admitted: make(chan struct{}, streamRequests)})
	defer s.close(id)
	defer context.AfterFunc(ctx, p.leave)()

	w.Header().Set("Content-Type", eventStream)
	w.Header().Set("Cache-Control", "no-cache")
	beat := time.NewTicker(keepAlive)
	defer beat.Stop()
	if writeEvent(w, "event: endpoint\ndata: %s?sessionId=%s\n\n", MessagePath, id) != nil {
		return
	}
	p.write(func(message []byte) error {
		if message == nil {
			return writeEvent(w, ": \n\n")
		}
		return writeEvent(w, "event: message\ndata: %s\n\n", message)
	}, beat.C)
}

func writeEvent(w http.ResponseWriter, format string, args ...any) error {
	if _, err := fmt.Fprintf(w, format, args...); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

// withHandshake offers revisions of the protocol with a handshake alone: requests
// of the newest must have headers, which no client sends over SSE.
func withHandshake(ctx context.Context) context.Context {
	versions := slices.DeleteFunc(slices.Clone(mcpsdk.ValidProtocolVersions), mcpsdk.IsModernProtocol)
	return mcpserver.WithSupportedProtocolVersions(ctx, versions)
}

func (s *sse) open(id string, stream *sseStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[id] = stream
}

func (s *sse) close(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, id)
}

func (s *sse) stream(id string) *sseStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

// serveMessage takes a message for a stream.
func (s *sse) serveMessage(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		refuseMethod(w, http.MethodPost)
		return
	}
	stream := s.stream(r.URL.Query().Get("sessionId"))
	if stream == nil {
		http.Error(w, unknownSession, http.StatusNotFound)
		return
	}
	message, ok := readMessage(w, r)
	if !ok {
		return
	}
	if !json.Valid(message) {
		http.Error(w, "the body must be a message in JSON", http.StatusBadRequest)
		return
	}
	if isBatch(message) {
		http.Error(w, "this transport takes no batches", http.StatusBadRequest)
		return
	}
	if !stream.admit(r, message) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests wait for their answers to be read; read them, or try again later", http.StatusTooManyRequests)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// admit takes a message, unless too many wait for answers already. What calls off a
// request is always taken. The account of the message's own request stays open until
// its answer is written.
func (s *sseStream) admit(r *http.Request, message []byte) bool {
	if open(message).isNotification() {
		s.take(s.requests, message)
		return true
	}
	select {
	case s.admitted <- struct{}{}:
	default:
		return false
	}
	account := execution.AccountOf(r.Context())
	account.Share()
	s.takeOne(execution.WithAccount(s.requests, account), message, func() {
		<-s.admitted
		account.Close()
	})
	return true
}

func refuseMethod(w http.ResponseWriter, allowed ...string) {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
}
