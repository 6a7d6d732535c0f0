package transport

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

const (
	// keepAlive is how often an idle stream gets a comment, so that proxies do not close it.
	keepAlive = 15 * time.Second
	// streamRequests bounds the requests of one stream that wait for their answers to be
	// written.
	streamRequests = 64
)

// sse is the legacy HTTP transport: messages of the client are requests of their own, which
// are accepted at once, and answers are events on the client's stream. The end of the stream
// cancels its calls.
type sse struct {
	transports *Transports
	streams    sync.Map // of *sseStream, by the protocol session's id
}

// sseStream is a client's stream, with the context for its requests.
type sseStream struct {
	*peer
	requests context.Context //nolint:containedctx // it is the context of the stream's own request
	admitted chan struct{}
}

// serveStream serves a client's stream.
func (s *sse) serveStream(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		refuseMethod(w, http.MethodGet)
		return
	}
	id := rand.Text() + instanceSuffix(s.transports.opts.Instance) + ownerSuffix(r.Context())
	p := s.transports.newPeer(id)
	defer p.close()
	ctx, err := p.register(withHandshake(r.Context()))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer p.unregister(ctx)
	s.streams.Store(id, &sseStream{peer: p, requests: ctx, admitted: make(chan struct{}, streamRequests)})
	defer s.streams.Delete(id)
	defer context.AfterFunc(ctx, p.close)()

	wire.EventHeader(w.Header())
	beat := time.NewTicker(keepAlive)
	defer beat.Stop()
	if wire.SendEvent(w, wire.Event("endpoint", fmt.Appendf(nil, "%s?sessionId=%s", MessagePath, id))) != nil {
		return
	}
	p.writeAll(func(message []byte) error {
		if message == nil {
			return wire.SendEvent(w, []byte(": \n\n"))
		}
		return wire.SendEvent(w, wire.Event("message", message))
	}, beat.C)
}

// withHandshake offers only revisions of the protocol that have a handshake. Newer ones require
// headers of requests over HTTP, which no client sends over SSE, and the library does not ask
// for them there.
func withHandshake(ctx context.Context) context.Context {
	versions := slices.DeleteFunc(slices.Clone(mcpsdk.ValidProtocolVersions), mcpsdk.IsModernProtocol)
	return mcpserver.WithSupportedProtocolVersions(ctx, versions)
}

// serveMessage accepts a message for a stream.
func (s *sse) serveMessage(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		refuseMethod(w, http.MethodPost)
		return
	}
	found, ok := s.streams.Load(r.URL.Query().Get("sessionId"))
	if !ok {
		http.Error(w, unknownSession, http.StatusNotFound)
		return
	}
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	m := parse(body)
	switch {
	case !m.valid:
		http.Error(w, "the body must be a message in JSON", http.StatusBadRequest)
	case m.isBatch():
		http.Error(w, "this transport does not accept batches", http.StatusBadRequest)
	case !found.(*sseStream).admit(r, m):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests wait for their answers to be read: read them, or try again later", http.StatusTooManyRequests)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// admit handles a message, unless too many wait for answers. Notifications, such as
// cancellations, are always admitted. The account of the message's own request stays open
// until the answer is being written.
func (s *sseStream) admit(r *http.Request, m message) bool {
	if m.isNotification() {
		s.receive(s.requests, m)
		return true
	}
	select {
	case s.admitted <- struct{}{}:
	default:
		return false
	}
	account := execution.AccountOf(r.Context())
	account.Share()
	s.dispatch(execution.WithAccount(s.requests, account), m, func() {
		<-s.admitted
		account.Close()
	})
	return true
}

func refuseMethod(w http.ResponseWriter, allowed ...string) {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
}
