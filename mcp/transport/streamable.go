package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// checked rejects, in front of the library's streamable transport (v1.2.1), what the library
// accepts or answers in another way: other methods, requests without the protocol session that
// they need, and messages that would take much memory.
func (s *sessions) checked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := headerFault(r.Header); fault != "" {
			http.Error(w, fault, http.StatusBadRequest)
			return
		}
		switch r.Method {
		case http.MethodPost:
			s.servePost(w, r, next)
		case http.MethodGet, http.MethodDelete:
			if (message{}).isModern(r.Header) || s.check(w, r) {
				next.ServeHTTP(w, r)
			}
		case http.MethodHead:
			next.ServeHTTP(w, r)
		default:
			refuseMethod(w, http.MethodGet, http.MethodPost, http.MethodDelete)
		}
	})
}

// headerFault names a header of the protocol that is too long, or returns "". The library
// (v1.2.1) repeats these headers in errors.
func headerFault(header http.Header) string {
	for name, values := range header {
		if !strings.HasPrefix(name, "Mcp-") {
			continue
		}
		for _, value := range values {
			if len(name)+len(value) > maxRepeated {
				return tooLong("the header "+execution.Clip(name), len(value), maxRepeated-len(name))
			}
		}
	}
	return ""
}

// check reports whether a request belongs to a protocol session. If not, it answers the
// request.
func (s *sessions) check(w http.ResponseWriter, r *http.Request) bool {
	id := r.Header.Get(sessionIDHeader)
	if id == "" {
		requireSession(w)
		return false
	}
	if ended, err := s.ResolveSessionIdManager(r).Validate(id); ended && r.Method != http.MethodDelete || err != nil {
		http.Error(w, unknownSession, http.StatusNotFound)
		return false
	}
	return true
}

func requireSession(w http.ResponseWriter) {
	http.Error(w, "the header "+sessionIDHeader+" is missing: the answer to initialize contains it", http.StatusBadRequest)
}

// servePost serves a message, or a batch, which revision 2025-03-26 has and the library
// (v1.2.1) rejects.
func (s *sessions) servePost(w http.ResponseWriter, r *http.Request, next http.Handler) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	switch m := parse(body); {
	case !m.isBatch():
		r, over := s.open(r, m)
		defer over()
		s.serveMessage(w, r, m, next)
	case s.check(w, r):
		s.serveBatch(w, r, m, next)
	}
}

// open returns a request with a context that ends when the client cancels the request, and a
// function that must be called when it is over. Since revision 2026-07-28 a client
// cancels a request by closing it.
func (s *sessions) open(r *http.Request, m message) (_ *http.Request, over func()) {
	session := r.Header.Get(sessionIDHeader)
	id, valid := m.decodeID()
	if m.method == "" || !valid || session == "" || m.isModern(r.Header) {
		return r, func() {}
	}
	ctx, _, over := s.unanswered.add(r.Context(), requestKey{session, id})
	return r.WithContext(ctx), over
}

// serveMessage also accepts notifications that belong to no protocol session, and drops them.
// Since revision 2026-07-28 there are no protocol sessions, and a client cancels a call by
// closing its request. The library (v1.2.1) would cancel the call of any client that has the
// same id. It would reject all other notifications, because they lack what only requests must
// declare; the official Go SDK does not declare it.
//
// A cancellation within a protocol session is ours too: the library would cancel the request 1 for
// the id "1", and answer it.
func (s *sessions) serveMessage(w http.ResponseWriter, r *http.Request, m message, next http.Handler) {
	refusal := m.refusal()
	needsSession := m.method != "" && m.method != string(mcpsdk.MethodInitialize) && r.Header.Get(sessionIDHeader) == ""
	switch {
	case refusal != nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(refusal) // the client may be gone
	case m.isNotification() && m.isModern(r.Header):
		w.WriteHeader(http.StatusAccepted)
	case needsSession && !m.isModern(r.Header):
		requireSession(w)
	case m.isCancellation():
		if s.check(w, r) {
			s.unanswered.cancel(r.Header.Get(sessionIDHeader), m.raw)
			w.WriteHeader(http.StatusAccepted)
		}
	default:
		next.ServeHTTP(w, withBody(r, m.raw))
	}
}

