package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
)

const (
	// maxBatch is how many messages a batch may have: they are taken one after the
	// other, under one request's share of the server.
	maxBatch = 100
	// maxValues is how many values a message may have: some fifty times what calls
	// have. Decoded, each takes many times the two bytes that it may be written in.
	maxValues = 100_000
)

// checked refuses, in front of the library's streamable transport (v1.2.1), what
// that takes for something else: other methods, what belongs to no protocol
// session where there must be one, and messages that would take much memory.
func (s *sessions) checked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			s.serveMessages(w, r, next)
		case http.MethodGet, http.MethodDelete:
			if isModern(r.Header, nil) || s.check(w, r) {
				next.ServeHTTP(w, r)
			}
		case http.MethodHead:
			next.ServeHTTP(w, r)
		default:
			refuseMethod(w, http.MethodGet, http.MethodPost, http.MethodDelete)
		}
	})
}

// check says whether a request belongs to a session, and answers it if not.
func (s *sessions) check(w http.ResponseWriter, r *http.Request) bool {
	id := r.Header.Get(sessionIDHeader)
	if id == "" {
		needSession(w)
		return false
	}
	if ended, err := s.ResolveSessionIdManager(r).Validate(id); ended && r.Method != http.MethodDelete || err != nil {
		http.Error(w, unknownSession, http.StatusNotFound)
		return false
	}
	return true
}

func needSession(w http.ResponseWriter) {
	http.Error(w, sessionIDHeader+" is missing: initialize gives one", http.StatusBadRequest)
}

// serveMessages serves a message or, which the library (v1.2.1) knows nothing of,
// a batch of them: revision 2025-03-26 has them.
func (s *sessions) serveMessages(w http.ResponseWriter, r *http.Request, next http.Handler) {
	body, ok := readMessage(w, r)
	switch {
	case !ok:
	case !isBatch(body):
		serveMessage(w, r, body, next)
	case s.check(w, r):
		serveBatch(w, r, body, next)
	}
}

// serveMessage also takes notifications that belong to no protocol session, and
// drops them: we need none. Since 2026-07-28 there are no sessions, and a client
// that calls off a call closes its request; the library (v1.2.1) would cancel
// whichever client's call has the number. All others it refuses, for want of what
// requests alone must say of themselves, and the official Go SDK says nothing.
func serveMessage(w http.ResponseWriter, r *http.Request, message []byte, next http.Handler) {
	e, modern := open(message), isModern(r.Header, message)
	switch {
	case modern && e.isNotification():
		w.WriteHeader(http.StatusAccepted)
	case !modern && e.Method != "" && e.Method != string(mcpsdk.MethodInitialize) && r.Header.Get(sessionIDHeader) == "":
		needSession(w)
	default:
		next.ServeHTTP(w, withBody(r, message))
	}
}

// readMessage reads a request's body, or answers that it is none to be taken.
func readMessage(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	body, err := io.ReadAll(r.Body)
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLarge:
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
		return nil, false
	case err != nil:
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return nil, false
	case hasManyValues(body):
		http.Error(w, "the message has too many values", http.StatusBadRequest)
		return nil, false
	}
	return body, true
}

// withBody gives a request another body.
func withBody(r *http.Request, body []byte) *http.Request {
	r = r.WithContext(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body)) // the server closes its own
	r.ContentLength = int64(len(body))
	return r
}

// serveBatch answers each request of a batch with an event.
func serveBatch(w http.ResponseWriter, r *http.Request, body []byte, next http.Handler) {
	var batch []json.RawMessage
	if json.Unmarshal(body, &batch) != nil || len(batch) == 0 || len(batch) > maxBatch {
		http.Error(w, "a batch must be a list of 1 to 100 messages", http.StatusBadRequest)
		return
	}
	needsNone := func(m json.RawMessage) bool {
		return open(m).Method == string(mcpsdk.MethodInitialize) || isModern(r.Header, m)
	}
	if r.Header.Get(mcpsdk.HeaderProtocolVersion) > mcpsdk.ProtocolVersion20250326 || slices.ContainsFunc(batch, needsNone) {
		http.Error(w, "batches are of sessions in revision 2025-03-26", http.StatusBadRequest)
		return
	}
	if !slices.ContainsFunc(batch, func(m json.RawMessage) bool { return !open(m).isNotification() }) {
		w.WriteHeader(http.StatusAccepted)
	} else {
		w.Header().Set("Content-Type", eventStream)
		w.Header().Set("Cache-Control", "no-cache")
		w.WriteHeader(http.StatusOK)
	}
	for _, message := range batch {
		if r.Context().Err() != nil {
			return
		}
		one := &stream{ResponseWriter: w, header: make(http.Header), begun: true, ours: true}
		serveMessage(one, r, message, next)
		one.Flush()
	}
}

// hasManyValues says whether a message has more values than any call needs.
func hasManyValues(message []byte) bool {
	values, inText := 0, false
	for i := 0; i < len(message); i++ {
		switch c := message[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case !inText && (c == ',' || c == '[' || c == '{'):
			values++
		}
	}
	return values > maxValues
}
