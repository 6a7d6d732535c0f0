package httpapi

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// forward passes requests on to the server that has their session, or their protocol session.
// That server checks and charges them like those of its own clients. This one has authenticated
// them, bounds the time for their bodies, and charges them for the transfer.
//
// A request that another server has passed on is never passed on again. If this server is
// leaving, it sends such a request back, unless it came before.
func (a *api) forward(p policy, next http.Handler) http.Handler {
	if a.opts.Peers == nil || p.public || p.ignoresBody {
		return next
	}
	peers := a.opts.Peers
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answered, leaving := peers.enter(p.opensStream(r))
		defer answered()
		switch peer := peers.of(r); {
		case isFromPeer(r.Context()) && leaving:
			writeDetail(w, http.StatusMisdirectedRequest, "the server is shutting down")
		case isFromPeer(r.Context()), peer == execution.Peer{}, !a.pass(p, w, r, peer):
			next.ServeHTTP(w, r)
		}
	})
}

// pass passes a request on and answers it. It returns false, and has read and written nothing,
// if this server should serve the request: the other one is leaving, or is gone.
func (a *api) pass(p policy, w http.ResponseWriter, r *http.Request, peer execution.Peer) (answered bool) {
	account := a.memory.budgetFor(p, r).Open(a.memory.owner(r))
	defer account.Close()
	if err := account.Take(headerCost(r) + 2*relayBytes); err != nil {
		refuseMemory(p, w, r, execution.AsError(err))
		return true
	}
	attempt := newAttempt(r, peer)
	defer attempt.body.end()
	answer, err := a.opts.Peers.Transport.RoundTrip(attempt.request)
	if err != nil {
		return a.unanswered(w, r, attempt, peer, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode == http.StatusMisdirectedRequest && attempt.body.end() {
		return false
	}
	relay(w, answer)
	return true
}

// unanswered handles a request that another server has not answered. It returns false if that
// server is gone, and cannot have begun with the request.
func (a *api) unanswered(w http.ResponseWriter, r *http.Request, attempt *attempt, peer execution.Peer, err error) (answered bool) {
	unread := attempt.body.end()
	switch {
	case r.Context().Err() != nil:
		a.writeError(w, r, execution.CancelledError(r.Context()))
	case attempt.body.fault != nil:
		a.writeError(w, r, attempt.body.fault)
	case !unread, attempt.sent.Load() && r.ContentLength == 0 && !onlyReads(r):
		a.opts.Log.WarnContext(r.Context(), "another server did not answer", "request", requestID(r.Context()), "holder", peer.Name, "error", err)
		writeDetail(w, http.StatusBadGateway, "the server that holds the session ended the connection; it may have made the call")
	case a.opts.Peers.awaitEnd(r, peer):
		return false
	default:
		a.writeError(w, r, &execution.Error{
			Code: execution.Unavailable, Message: "the server that holds the session cannot be reached; try again", Err: err,
		})
	}
	return true
}

// attempt is a request to another server.
type attempt struct {
	request *http.Request
	body    *passedBody
	sent    atomic.Bool // its header, at least
}

// newAttempt returns a client's request as one to another server. It waits with the body until
// the other server asks for that: a server that is leaving does not, so that the request can
// still be served here.
func newAttempt(r *http.Request, peer execution.Peer) *attempt {
	a := &attempt{body: &passedBody{body: r.Body}}
	out := r.Clone(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{WroteHeaders: func() { a.sent.Store(true) }}))
	out.URL.Scheme, out.URL.Host, out.RequestURI = "https", peer.Address, ""
	removeHops(out.Header)
	if _, given := out.Header["User-Agent"]; !given {
		out.Header.Set("User-Agent", "") // not that of this program
	}
	out.Close, out.TransferEncoding, out.Body = false, nil, http.NoBody
	if r.ContentLength != 0 {
		out.Body = a.body
		out.Header.Set("Expect", "100-continue")
	}
	a.request = out
	return a
}

// passedBody is the body of a request that is passed on. The transport may read it for a moment
// longer than the request is handled, which the middleware of this server must not notice.
type passedBody struct {
	body io.Reader

	mu    sync.Mutex
	begun bool
	over  bool
	fault error // of the client's connection
}

var errPassedOn = errors.New("the request is over")

// Read implements [io.Reader].
func (b *passedBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, errPassedOn
	}
	b.begun = true
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.fault = err
	}
	return n, err
}

// Close does nothing: the server closes its request's body.
func (b *passedBody) Close() error { return nil }

// end ends reading, and reports whether nothing was read.
func (b *passedBody) end() (unread bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return !b.begun
}

// relay answers with the answer of another server, as it arrives.
func relay(w http.ResponseWriter, answer *http.Response) {
	removeHops(answer.Header)
	maps.Copy(w.Header(), answer.Header) // replaces what the middleware here has set
	control := http.NewResponseController(w)
	extend := func() { _ = control.SetWriteDeadline(time.Now().Add(writeTime)) } // not for test recorders
	extend()
	// The library's server would otherwise read what is left of the body first, and the transport
	// would find that closed, and end its connection: it may still look for the body's end.
	_ = control.EnableFullDuplex() // not for test recorders
	w.WriteHeader(answer.StatusCode)
	_ = control.Flush() // a stream's client waits for its header
	buffer := make([]byte, relayBytes)
	for {
		n, err := answer.Body.Read(buffer)
		if n > 0 {
			extend()
			if _, err := w.Write(buffer[:n]); err != nil {
				return // the client is gone
			}
			_ = control.Flush()
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			panic(http.ErrAbortHandler) // or the answer would seem to be complete
		}
	}
}

// relayBytes is how much of an answer is held while it is passed on.
const relayBytes = 64 << 10

// removeHops removes the headers of one connection (RFC 9110, section 7.6.1).
func removeHops(header http.Header) {
	for _, names := range slices.Clone(header["Connection"]) {
		for name := range strings.SplitSeq(names, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		header.Del(name)
	}
}