// readBody reads a request's body. If that fails, it answers the request.
func readBody(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	// Not io.ReadAll: its growing buffer leaves as much garbage as it returns.
	buffer := bytes.NewBuffer(make([]byte, 0, max(0, r.ContentLength)+bytes.MinRead))
	_, err := buffer.ReadFrom(r.Body)
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	limit, beyondLimit := errors.AsType[wire.LimitError](err)
	domain, refused := errors.AsType[*execution.Error](err)
	switch {
	case tooLarge:
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
	case beyondLimit:
		http.Error(w, limit.Error(), http.StatusBadRequest)
	case refused && domain.Code == execution.Busy:
		w.Header().Set("Retry-After", "1")
		http.Error(w, domain.Message, http.StatusTooManyRequests)
	case refused:
		w.Header().Set("Retry-After", "1")
		http.Error(w, domain.Message, http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, "the body could not be read", http.StatusBadRequest)
	default:
		return buffer.Bytes(), true
	}
	return nil, false
}

// withBody returns a request with another body, which is released once it has been read.
func withBody(r *http.Request, body []byte) *http.Request {
	r = r.WithContext(r.Context())
	r.ContentLength = int64(len(body))
	r.Body = &readOnce{bytes.NewReader(body)} // the server closes its own
	return r
}

// readOnce is a body that releases its bytes once they have been read: the reader has its own
// copy.
type readOnce struct{ rest *bytes.Reader }

func (b *readOnce) Read(p []byte) (int, error) {
	if b.rest == nil {
		return 0, io.EOF
	}
	n, err := b.rest.Read(p)
	if err != nil || b.rest.Len() == 0 {
		b.rest = nil
	}
	return n, err
}

// Close implements [io.Closer].
func (b *readOnce) Close() error {
	b.rest = nil
	return nil
}

// serveBatch answers each request of a batch with an event. A request can be cancelled while it
// waits for those before it.
func (s *sessions) serveBatch(w http.ResponseWriter, r *http.Request, m message, next http.Handler) {
	batch, ok := m.batch()
	if !ok {
		http.Error(w, batchFault, http.StatusBadRequest)
		return
	}
	hasNoSession := func(m message) bool { return m.method == string(mcpsdk.MethodInitialize) || m.isModern(r.Header) }
	if r.Header.Get(mcpsdk.HeaderProtocolVersion) > mcpsdk.ProtocolVersion20250326 || slices.ContainsFunc(batch, hasNoSession) {
		http.Error(w, "batches are accepted only in protocol sessions of revision 2025-03-26", http.StatusBadRequest)
		return
	}
	if slices.ContainsFunc(batch, func(m message) bool { return !m.isNotification() }) {
		wire.EventHeader(w.Header())
		w.WriteHeader(http.StatusOK)
	} else {
		w.WriteHeader(http.StatusAccepted)
	}
	requests, over := s.openAll(r, batch)
	defer over()
	for i, m := range batch {
		if r.Context().Err() != nil {
			return
		}
		if m.isCancellation() || isCancelled(requests[i].Context()) {
			continue
		}
		answer := &stream{ResponseWriter: w, header: make(http.Header), begun: true, ours: true}
		s.serveMessage(answer, requests[i], m, next)
		answer.Flush()
	}
}

// openAll opens the requests of a batch, and carries out its cancellations.
func (s *sessions) openAll(r *http.Request, batch []message) (requests []*http.Request, over func()) {
	var ends []func()
	for _, m := range batch {
		request, end := s.open(r, m)
		requests, ends = append(requests, request), append(ends, end)
		if m.isCancellation() {
			s.unanswered.cancel(r.Header.Get(sessionIDHeader), m.raw)
		}
	}
	return requests, func() {
		for _, end := range ends {
			end()
		}
	}
}
