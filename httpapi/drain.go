package httpapi

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/wire"
)

const (
	// drainTimes is how many times the limit of a body is read and discarded.
	drainTimes = 4
	// drainPiece must arrive within refusedBodyTime, or the client no longer sends.
	drainPiece = 64 << 10
	// strangerDrain is how long a client without a key may go on sending.
	strangerDrain = 30 * time.Second
)

// openBody is a body that stays readable when a handler closes it: the server closes it
// when the rest is discarded.
type openBody struct {
	io.ReadCloser
	begun atomic.Bool // some of it was asked for
	over  atomic.Bool // it has ended, failed or been discarded
}

// Read implements [io.Reader].
func (b *openBody) Read(p []byte) (int, error) {
	b.begun.Store(true)
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.over.Store(true)
	}
	return n, err
}

// Close does nothing.
func (b *openBody) Close() error { return nil }

// drain discards what a handler leaves of a body, after its answer has been sent. Many
// clients send their whole request before they read the answer. They would lose it: a
// connection that is closed with unread data is reset.
//
// The rest is bounded in bytes and in time, and the memory is charged. If there is none,
// the connection is closed as it is.
func (a *api) drain(body bodyPolicy, within time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		open, ok := r.Body.(*openBody) // that of a drain in front of this one
		if !ok {
			open = &openBody{ReadCloser: r.Body}
			r.Body = open
		}
		next.ServeHTTP(w, r)
		unsent := isFromPeer(r.Context()) && !open.begun.Load() // servers wait until a body is asked for
		if unsent || open.over.Load() || r.ContentLength > drainTimes*body.limit {
			return
		}
		account := a.memory.reads.Open(a.memory.owner(r))
		defer account.Close()
		if account.Take(wire.RequestBytes) == nil {
			discard(w, open, drainTimes*body.limit, within)
		}
		open.over.Store(true)
	})
}

// discard sends the answer and then reads at most a number of bytes.
func discard(w http.ResponseWriter, body io.Reader, most int64, within time.Duration) {
	control := http.NewResponseController(w)
	_ = control.Flush() // not for test recorders
	for end := time.Now().Add(within); most > 0; most -= drainPiece {
		deadline := time.Now().Add(refusedBodyTime)
		if deadline.After(end) {
			deadline = end
		}
		_ = control.SetReadDeadline(deadline) // not for test recorders
		if _, err := io.CopyN(io.Discard, body, drainPiece); err != nil {
			return
		}
	}
}
