package httpapi

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Peers are the other servers that share sessions with this one. They reach each other by
// addresses of their own, see [NewPeerServer].
type Peers struct {
	// Holder returns the other server that holds a session, if it is alive.
	Holder func(id string) execution.Peer
	// Peer returns another server by its name, if it is alive.
	Peer func(name string) execution.Peer
	// ServerOf returns the name of the server whose protocol session a request to another
	// door belongs to, or "".
	ServerOf func(r *http.Request) string
	// Release lets other servers have a session when its calls that are under way are over.
	Release func(ctx context.Context, id string) error
	// Transport sends requests to other servers, see [NewPeerTransport].
	Transport http.RoundTripper
	// Patience is how long a server that cannot be reached may still seem alive: a request for it
	// waits so long for the news that it has ended.
	Patience time.Duration

	mu       sync.Mutex
	leaving  bool
	underWay int           // requests that came before, without streams
	quiet    chan struct{} // closed when leaving and there are none; nil until then
}

// Leave has this server send back what other servers pass on to it from now on: it is about to
// shut down. It waits until the requests that came before are answered, except streams, or ctx
// ends. It must be called once.
func (p *Peers) Leave(ctx context.Context) {
	p.mu.Lock()
	p.leaving, p.quiet = true, make(chan struct{})
	p.settleLocked()
	p.mu.Unlock()
	select {
	case <-p.quiet:
	case <-ctx.Done():
	}
}

// enter counts a request until it is answered, unless it is a stream, or this server is leaving.
func (p *Peers) enter(stream bool) (answered func(), leaving bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stream || p.leaving {
		return func() {}, p.leaving
	}
	p.underWay++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.underWay--
		p.settleLocked()
	}, false
}

// settleLocked ends the wait of Leave when no request is under way. It needs p.mu.
func (p *Peers) settleLocked() {
	if p.leaving && p.underWay == 0 {
		close(p.quiet)
	}
}

// of returns the server that a request should be passed on to.
func (p *Peers) of(r *http.Request) execution.Peer {
	if id := r.PathValue("session_id"); id != "" {
		return p.Holder(id)
	}
	if name := p.ServerOf(r); name != "" {
		return p.Peer(name)
	}
	return execution.Peer{}
}

// awaitEnd waits until a server that a request should be passed on to is known to have ended. It
// returns false if it is not.
func (p *Peers) awaitEnd(r *http.Request, peer execution.Peer) bool {
	const pause = 20 * time.Millisecond
	for end := time.Now().Add(p.Patience); p.of(r) == peer; {
		select {
		case <-r.Context().Done():
			return false
		case <-time.After(pause):
		}
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

const (
	// peerDialTime bounds the connection to another server, handshake included.
	peerDialTime = 3 * time.Second
	// acceptTime bounds the time until another server asks for a body: it authenticates the
	// request first. After that the body is sent in any case.
	acceptTime = 30 * time.Second
	// idlePeerConns bounds the idle connections to each other server.
	idlePeerConns = 64
	// moreHeaderBytes is what a server may add to the header of a request.
	moreHeaderBytes = 1 << 10
)

// NewPeerTransport returns a transport to other servers, which dials as given and trusts them by a
// configuration of TLS.
func NewPeerTransport(dialer *net.Dialer, trust *tls.Config) *http.Transport {
	dialer.Timeout = peerDialTime
	return &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: trust, TLSHandshakeTimeout: peerDialTime, ExpectContinueTimeout: acceptTime,
		MaxIdleConnsPerHost: idlePeerConns, IdleConnTimeout: idleTime / 2, // before the other server closes them
		DisableCompression: true, // bodies are passed on as they are
	}
}

// releasePath is where other servers ask for a session.
const (
	peerPrefix  = "/peer/"
	releasePath = peerPrefix + "v1/sessions/{session_id}/release"
)

type fromPeerKey struct{}

// isFromPeer reports whether another server has passed a request on.
func isFromPeer(ctx context.Context) bool { return ctx.Value(fromPeerKey{}) != nil }

// NewPeerServer returns the server for other servers, beside that for clients. The caller
// provides a listener that admits no other clients. What other servers pass on is served as what
// comes from clients.
func NewPeerServer(clients *http.Server, peers *Peers, log *slog.Logger) *http.Server {
	own := http.NewServeMux()
	own.HandleFunc("POST "+releasePath, func(w http.ResponseWriter, r *http.Request) {
		if err := peers.Release(r.Context(), r.PathValue("session_id")); err != nil {
			log.WarnContext(r.Context(), "a session could not be released for another server", "error", err)
			writeDetail(w, statusOf(execution.AsError(err).Code), execution.AsError(err).Explain())
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, peerPrefix) {
				own.ServeHTTP(w, r)
				return
			}
			r = r.WithContext(context.WithValue(r.Context(), fromPeerKey{}, true))
			r.TLS = nil // the client's connection has none, which decides what its URLs are
			clients.Handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: readHeaderTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaderBytes + moreHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), DisableGeneralOptionsHandler: true,
	}
}

// AskRelease asks the server that holds a session to release it, and returns when it has.
func AskRelease(ctx context.Context, transport http.RoundTripper, held *execution.HeldError) error {
	url := "https://" + held.Peer + strings.Replace(releasePath, "{session_id}", held.Session, 1)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusNoContent {
		const most = 1000
		text, _ := io.ReadAll(io.LimitReader(answer.Body, most))
		return fmt.Errorf("server %s answers %s: %s", held.Holder, answer.Status, text)
	}
	return nil
}
