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

const (
	// maxBatch is how many messages a batch may have: they are under one request's
	// share of the server.
	maxBatch   = 100
	batchFault = "a batch must be a list of 1 to 100 messages"
)

// checked refuses, in front of the library's streamable transport (v1.2.1), what
// that takes for something else: other methods, what belongs to no protocol
// session where there must be one, and messages that would take much memory.
func (s *sessions) checked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := headerFault(r.Header); fault != "" {
			http.Error(w, fault, http.StatusBadRequest)
			return
		}
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

// headerFault returns which of the protocol's headers is too long, or "": the library
// (v1.2.1) repeats them in errors.
func headerFault(header http.Header) string {
	for name, values := range header {
		if !strings.HasPrefix(name, "Mcp-") {
			continue
		}
		for _, value := range values {
			if len(name)+len(value) > maxRepeated {
				return tooMuch("the header "+execution.Clip(name), len(value), maxRepeated-len(name))
			}
		}
	}
	return ""
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
	refusal := e.refusal(message)
	switch {
	case refusal != nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(refusal) // the client may be gone
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
	// Not io.ReadAll, whose growing leaves as much behind as it returns.
	buffer := bytes.NewBuffer(make([]byte, 0, max(0, r.ContentLength)+bytes.MinRead))
	_, err := buffer.ReadFrom(r.Body)
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	domain, refused := errors.AsType[*execution.Error](err)
	switch {
	case tooLarge:
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
	case errors.Is(err, wire.ErrManyValues), errors.Is(err, wire.ErrLongNumber):
		http.Error(w, err.Error(), http.StatusBadRequest)
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

// withBody gives a request another body, which is kept until it has been read.
func withBody(r *http.Request, body []byte) *http.Request {
	r = r.WithContext(r.Context())
	r.ContentLength = int64(len(body))
	r.Body = &readOnce{bytes.NewReader(body)} // the server closes its own
	return r
}

// readOnce is a body that nothing holds any more when it has been read: what reads
// it has a copy of its own.
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

// serveBatch answers each request of a batch with an event.
func serveBatch(w http.ResponseWriter, r *http.Request, body []byte, next http.Handler) {
	var batch []json.RawMessage
	if json.Unmarshal(body, &batch) != nil || len(batch) == 0 || len(batch) > maxBatch {
		http.Error(w, batchFault, http.StatusBadRequest)
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
